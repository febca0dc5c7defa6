"""Generated frames as mp4: H.264 at a constant quality that hides nothing, at an exact rate."""

import os
from fractions import Fraction
from hashlib import blake2b
from pathlib import Path

import av
import numpy as np

from motive.errors import UserError

CRF = 12  # x264's constant rate factor; it calls 17 or 18 visually lossless
ENCODING = f"libx264 crf={CRF} preset=medium yuv420p"


def write_video(path: Path, frames_fhw3: np.ndarray, fps: float) -> None:
    """RGB uint8 frames as a whole file, or none.

    Raises UserError for an odd height or width, which 4:2:0 cannot carry.
    """
    height, width = frames_fhw3.shape[1:3]
    if height % 2 or width % 2:
        raise UserError(f"mp4 takes even sizes, not {height}x{width}: give another --size")
    # A prompt may fill the longest name there is, so the unfinished file has a name of its own.
    digest = blake2b(path.name.encode(), digest_size=8).hexdigest()
    part = path.with_name(f".{digest}.{os.getpid()}.part")
    try:
        _encode(part, frames_fhw3, exact_rate(fps))
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def is_whole_video(path: Path, frames: int) -> bool:
    """Whether `path` is an mp4 with all of its bytes, whose index speaks of so many frames."""
    try:
        if not _ends_with_a_box(path):
            return False
        with av.open(str(path)) as container:
            return bool(container.streams.video) and container.streams.video[0].frames == frames
    except (av.FFmpegError, OSError, ValueError):
        return False


def _ends_with_a_box(path: Path) -> bool:
    """Whether the boxes that an mp4 consists of end where the file does. FFmpeg opens cut-off ones."""
    end, place = path.stat().st_size, 0
    with path.open("rb") as file:
        while place < end:
            file.seek(place)
            header = file.read(16)
            size = int.from_bytes(header[:4], "big")
            if size == 1:  # the size is too large for four bytes and stands behind the name
                size = int.from_bytes(header[8:], "big")
            if size < 8:
                return False
            place += size
    return place == end > 0


def exact_rate(fps: float) -> Fraction:
    """Frames per second as a fraction that a container can hold: 23.976 is 24000/1001."""
    return Fraction(fps).limit_denominator(1001)


def _encode(path: Path, frames_fhw3: np.ndarray, rate: Fraction) -> None:
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.height, stream.width = frames_fhw3.shape[1:3]
        stream.pix_fmt = "yuv420p"
        # One thread, and no macroblock tree: both make other bytes from run to run.
        stream.options = {
            "crf": str(CRF),
            "preset": "medium",
            "threads": "1",
            "x264-params": "mbtree=0",
        }
        stream.time_base = 1 / rate
        for image in frames_fhw3:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
