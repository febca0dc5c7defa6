"""motion_smoothness: how well every other frame is foretold by its neighbours."""

import numpy as np
from torch import Tensor

from motive.errors import ClipError
from motive.evaluation.dimension import VideoScore
from motive.evaluation.networks.choice import MissingNetworkError, Networks
from motive.evaluation.networks.plugin import user_network
from motive.evaluation.networks.protocols import Interpolator
from motive.evaluation.preprocessing import pad_to_multiple, padding, to_float
from motive.evaluation.video import Video

MULTIPLE = 16  # pixels

_HOW = (
    "AMT's licence (CC BY-NC 4.0) keeps it out of this package: give "
    "--plugin motion_smoothness=FILE.PY:CLASS as docs/evaluation.md shows, or --vbench-python"
)


class MotionSmoothness:
    """(255 − mean d) / 255, with d_i the mean absolute difference of odd frame 2i + 1 and what the
    network makes of the even frames beside it.

    Frames come to the network in 0..1, padded with their edge to multiples of 16; what it makes is cut
    back and brought to whole grey levels by truncation, as VBench does it. The last frame of an even
    number has no prediction and does not count.
    """

    def __init__(self, network: Interpolator) -> None:
        self._network = network
        self.identity = network.identity

    def score(self, video: Video) -> VideoScore:
        """Raises ClipError for a video of fewer than three frames."""
        frames = video.frames_fhw3
        if len(frames) < 3:
            raise ClipError(f"{len(frames)} frames are too few for smoothness, which needs 3")
        even = [pad_to_multiple(to_float(frame[None]) / 255, MULTIPLE) for frame in frames[::2]]
        differences = [
            self._difference(first, second, odd)
            for first, second, odd in zip(even[:-1], even[1:], frames[1::2], strict=False)
        ]
        return VideoScore((255 - float(np.mean(differences))) / 255)

    def _difference(self, first: Tensor, second: Tensor, odd_hw3: np.ndarray) -> float:
        height, width = odd_hw3.shape[:2]
        left, _, top, _ = padding(height, width, MULTIPLE)
        made = self._network(first, second).cpu()[0, :, top : top + height, left : left + width]
        grey = (made * 255).clamp(0, 255).permute(1, 2, 0).numpy().astype(np.uint8)
        return float(np.abs(odd_hw3.astype(np.int16) - grey).mean())


def motion_smoothness(networks: Networks) -> MotionSmoothness:
    """With a user's AMT-S. Raises MissingNetworkError without one."""
    network = user_network(networks, "motion_smoothness")
    if network is None:
        raise MissingNetworkError("no frame interpolation network was given", _HOW)
    return MotionSmoothness(network)
