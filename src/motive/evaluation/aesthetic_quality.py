"""aesthetic_quality: how much people like the frames, as LAION's head over CLIP ViT-L/14 foretells."""

from torch.nn import functional

from motive.evaluation.consistency import extract
from motive.evaluation.dimension import VideoScore
from motive.evaluation.networks.aesthetic_head import AestheticHead, read_head
from motive.evaluation.networks.choice import Networks
from motive.evaluation.networks.plugin import user_network
from motive.evaluation.networks.protocols import FeatureExtractor
from motive.evaluation.preprocessing import for_clip
from motive.evaluation.video import Video


class AestheticQuality:
    """The mean over frames of (w · f + b) / 10, with features f of unit length."""

    def __init__(self, network: FeatureExtractor, head: AestheticHead) -> None:
        self._network, self._head = network, head
        self.identity = f"{network.identity}, {head.identity}"

    def score(self, video: Video) -> VideoScore:
        """Of any number of frames."""
        features = extract(self._network, for_clip, video.frames_fhw3)
        unit = functional.normalize(features.float(), dim=1)
        return VideoScore(float((self._head(unit) / 10).double().mean()))


def aesthetic_quality(networks: Networks) -> AestheticQuality:
    """With CLIP ViT-L/14 and the user's file of the head.

    Raises MissingNetworkError when either is not there.
    """
    from motive.evaluation.networks.clip import Clip

    head = read_head(networks.aesthetic_head)
    own = user_network(networks, "aesthetic_quality")
    network = own or Clip(networks.clip_large, "--clip-large", networks.device)
    return AestheticQuality(network, head)
