"""What a browser is given of a clip: the file itself, or an H.264 copy of what it cannot play.

Browsers play H.264, VP8, VP9 and AV1 of 8 bits and 4:2:0 in mp4 and webm. Everything else (gif, ProRes,
matroska, 4:4:4 …) is re-encoded once, when it is first asked for, and kept in `RUN/explorer/media`: its
first ten seconds at 24 frames per second, at most 640 pixels long.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from motive.clips.decoding import decode_clip
from motive.clips.ingest import decode_unchanged, file_key
from motive.clips.sampling import FrameSampler
from motive.errors import ClipError
from motive.runs.members import Member
from motive.web.preview import encode_preview, preview_size

if TYPE_CHECKING:
    from motive.pipeline import Run

_PLAYABLE = {
    ".mp4": ("video/mp4", {"h264", "av1", "libdav1d", "vp9", "libvpx-vp9"}),
    ".m4v": ("video/mp4", {"h264", "av1", "libdav1d"}),
    ".webm": ("video/webm", {"vp8", "vp9", "libvpx-vp9", "libvpx", "av1", "libdav1d"}),
}
_PIXELS = {"yuv420p", "yuvj420p"}
_POSTER_SIDE, _POSTER_BYTES = 320, 48 << 20
_CLIP_SIDE = 480  # of a clip as the model saw it, pixels
_COPY_SIDE = 640  # of a re-encoded copy, pixels
_COPY_FPS, _COPY_FRAMES = 24.0, 240  # of a re-encoded copy: ten seconds, held in memory once


class Media:
    """Playable files and posters of a run's clips."""

    def __init__(self, run: "Run", folder: Path) -> None:
        self._run, self._folder = run, folder
        self._posters: OrderedDict[str, bytes] = OrderedDict()
        self._sizes = 0
        self._playable: dict[str, str] = {}
        self._lock = threading.Lock()
        self._encoding: dict[str, threading.Lock] = {}

    def original(self, member: Member) -> tuple[Path, str]:
        """A file to play, and its media type: the clip's own, or a copy in H.264.

        Raises ClipError when the file is gone, changed or broken.
        """
        path = Path(member.path)
        if file_key(path) != member.file:
            raise ClipError("the file changed or is gone since it was ingested")
        kind = self._kind(member.file, path)
        if kind:
            return path, kind
        return self._kept(f"{member.clip_id}.copy.mp4", lambda: _copy(path)), "video/mp4"

    def as_sampled(self, member: Member) -> Path:
        """The frames that the model saw, and no others, as mp4: in step with the motion mask.

        Raises ClipError when the file is gone, changed or broken.
        """

        def encode() -> bytes:
            decoded = decode_unchanged(member.file, Path(member.path), self._run.sampler)
            return encode_preview(decoded.frames_fhw3, decoded.fps or 1.0, _CLIP_SIDE)

        return self._kept(f"{member.clip_id}.sampled.mp4", encode)

    def poster(self, member: Member) -> bytes:
        """The first frame as JPEG.

        Raises ClipError when the file is gone, changed or broken.
        """
        with self._lock:
            if member.clip_id in self._posters:
                self._posters.move_to_end(member.clip_id)
                return self._posters[member.clip_id]
        path = Path(member.path)
        if file_key(path) != member.file:
            raise ClipError("the file changed or is gone since it was ingested")
        made = _first_frame(path)
        with self._lock:
            if member.clip_id not in self._posters:  # another request may have made it meanwhile
                self._posters[member.clip_id] = made
                self._sizes += len(made)
            while self._sizes > _POSTER_BYTES:
                self._sizes -= len(self._posters.popitem(last=False)[1])
        return made

    def _kind(self, key: str, path: Path) -> str:
        """The media type of a file that browsers play, else empty."""
        with self._lock:
            if key in self._playable:
                return self._playable[key]
        found = _media_type(path)
        with self._lock:
            self._playable[key] = found
        return found

    def _kept(self, name: str, make: Callable[[], bytes]) -> Path:
        """A file of the cache, made once, whole or not at all."""
        target = self._folder / name
        with self._lock:
            turn = self._encoding.setdefault(name, threading.Lock())
        with turn:
            if not target.is_file():
                self._folder.mkdir(parents=True, exist_ok=True)
                part = self._folder / f".{name}.{os.getpid()}.part"
                try:
                    part.write_bytes(make())
                    os.replace(part, target)
                finally:
                    part.unlink(missing_ok=True)
        return target


def _media_type(path: Path) -> str:
    import av

    kind, codecs = _PLAYABLE.get(path.suffix.lower(), ("", set()))
    if not kind:
        return ""
    try:
        with av.open(str(path)) as container:
            stream = container.streams.best("video")
            context = stream.codec_context if stream else None
            if context is None or context.name not in codecs or context.pix_fmt not in _PIXELS:
                return ""
    except (av.FFmpegError, OSError, ValueError):
        return ""
    return kind


def _first_frame(path: Path) -> bytes:
    import cv2

    height, width = preview_size(*_upright_size(path), _POSTER_SIDE)
    image = decode_clip(path, FrameSampler(1, height, width)).frames_fhw3[0]
    done, jpeg = cv2.imencode(
        ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 82]
    )
    if not done:
        raise ClipError("its first frame cannot be encoded")
    return bytes(jpeg)


def _copy(path: Path) -> bytes:
    """The beginning of the file as small H.264, by its true times; sound is left out."""
    height, width = preview_size(*_upright_size(path), _COPY_SIDE)
    decoded = decode_clip(path, FrameSampler(_COPY_FRAMES, height, width, fps=_COPY_FPS))
    return encode_preview(decoded.frames_fhw3, _COPY_FPS, _COPY_SIDE)


def _upright_size(path: Path) -> tuple[int, int]:
    """Height and width of the first frame, as its rotation shows it."""
    found = decode_clip(path, FrameSampler(1, 16, 16, fit="stretch"))
    return found.source_height, found.source_width
