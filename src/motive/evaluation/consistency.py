"""How alike the frames of a video are: subject_consistency and background_consistency."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from motive.errors import ClipError
from motive.evaluation.dimension import VideoScore
from motive.evaluation.networks.choice import Networks
from motive.evaluation.networks.plugin import user_network
from motive.evaluation.networks.protocols import FeatureExtractor
from motive.evaluation.preprocessing import for_clip, for_dino, to_float
from motive.evaluation.video import Video

BATCH = 32  # frames of a video that a network sees together


class Consistency:
    """Cosine similarity of each frame's features with the frame before and with the first.

    With unit-length features f, s_i = (max(0, f_i · f_{i−1}) + max(0, f_i · f_0)) / 2 for i = 1..T−1,
    and the video is their mean. The aggregate is the mean over the frames of all videos, as VBench
    computes it in one process, so a video's weight is T − 1.
    """

    def __init__(self, network: FeatureExtractor, prepare: Callable[[Tensor], Tensor]) -> None:
        self._network, self._prepare = network, prepare
        self.identity = network.identity

    def score(self, video: Video) -> VideoScore:
        """Raises ClipError for a video of one frame."""
        frames = len(video.frames_fhw3)
        if frames < 2:
            raise ClipError("one frame has no other to be consistent with")
        features = extract(self._network, self._prepare, video.frames_fhw3)
        return VideoScore(float(frame_similarities(features).mean()), weight=frames - 1)


def frame_similarities(features_fd: Tensor) -> Tensor:
    """s_1 … s_{T−1}, float64, of features of any length."""
    unit = functional.normalize(features_fd.float(), dim=1)
    before = (unit[1:] * unit[:-1]).sum(1).clamp(min=0)
    first = (unit[1:] * unit[0]).sum(1).clamp(min=0)
    return (before.double() + first.double()) / 2


def extract(
    network: FeatureExtractor, prepare: Callable[[Tensor], Tensor], frames_fhw3: np.ndarray
) -> Tensor:
    """Features of every frame, `(F, D)`."""
    batches = range(0, len(frames_fhw3), BATCH)
    return torch.cat(
        [network(prepare(to_float(frames_fhw3[i : i + BATCH]))).cpu() for i in batches]
    )


def subject_consistency(networks: Networks) -> Consistency:
    """With DINO ViT-B/16. Raises MissingNetworkError when it is not there."""
    from motive.evaluation.networks.dino import Dino

    own = user_network(networks, "subject_consistency")
    return Consistency(own or Dino(networks.dino, networks.device), for_dino)


def background_consistency(networks: Networks) -> Consistency:
    """With CLIP ViT-B/32 on the whole frame. Raises MissingNetworkError when it is not there."""
    from motive.evaluation.networks.clip import Clip

    own = user_network(networks, "background_consistency")
    return Consistency(own or Clip(networks.clip_base, "--clip-base", networks.device), for_clip)
