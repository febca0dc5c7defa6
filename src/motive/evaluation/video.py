"""A video to be measured: every frame at its own size and rate, as VBench reads it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from motive.clips.decoding import content_digest, decode_all


@dataclass(frozen=True)
class Video:
    """All frames of a file.

    frames_fhw3: RGB, uint8, `(F, H, W, 3)`.
    fps: the container's rate, in frames per second; 0 when it tells none.
    """

    frames_fhw3: np.ndarray
    fps: float


def read_video(path: Path) -> Video:
    """Every frame of a file.

    VBench reads with decord or OpenCV. Their conversions from YUV differ from each other and from
    FFmpeg's, which this is, by about a grey level.

    Raises ClipError when the file cannot be decoded to its end. (OpenCV would take what comes before the
    damage for the whole.)
    """
    return Video(*decode_all(path))


def video_digest(path: Path) -> str:
    """Of the file's bytes. Raises ClipError when it cannot be read."""
    return content_digest(path)
