"""What a dimension of a video's quality is: a number for each video, and how they become one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from motive.evaluation.networks.choice import Networks
from motive.evaluation.video import Video


@dataclass(frozen=True)
class VideoScore:
    """What a dimension says of one video.

    value: in the dimension's unit for a video.
    weight: the video's share in the aggregate.
    details: further facts, for people; plain values that JSON has.
    """

    value: float
    weight: float = 1.0
    details: dict[str, Any] = field(default_factory=dict)


class Measure(Protocol):
    """A dimension with its network loaded."""

    @property
    def identity(self) -> str:
        """The network with the digest of its weights, and every setting that changes a score."""
        ...

    def score(self, video: Video) -> VideoScore:
        """Raises ClipError for a video that the dimension cannot be asked of."""
        ...


@dataclass(frozen=True)
class Dimension:
    """A dimension, before its network is loaded.

    unit: of the aggregate. video_unit: of a video's value.
    formula: of what `Measure.score` computes; another one, and results of before no longer count.
    scale: what the mean of the videos is multiplied by.
    official: whether VBench has it.
    open: loads the network. Raises MissingNetworkError when it is not there.
    """

    name: str
    unit: str
    video_unit: str
    summary: str
    open: Callable[[Networks], Measure]
    higher_is_better: bool = True
    scale: float = 1.0
    official: bool = True
    formula: int = 1

    def aggregate(self, scores: Sequence[VideoScore]) -> float | None:
        """The mean over videos, each by its weight; None without a video that counts."""
        weight = sum(score.weight for score in scores)
        if not weight:
            return None
        return self.scale * sum(score.weight * score.value for score in scores) / weight
