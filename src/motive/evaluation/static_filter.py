"""VBench's static filter: the videos that temporal_flickering is meant for."""

import numpy as np

from motive.evaluation.dimension import VideoScore
from motive.evaluation.dynamic_degree import fastest_flow, flow_between, flow_network
from motive.evaluation.networks.choice import Networks
from motive.evaluation.networks.protocols import FlowEstimator
from motive.evaluation.video import Video

FASTEST = 0.02  # share of a frame's pixels whose speed counts
PER_PROMPT = 5  # static videos of a prompt that are scored, the first ones


class StaticFilter:
    """1 for a static video, 0 for another, from the flow between all neighbouring frames and between
    the first and the last, both ways.
    """

    def __init__(self, network: FlowEstimator) -> None:
        self._network = network
        self.identity = network.identity

    def score(self, video: Video) -> VideoScore:
        """Raises ClipError for a size that the network does not take."""
        frames = video.frames_fhw3
        scores = np.array([self._pair_score(frames[i], frames[j]) for i, j in pairs(len(frames))])
        return VideoScore(float(is_static(scores, *frames.shape[:3])))

    def _pair_score(self, one_hw3: np.ndarray, other_hw3: np.ndarray) -> float:
        return fastest_flow(flow_between(self._network, one_hw3, other_hw3), FASTEST)


def pairs(frames: int) -> list[tuple[int, int]]:
    """The pairs of frames that are looked at: neighbours, and last the two around the ends."""
    return [(i, i + 1) for i in range(frames - 1)] + [(0, frames - 1), (frames - 1, 0)]


def thresholds(frames: int, height: int, width: int) -> tuple[float, int]:
    """Speed in pixels above which a pair moves, and how many pairs may."""
    return 3.0 * min(height, width) / 256, round(2 * frames / 16)


def is_static(scores: np.ndarray, frames: int, height: int, width: int) -> bool:
    """Whether a video with these scores of `pairs` is static."""
    speed, count = thresholds(frames, height, width)
    few_move = int((scores[:-2] > speed).sum()) <= count
    return few_move and not (scores[-2:] > speed * count * 2).any()


def static_filter(networks: Networks) -> StaticFilter:
    """With dynamic_degree's network. Raises MissingNetworkError when it is not there."""
    return StaticFilter(flow_network(networks))
