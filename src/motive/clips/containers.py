"""Opening a media file: as one file, of a format that names no others."""

from pathlib import Path
from typing import Any

from motive.errors import ClipError

#: FFmpeg's names of the formats that hold their video themselves. Playlists (HLS, DASH, concat, SDP) are
#: none of them: such a file, called `a.mp4`, would show any file that the reader may read.
FORMATS = (
    "mov,mp4,matroska,webm,avi,gif,mpeg,mpegts,mpegvideo,m4v,h264,hevc,av1,obu,ivf,flv,asf,ogg,mxf,nut,"
    "mjpeg,dv,rm,yuv4mpegpipe"
)
_OPTIONS = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}


def open_media(path: Path) -> Any:
    """The open `av.container.InputContainer`, to be closed.

    Raises ClipError for another format, and what PyAV raises for a file that cannot be read.
    """
    import av

    try:
        # Titles and comments may be in any encoding; none of them is looked at.
        return av.open(str(path), options=_OPTIONS, metadata_errors="replace")
    except av.ArgumentError:
        # That is how FFmpeg calls what is not in the list.
        raise ClipError("not a readable media file: no video file's format") from None
