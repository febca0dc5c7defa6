"""dynamic_degree: whether enough of a video moves enough. The share of videos that do."""

from dataclasses import asdict, dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from motive.evaluation.dimension import VideoScore
from motive.evaluation.networks.choice import Networks
from motive.evaluation.networks.plugin import user_network
from motive.evaluation.networks.protocols import FlowEstimator
from motive.evaluation.preprocessing import pad_to_multiple, to_float
from motive.evaluation.video import Video

RATE = 8  # frames per second, about, that a video is thinned out to
MULTIPLE = 8  # pixels
FASTEST = 0.05  # share of a frame's pixels whose speed counts


@dataclass(frozen=True)
class Threshold:
    """When a video is dynamic: at least `count` pairs of frames with a score above `speed`.

    speed: pixels from one kept frame to the next, 6 for a shorter side of 256.
    """

    speed: float
    count: int

    @classmethod
    def of(cls, frames: int, height: int, width: int) -> "Threshold":
        """For so many kept frames. Python's `round`, half to even, as in VBench."""
        return cls(speed=6.0 * min(height, width) / 256, count=round(4 * frames / 16))

    def is_dynamic(self, scores: np.ndarray) -> bool:
        """VBench asks after each pair, so without a pair no count is reached, not even 0."""
        return len(scores) > 0 and int((scores > self.speed).sum()) >= self.count


class DynamicDegree:
    """Pairs of neighbouring frames at about 8 per second, each with the mean length of its fastest flow.

    A video's value is 1 when it is dynamic and 0 when not.
    """

    def __init__(self, network: FlowEstimator) -> None:
        self._network = network
        self.identity = network.identity

    def score(self, video: Video) -> VideoScore:
        """Raises ClipError for a size that the network does not take."""
        kept = video.frames_fhw3[:: frame_interval(video.fps)]
        scores = np.array([self._pair_score(one, other) for one, other in pairwise(kept)])
        return judge(scores, kept.shape)

    def _pair_score(self, one_hw3: np.ndarray, other_hw3: np.ndarray) -> float:
        return fastest_flow(flow_between(self._network, one_hw3, other_hw3), FASTEST)


def judge(scores: np.ndarray, kept_shape: tuple[int, ...]) -> VideoScore:
    """The score of a video from its pairs', with what it rests on.

    kept_shape: `(F, H, W, 3)` of the kept frames.
    """
    threshold = Threshold.of(*kept_shape[:3])
    dynamic = threshold.is_dynamic(scores)
    details = {
        "frames_kept": kept_shape[0],
        "threshold": asdict(threshold),
        "pairs_above": int((scores > threshold.speed).sum()),
        "mean_pair_score": float(scores.mean()) if len(scores) else 0.0,
    }
    return VideoScore(float(dynamic), details=details)


def frame_interval(fps: float) -> int:
    """Every how manieth frame is kept; all of a video that tells no rate."""
    return max(1, round(fps / RATE))


def flow_between(network: FlowEstimator, one_hw3: np.ndarray, other_hw3: np.ndarray) -> Tensor:
    """Flow `(2, H, W)` of uint8 frames padded with their edge to multiples of 8, and not cut back."""
    first, second = (
        pad_to_multiple(to_float(frame[None]), MULTIPLE) for frame in (one_hw3, other_hw3)
    )
    return network(first, second).cpu()


def fastest_flow(flow_2hw: Tensor, share: float) -> float:
    """Mean length of the longest `int(share · H · W)` flow vectors, in pixels."""
    speed = flow_2hw.float().square().sum(0).sqrt().flatten()
    return float(torch.topk(speed, int(share * speed.numel())).values.double().mean())


def flow_network(networks: Networks) -> FlowEstimator:
    """The user's, or RAFT. Raises MissingNetworkError when it is not there."""
    from motive.evaluation.networks.raft import Raft

    own = user_network(networks, "dynamic_degree")
    return own or Raft(networks.raft, networks.device)


def dynamic_degree(networks: Networks) -> DynamicDegree:
    """With RAFT. Raises MissingNetworkError when it is not there."""
    return DynamicDegree(flow_network(networks))
