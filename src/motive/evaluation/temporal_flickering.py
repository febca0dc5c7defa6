"""temporal_flickering: how little neighbouring frames differ. Meant for static videos."""

from itertools import pairwise

import numpy as np

from motive.errors import ClipError
from motive.evaluation.dimension import VideoScore
from motive.evaluation.networks.choice import Networks
from motive.evaluation.video import Video


class TemporalFlickering:
    """(255 − mean |frame_k − frame_{k+1}|) / 255, over pixels, channels and pairs of frames."""

    identity = "no network"

    def score(self, video: Video) -> VideoScore:
        """Raises ClipError for a video of one frame (VBench gives nan)."""
        if len(video.frames_fhw3) < 2:
            raise ClipError("one frame does not flicker")
        differences = frame_differences(video.frames_fhw3)
        return VideoScore((255 - float(np.mean(differences))) / 255)


def frame_differences(frames_fhw3: np.ndarray) -> np.ndarray:
    """Mean absolute difference of each frame and the next, in grey levels, `(F − 1,)` float64."""
    return np.array(
        [np.abs(one.astype(np.int16) - other).mean() for one, other in pairwise(frames_fhw3)]
    )


def temporal_flickering(networks: Networks) -> TemporalFlickering:
    """It needs no network."""
    return TemporalFlickering()
