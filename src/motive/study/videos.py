"""Copies of videos that every browser plays and that do not tell where they come from."""

import os
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from motive.clips.truncation import seconds_missing
from motive.errors import ClipError

#: x264's scale of constant quality: 0 is lossless, 18 already looks so.
CRF = 14
# One tick for all copies: what the times of 24, 25, 30 and 16 frames a second share.
_TICK = Fraction(1, 12_000)
# A check must be plain to see: this share of the picture changes by this many of 255 levels.
_MOVING_SHARE, _MOVING_LEVELS = 0.01, 25
# The copies' time of last change, which a server tells: the same for all.
_COPIED_AT = 1_700_000_000


def copy_video(source: Path, target: Path) -> None:
    """Write the pictures of `source` as an anonymous H.264 mp4, whole or not at all.

    Every arm is encoded in the same way: 4:2:0 of 8 bits, which every browser plays, without sound, with
    the times of the frames and no metadata. An odd height or width gets one more line of what is at its
    edge.

    Raises ClipError when the source does not decode.
    """
    frames, times = read_frames(source)
    _write(target, frames, times)


def copy_standing(source: Path, target: Path) -> None:
    """The same, but of the first frame alone, for as long as the video lasts."""
    frames, times = read_frames(source)
    _write(target, np.broadcast_to(frames[:1], frames.shape), times)


def moves_plainly(source: Path) -> bool:
    """Whether the video can be told from its own first frame at a glance."""
    frames, _ = read_frames(source)
    first = frames[0].astype(np.int16)
    return any(
        (np.abs(frame - first).max(-1) > _MOVING_LEVELS).mean() >= _MOVING_SHARE
        for frame in frames[1:]
    )


def outline(source: Path) -> tuple[int, int, float]:
    """Width, height and seconds, to a tenth, as the file states them; raises ClipError as above."""
    import av

    try:
        with av.open(str(source)) as container:
            stream = container.streams.best("video")
            if stream is None:
                raise ClipError("has no video")
            seconds = (container.duration or 0) / av.time_base
            return stream.width, stream.height, round(seconds, 1)
    except (av.FFmpegError, OSError) as error:
        raise _unreadable(error) from None


def read_frames(source: Path) -> tuple[np.ndarray, list[Fraction]]:
    """All frames, `(frames, height, width, 3)` uint8 RGB, and when each begins and the last one ends.

    Times are in seconds from the first frame. Raises ClipError when there is nothing to show.
    """
    import av

    frames: list[np.ndarray] = []
    times: list[Fraction] = []
    step = Fraction(0)
    try:
        with av.open(str(source)) as container:
            stream = container.streams.best("video")
            if stream is None:
                raise ClipError("has no video")
            if stream.average_rate:
                step = 1 / Fraction(stream.average_rate)
            # Neither decoding nor conversion takes as many threads as there are processors.
            stream.codec_context.thread_count = 1
            for frame in container.decode(stream):
                if frame.rotation or frame.pts is None:
                    raise ClipError("is rotated, or has frames without a time: re-encode it")
                frames.append(frame.to_ndarray(format="rgb24", threads=1))
                times.append(frame.pts * Fraction(frame.time_base))
            if any(later <= earlier for earlier, later in pairwise(times)):
                raise ClipError("has frames whose times do not increase")
            if len(times) > 1:
                rate = (len(times) - 1) / float(times[-1] - times[0])
                end_s = float(times[-1]) + 1 / rate
                if seconds_missing(source, container, stream, end_s=end_s, rate=rate):
                    raise ClipError("is cut off before its end")
    except (av.FFmpegError, OSError, ValueError) as error:
        raise _unreadable(error) from None
    if not frames or any(frame.shape != frames[0].shape for frame in frames):
        raise ClipError("has no frames, or frames of several sizes")
    end = times[-1] + (step or Fraction(1))
    return np.stack(frames), [time - times[0] for time in (*times, end)]


def _unreadable(error: Exception) -> ClipError:
    return ClipError(f"cannot be read ({getattr(error, 'strerror', None) or error})")


def _write(target: Path, frames_fhw3: np.ndarray, times: list[Fraction]) -> None:
    import av

    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    rate = Fraction(len(frames_fhw3)) / times[-1]
    ticks = [round(time / _TICK) for time in times]
    try:
        with av.open(str(part), "w", format="mp4", options={"movflags": "faststart"}) as container:
            stream = _open_stream(container, frames_fhw3, rate)
            for i, image in enumerate(frames_fhw3):
                frame = av.VideoFrame.from_ndarray(_even(image), format="rgb24")
                frame.pts, frame.time_base = ticks[i], _TICK
                _mux(container, stream.encode(frame), ticks)
            _mux(container, stream.encode(), ticks)
        os.utime(part, (_COPIED_AT, _COPIED_AT))
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def _open_stream(container: Any, frames_fhw3: np.ndarray, rate: Fraction) -> Any:
    # Without B-frames the last packet is the last frame, whose duration mp4 then keeps. Frequent
    # keyframes make seeking quick. One thread, so that the bytes do not depend on the machine.
    options = {"crf": str(CRF), "preset": "fast", "bf": "0", "g": "12"}
    stream = container.add_stream("libx264", rate=rate.limit_denominator(1001), options=options)
    height, width = frames_fhw3.shape[1:3]
    stream.height, stream.width = height + height % 2, width + width % 2
    stream.pix_fmt = "yuv420p"
    stream.codec_context.thread_count = 1
    stream.codec_context.time_base = stream.time_base = _TICK
    return stream


def _mux(container: Any, packets: list[Any], ticks: list[int]) -> None:
    for packet in packets:
        packet.duration = ticks[ticks.index(packet.pts) + 1] - packet.pts
        container.mux(packet)


def _even(image_hw3: np.ndarray) -> np.ndarray:
    height, width = image_hw3.shape[:2]
    if height % 2 == 0 and width % 2 == 0:
        return np.ascontiguousarray(image_hw3)
    return np.pad(image_hw3, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
