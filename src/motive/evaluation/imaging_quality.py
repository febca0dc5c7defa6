"""imaging_quality: noise, blur and exposure of the frames, as MUSIQ judges them."""

from statistics import fmean

from motive.evaluation.dimension import VideoScore
from motive.evaluation.networks.choice import MissingNetworkError, Networks
from motive.evaluation.networks.plugin import user_network
from motive.evaluation.networks.protocols import QualityJudge
from motive.evaluation.preprocessing import ImagingMode, for_musiq, imaging_mode, to_float
from motive.evaluation.video import Video

_HOW = (
    "pyiqa's licence (CC BY-NC-SA 4.0) keeps it out of this package: give "
    "--plugin imaging_quality=FILE.PY:CLASS as docs/evaluation.md shows, or --vbench-python"
)


class ImagingQuality:
    """The mean over frames of the network's score, 0..100; the aggregate is in 0..1."""

    def __init__(self, network: QualityJudge, mode: ImagingMode = "longer") -> None:
        self._network, self._mode = network, mode
        self.identity = f"{network.identity}, mode={mode}"

    def score(self, video: Video) -> VideoScore:
        """Of any number of frames."""
        return VideoScore(
            fmean(
                float(self._network(for_musiq(to_float(frame[None]), self._mode)))
                for frame in video.frames_fhw3
            )
        )


def imaging_quality(networks: Networks) -> ImagingQuality:
    """With a user's MUSIQ. Raises MissingNetworkError without one."""
    mode = imaging_mode(networks.imaging_mode)
    network = user_network(networks, "imaging_quality")
    if network is None:
        raise MissingNetworkError("no network of image quality was given", _HOW)
    return ImagingQuality(network, mode)
