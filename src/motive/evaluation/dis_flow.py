"""What can be measured without any network's weights, by DIS flow. None of it is VBench's number.

dynamic_degree_dis and motion_smoothness_dis are VBench's rules with another estimator, and have other
names because their values do not compare with RAFT's and AMT's.
"""

import cv2
import numpy as np
import torch
from torch import Tensor

from motive.errors import ClipError
from motive.evaluation.dimension import VideoScore
from motive.evaluation.dynamic_degree import (
    FASTEST,
    MULTIPLE,
    fastest_flow,
    frame_interval,
    judge,
)
from motive.evaluation.motion_smoothness import MotionSmoothness
from motive.evaluation.networks.choice import Networks
from motive.evaluation.preprocessing import padding
from motive.evaluation.video import Video
from motive.motion.dis import DisTracker
from motive.motion.flow import pixel_grid, sample
from motive.motion.statistics import describe_field


class DynamicDegreeDis:
    """dynamic_degree by the project's DIS tracker: every rule and threshold is VBench's.

    The tracker says how each pixel came from the frame before, where VBench's flow says where it goes
    to in the next; it is the motion of the same pair.
    """

    def __init__(self) -> None:
        self._tracker = DisTracker()
        self.identity = self._tracker.fingerprint()

    def score(self, video: Video) -> VideoScore:
        """Of any number of frames."""
        kept = video.frames_fhw3[:: frame_interval(video.fps)]
        left, right, top, bottom = padding(kept.shape[1], kept.shape[2], MULTIPLE)
        padded = np.pad(kept, ((0, 0), (top, bottom), (left, right), (0, 0)), mode="edge")
        flows = self._tracker.track(padded).displacement_fhw2[1:]
        scores = [fastest_flow(torch.from_numpy(flow).permute(2, 0, 1), FASTEST) for flow in flows]
        return judge(np.array(scores), kept.shape)


class DisInterpolator:
    """The frame half-way between two, by warping both along DIS flow (`networks.protocols.Interpolator`).

    The half-way flows assume motion in a straight line at constant speed (Jiang et al., Super SloMo,
    CVPR 2018, equation 4, at t = 1/2): with F the flow from the first to the second and B the one back,
    (B − F) / 4 leads to the first and (F − B) / 4 to the second. The mean of both warped frames is the
    prediction.
    """

    identity = f"dis preset=medium finest_scale=0, Super SloMo half-way opencv={cv2.__version__}"

    def __init__(self) -> None:
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self._flow.setFinestScale(0)

    def __call__(self, first_13hw: Tensor, second_13hw: Tensor) -> Tensor:
        first, second = (
            np.ascontiguousarray(image[0].permute(1, 2, 0).numpy())
            for image in (first_13hw, second_13hw)
        )
        if min(first.shape[:2]) < 32:
            raise ClipError("frames are smaller than the 32 pixels that DIS flow needs")
        one, other = (_grey(image) for image in (first, second))
        half = (self._flow.calc(one, other, None) - self._flow.calc(other, one, None)) / 4
        grid = pixel_grid(*one.shape)
        made = (sample(first, grid - half) + sample(second, grid + half)) / 2
        return torch.from_numpy(made).permute(2, 0, 1)[None]


class Jerk:
    """The project's own measure of uneven motion (`motion.statistics.MotionStatistics.jerk`)."""

    def __init__(self) -> None:
        self._tracker = DisTracker()
        self.identity = self._tracker.fingerprint()

    def score(self, video: Video) -> VideoScore:
        """Raises ClipError for a video of fewer than four frames."""
        if len(video.frames_fhw3) < 4:
            raise ClipError(f"{len(video.frames_fhw3)} frames are too few for jerk, which needs 4")
        statistics = describe_field(self._tracker.track(video.frames_fhw3))
        details = {"mean_speed": statistics.mean_speed, "p95_speed": statistics.p95_speed}
        return VideoScore(statistics.jerk, details=details)


def dynamic_degree_dis(networks: Networks) -> DynamicDegreeDis:
    """It needs no weights."""
    return DynamicDegreeDis()


def motion_smoothness_dis(networks: Networks) -> MotionSmoothness:
    """It needs no weights."""
    return MotionSmoothness(DisInterpolator())


def jerk(networks: Networks) -> Jerk:
    """It needs no weights."""
    return Jerk()


def _grey(image_hw3: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(np.rint(image_hw3 * 255).astype(np.uint8), cv2.COLOR_RGB2GRAY)
