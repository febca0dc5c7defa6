"""Media files to frames, with PyAV: whatever it can read, upright, at true times."""

import errno
import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from motive.clips.containers import open_media
from motive.clips.sampling import FrameSampler
from motive.clips.truncation import gif_is_cut, seconds_missing
from motive.errors import ClipError

if TYPE_CHECKING:
    import av

MAX_PIXELS = (
    2**26
)  # of one source frame: 8192 × 8192; larger ones are taken for an attack or an error


@dataclass(frozen=True)
class DecodedClip:
    """The sampled frames of one file.

    frames_fhw3: RGB, uint8, `(frames, height, width, 3)`.
    fps: mean rate of the sampled frames, in frames per second of the file's own time; 0 for one frame.
    source_fps: mean rate of the file's frames as far as they were decoded; 0 for one frame.
    source_height, source_width: of the first frame, upright.
    codec: name of the video codec.
    """

    frames_fhw3: np.ndarray
    fps: float
    source_fps: float
    source_height: int
    source_width: int
    codec: str


def content_digest(path: Path) -> str:
    """BLAKE2b of the file's bytes, 32 hex digits.

    Raises ClipError when the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError as error:
        raise ClipError(f"cannot be read: {error.strerror}") from None


def decode_clip(path: Path, sampler: FrameSampler) -> DecodedClip:
    """Decode, choose and resize the frames that `sampler` asks for.

    Frames come in presentation order, rotation and mirroring metadata honoured, in the best of several video
    streams. Decoding stops as soon as the sampler has what it needs.

    Raises ClipError with the reason when there is no video, no frame, too few frames for the model,
    or when the file breaks or is cut off before the sampler has what it needs (`clips.truncation`).
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise ClipError(f"cannot be read: {error.strerror}") from None
    if size == 0:
        raise ClipError("the file is empty")
    # A clip spread over its file needs all times before the first choice: one pass for the times alone
    # keeps memory at the chosen frames, however long the file is.
    ahead = set(sampler.choose(_times(path)).tolist()) if sampler.mode == "spread" else None
    times: list[float] = []
    resized: dict[int, np.ndarray] = {}
    source: tuple[int, int] | None = None
    codec = ""
    try:
        for time, name, frame in _frames(path):
            if ahead is None or len(times) in ahead:
                image = _upright(frame)
                source = source or (image.shape[0], image.shape[1])
                resized[len(times)] = _resize(image, sampler)
            times.append(time)
            codec = name
            if sampler.enough(times):
                break
    except _BrokenStreamError as broken:
        raise ClipError(f"decoding fails after {len(times)} frames: {broken}") from None
    if not times:
        raise ClipError("no frame can be decoded")
    chosen = sampler.choose(np.asarray(times))
    if len(chosen) == 0 or source is None:
        raise ClipError(f"only {len(times)} frames, the model needs {sampler.length_offset}")
    span = times[chosen[-1]] - times[chosen[0]]
    fps = _rate(len(chosen), span)
    if sampler.fps is not None and sampler.mode == "first" and len(chosen) > 1:
        # A frame that is shown for long repeats: the frames' own times do not tell the rate.
        fps = sampler.fps
    return DecodedClip(
        frames_fhw3=np.stack([resized[i] for i in chosen]),
        fps=fps,
        source_fps=_rate(len(times), times[-1] - times[0]),
        source_height=source[0],
        source_width=source[1],
        codec=codec,
    )


def decode_all(path: Path) -> tuple[np.ndarray, float]:
    """Every frame of a file as it is, `(frames, height, width, 3)` RGB uint8, and its nominal rate.

    In the order of `decode_clip`. The rate is in frames per second as the container tells it; 0 when it
    does not.

    Raises ClipError with the reason when the file cannot be decoded to its end, or its frames change size.
    """
    import av

    try:
        images = [_upright(frame) for _, _, frame in _frames(path)]
        with open_media(path) as container:
            stream = container.streams.best("video")
            rate = stream and (stream.guessed_rate or stream.average_rate)
    except (_BrokenStreamError, av.FFmpegError, OSError) as broken:
        raise ClipError(f"decoding fails: {_reason(broken)}") from None
    if not images:
        raise ClipError("no frame can be decoded")
    if any(image.shape != images[0].shape for image in images):
        raise ClipError("its frames change size")
    return np.stack(images), float(rate or 0)


class _BrokenStreamError(Exception):
    """FFmpeg gave up; the message is its reason."""


def _rate(frames: int, seconds: float) -> float:
    return (frames - 1) / seconds if frames > 1 and seconds > 0 else 0.0


