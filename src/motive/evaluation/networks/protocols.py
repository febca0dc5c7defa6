"""What a dimension asks of its network. The package's own networks and a user's plug-in are alike.

All tensors are float32 on the CPU or the network's device; what comes back may be on either.
"""

from typing import Protocol

from torch import Tensor


class Network(Protocol):
    """Any of those below."""

    @property
    def identity(self) -> str:
        """Name and weights, equal only for networks that say the same; it is cached and reported by it."""
        ...


class FeatureExtractor(Network, Protocol):
    """Of subject_consistency, background_consistency and aesthetic_quality."""

    def __call__(self, images_b3hw: Tensor) -> Tensor:
        """Features `(B, D)` of normalised images."""
        ...


class Interpolator(Network, Protocol):
    """Of motion_smoothness."""

    def __call__(self, first_13hw: Tensor, second_13hw: Tensor) -> Tensor:
        """The frame half-way between two, `(1, 3, H, W)`; all in 0..1, sides are multiples of 16."""
        ...


class FlowEstimator(Network, Protocol):
    """Of dynamic_degree and the static filter."""

    def __call__(self, first_13hw: Tensor, second_13hw: Tensor) -> Tensor:
        """Flow from the first to the second, `(2, H, W)`, x before y, in pixels.

        Images are in 0..255, sides are multiples of 8. Raises ClipError for images that the network
        does not take.
        """
        ...


class QualityJudge(Network, Protocol):
    """Of imaging_quality."""

    def __call__(self, image_13hw: Tensor) -> float:
        """The quality of an image in 0..1, from 0 to 100."""
        ...
