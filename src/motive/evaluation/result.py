"""What an evaluation says: every number with its unit and network, and what is missing and why."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from motive.evaluation.dimension import Dimension
from motive.evaluation.leaderboard import quality_score
from motive.runs.provenance import versions, write_atomically


@dataclass(frozen=True)
class DimensionResult:
    """One dimension over a folder of videos.

    score: the aggregate, in the dimension's unit; None when no video counts.
    network: the identity of the network that it rests on.
    videos: by file name, `value` in the video's unit, `weight` in the aggregate, and details.
    not_there: videos that the prompt list asks for and are not there.
    note: what else is to be known of the number.
    """

    dimension: Dimension
    score: float | None
    network: str
    videos: dict[str, dict[str, Any]]
    not_there: list[str]
    note: str = ""

    def mean_of_videos(self) -> float | None:
        """The plain mean over videos: what VBench aggregates to in several processes."""
        if not self.videos:
            return None
        values = [video["value"] for video in self.videos.values()]
        return self.dimension.scale * sum(values) / len(values)

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "score": self.score,
            "unit": self.dimension.unit,
            "higher_is_better": self.dimension.higher_is_better,
            "summary": self.dimension.summary,
            "network": self.network,
            "note": self.note,
            "mean_of_videos": self.mean_of_videos(),
            "video_unit": self.dimension.video_unit,
            "videos": self.videos,
            "not_there": self.not_there,
        }


@dataclass(frozen=True)
class Missing:
    """A dimension that was not measured: why, and how to have it."""

    why: str
    how: str


@dataclass(frozen=True)
class Failure:
    """A file that was not measured, in all dimensions (None) or in one."""

    file_name: str
    dimension: str | None
    reason: str


@dataclass(frozen=True)
class Evaluation:
    """All that was asked of a folder of videos.

    results, missing: by dimension; every dimension that was asked for is in one of them.
    """

    folder: Path
    results: dict[str, DimensionResult]
    missing: dict[str, Missing]
    failures: list[Failure]

    def scores(self) -> dict[str, float]:
        """The aggregates of the dimensions that have one."""
        return {n: r.score for n, r in self.results.items() if r.score is not None}

    def as_json(self) -> dict[str, Any]:
        """Plain values, as in the file."""
        return {
            "format": 1,
            "folder": str(self.folder),
            "dimensions": {name: result.as_json() for name, result in self.results.items()},
            "missing": {name: asdict(missing) for name, missing in self.missing.items()},
            "failures": [asdict(failure) for failure in self.failures],
            # Of VBench's leaderboard; null unless all seven dimensions of quality are there.
            "quality_score": quality_score(self.scores()),
            "versions": versions(),
        }

    def write(self, path: Path) -> None:
        """The whole file or nothing."""
        text = json.dumps(self.as_json(), indent=1, ensure_ascii=False, allow_nan=False)
        write_atomically(path, text + "\n")