def _times(path: Path) -> np.ndarray:
    """Presentation times of all frames in seconds."""
    try:
        times = [time for time, _, _ in _frames(path)]
    except _BrokenStreamError as broken:
        raise ClipError(f"decoding fails: {broken}") from None
    if not times:
        raise ClipError("no frame can be decoded")
    return np.asarray(times)


def _frames(path: Path) -> Iterator[tuple[float, str, "av.VideoFrame"]]:
    """Seconds, codec and frame, in presentation order."""
    import av

    try:
        container = open_media(path)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise ClipError(f"not a readable media file: {_reason(error)}") from None
    with container:
        stream = container.streams.best("video")
        if stream is None:
            raise ClipError("the file has no video stream")
        if stream.codec_context is None:
            raise ClipError("its video has an unknown codec or a damaged header")
        # With more threads, what FFmpeg makes of a damaged file (its pictures, and whether it reports an
        # error at all) depends on their number.
        stream.codec_context.thread_count = 1
        # Frames may be larger than the header says.
        stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
        if (stream.width or 0) * (stream.height or 0) > MAX_PIXELS:
            raise ClipError(f"frames of {stream.width}×{stream.height} pixels are too large")
        rate = float(stream.average_rate or stream.guessed_rate or 25)
        last, end = -1.0 / rate, 0.0
        try:
            for frame in container.decode(stream):
                # A few containers give no times: then the nominal rate is all there is.
                last = frame.time if frame.time is not None else last + 1 / rate
                end = last + float((frame.duration or 0) * (frame.time_base or 0))
                yield last, stream.codec_context.name, frame
            # Only when somebody wanted the last frame.
            missing = seconds_missing(path, container, stream, end_s=end, rate=rate)
        except (av.FFmpegError, OSError) as error:
            raise _BrokenStreamError(_reason(error)) from None
        if missing is not None:
            raise _BrokenStreamError(
                f"the file is cut off, {missing:.1f} s of its video are missing"
            )
        if container.format.name == "gif" and gif_is_cut(path):
            raise _BrokenStreamError("the file is cut off, a GIF ends with a trailer")


def _reason(error: Exception) -> str:
    if getattr(error, "errno", None) == errno.ENOMEM:
        raise MemoryError  # the machine's fault or the limit's, not said of the file
    return str(getattr(error, "strerror", None) or error)


def _upright(frame: "av.VideoFrame") -> np.ndarray:
    import av

    try:
        # One thread: with more of them a frame takes twenty times as long where processors are few.
        image = frame.to_ndarray(format="rgb24", threads=1)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise ClipError(
            f"{frame.format.name} frames cannot be converted: {_reason(error)}"
        ) from None
    matrix = frame.side_data.get("DISPLAYMATRIX")
    return image if matrix is None else _oriented(image, bytes(matrix))


def _oriented(image_hw3: np.ndarray, matrix: bytes) -> np.ndarray:
    """The image as its display matrix shows it: turned by quarters, mirrored, or both.

    matrix: nine 32-bit numbers, row by row; (x, y) goes to (a·x + c·y, b·x + d·y), y down.
    """
    a, b, _, c, d = struct.unpack("=5i", matrix[:20])
    if a and d and not b and not c:
        return image_hw3[:: 1 if d > 0 else -1, :: 1 if a > 0 else -1]
    if b and c and not a and not d:
        return image_hw3.transpose(1, 0, 2)[:: 1 if b > 0 else -1, :: 1 if c > 0 else -1]
    raise ClipError("its rotation is not by quarter turns")


def _resize(image_hw3: np.ndarray, sampler: FrameSampler) -> np.ndarray:
    import cv2

    height, width = image_hw3.shape[:2]
    scale_y, scale_x = sampler.height / height, sampler.width / width
    if sampler.fit == "crop":
        scale_y = scale_x = max(scale_y, scale_x)
    new_h = max(sampler.height, round(height * scale_y))
    new_w = max(sampler.width, round(width * scale_x))
    if new_h * new_w > MAX_PIXELS:
        raise ClipError(f"frames of {width}×{height} pixels are too narrow to be cropped")
    if (new_h, new_w) != (height, width):
        shrinks = new_h < height or new_w < width
        method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
        image_hw3 = cv2.resize(
            np.ascontiguousarray(image_hw3), (new_w, new_h), interpolation=method
        )
    top, left = (new_h - sampler.height) // 2, (new_w - sampler.width) // 2
    return np.ascontiguousarray(image_hw3[top : top + sampler.height, left : left + sampler.width])
