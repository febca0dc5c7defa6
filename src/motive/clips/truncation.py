"""Is a media file cut off? FFmpeg takes what is left of one for a shorter clip, mostly without a word.

What a file says of itself is compared with what is in it. Matroska, WebM, MP4, MOV and AVI state a duration
of the video or of the whole; a GIF states none, but must end with a trailer. A file that states nothing,
such as a WebM that a browser recorded, cannot be told from its own beginning.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from motive.clips.containers import open_media

if TYPE_CHECKING:
    import av

# What a duration may be too long by: the last frame's own time, audio's frames, rounding, a loose header.
_LOOSE_SHARE, _LOOSE_SECONDS, _LOOSE_FRAMES = 0.05, 0.1, 3
_TAG = re.compile(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)")


def seconds_missing(
    path: Path,
    container: "av.container.InputContainer",
    stream: "av.VideoStream",
    *,
    end_s: float,
    rate: float,
) -> float | None:
    """How far the video, decoded to its end, falls short of what the file states; None if it does not.

    end_s: when the last frame ends, in seconds of the file's own time.
    rate: mean frames per second.
    """
    stated, of_the_video = _stated_seconds(container, stream)
    loose = max(_LOOSE_SHARE * stated, _LOOSE_SECONDS, _LOOSE_FRAMES / rate)
    if stated - end_s <= loose:
        return None
    if not of_the_video and stated - _last_packet_ends(path) <= loose:
        return None  # the sound is longer than the pictures
    return stated - end_s


def _stated_seconds(
    container: "av.container.InputContainer", stream: "av.VideoStream"
) -> tuple[float, bool]:
    """The duration that the file states, 0 for none, and whether it is the video's own."""
    # Matroska has the whole's duration in its header; muxers add each stream's as a tag.
    if tag := _TAG.match(stream.metadata.get("DURATION", "")):
        hours, minutes, seconds = tag.groups()
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds), True
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base), True
    return (container.duration or 0) / 1e6, False


def _last_packet_ends(path: Path) -> float:
    """The end of the last packet of any stream, in seconds."""
    end = 0.0
    with open_media(path) as container:
        for packet in container.demux():
            if packet.pts is not None and packet.time_base is not None:
                end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
    return end


def gif_is_cut(path: Path) -> bool:
    """Whether a GIF ends before its trailer (GIF89a, section 27: required)."""
    with path.open("rb") as file:
        head = file.read(13)
        if len(head) < 13:
            return True
        _skip_colours(file, head[10])
        while kind := file.read(1):
            if kind == b"!":  # an extension: its label, then data
                file.read(1)
                _skip_data(file)
            elif (
                kind == b","
            ):  # an image: its descriptor, perhaps colours, the code size, then data
                descriptor = file.read(9)
                if len(descriptor) < 9:
                    return True
                _skip_colours(file, descriptor[8])
                file.read(1)
                _skip_data(file)
            elif (
                kind != b"\0"
            ):  # zeros between blocks are common; what is no block at all is FFmpeg's
                return False
    return True


def _skip_colours(file: BinaryIO, flags: int) -> None:
    if flags & 0x80:
        file.read(3 << ((flags & 7) + 1))


def _skip_data(file: BinaryIO) -> None:
    while size := file.read(1):
        if not size[0]:
            return
        file.read(size[0])
