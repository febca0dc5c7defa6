"""The setting of the ablations: sizes, the corpus, and what is asked of the product's own runs."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from counterfactual_corpora import MODEL, Corpus, CorpusPlan

from motive import Run
from motive.gradients.objective import Objective
from motive.influence.features import Features
from motive.motion.track import STATISTICS
from motive.runs.members import Role
from motive.runs.provenance import write_atomically

NESTED = (
    "fastfood",
    "factored",
)  # whose first rows are those of a smaller one, but for their scale
KINDS_TAKE_TURNS = 14  # so that so many clips in a row have one of each kind


# How a clip may be sampled for less: the run's settings, by what a reader is told.
SAMPLINGS: dict[str, dict[str, Any]] = {
    "all frames, 64 × 64": {},
    "all frames, 32 × 32": {"sampling__height": 32, "sampling__width": 32},
    "every other frame": {"sampling__fps": 8.0},
    "first 17 frames": {"sampling__frames": 17},
    "every other frame, 32 × 32": {
        "sampling__fps": 8.0,
        "sampling__height": 32,
        "sampling__width": 32,
    },
}
WHOLE = next(iter(SAMPLINGS))


@dataclass(frozen=True)
class Setting:
    """Sizes of the study.

    lengths: pixel frames, drawn for each clip.
    dim: of Fastfood, where a projection stands for the gradient.
    timesteps: of the average that one timestep is held against, on the first `averaged_clips`.
    dims: of the projections that are compared.
    few_dims: of those that are slow, or made anew for each dimension.
    projection_seeds: how many, by kind.
    few_clips: the batches with one of the first so many clips alone go through these.
    sampled_clips: the first clips, which are attributed at other sizes and lengths, `samplings`.
    timed_clips: of the longest, that processor time is measured on.
    """

    seed: int = 61
    clips: int = 29 * KINDS_TAKE_TURNS
    queries: int = 30
    lengths: tuple[int, ...] = (9, 17, 33)
    dim: int = 4096
    timesteps: tuple[float, ...] = tuple(100.0 * k + 50 for k in range(10))
    averaged_clips: int = 10 * KINDS_TAKE_TURNS
    dims: tuple[int, ...] = (32, 64, 128, 256, 512, 1024, 2048, 4096)
    few_dims: tuple[int, ...] = (32, 128, 512, 1024, 2048, 4096)
    projection_seeds: Mapping[str, int] = field(
        default_factory=lambda: {"fastfood": 4, "factored": 3, "countsketch": 3, "rademacher": 2}
    )
    few_clips: int = 2 * KINDS_TAKE_TURNS
    sampled_clips: int = 10 * KINDS_TAKE_TURNS
    samplings: tuple[str, ...] = tuple(SAMPLINGS)
    timed_clips: int = 4
    resamples: int = 1000

    def dims_of(self, kind: str) -> tuple[int, ...]:
        """The dimensions in which a kind of projection is tried."""
        return self.dims if kind in NESTED else self.few_dims

    def described(self) -> dict[str, Any]:
        return asdict(self)


# It shows that everything runs, and nothing else.
QUICK = Setting(
    clips=KINDS_TAKE_TURNS,
    queries=10,
    lengths=(9, 17),
    dim=512,
    timesteps=(250.0, 750.0),
    dims=(32, 512),
    few_dims=(32,),
    projection_seeds={"fastfood": 2, "factored": 1, "countsketch": 1, "rademacher": 1},
    averaged_clips=KINDS_TAKE_TURNS,
    few_clips=7,
    sampled_clips=10,
    samplings=(WHOLE, "every other frame, 32 × 32"),
    timed_clips=2,
    resamples=20,
)


class Study:
    """A corpus with its features under any objective, made or taken up in `work`.

    All arrays go over the clips and the queries that move: what is static has a masked gradient of zero,
    and zeros agree with each other whatever is measured.
    """

    def __init__(self, setting: Setting, work: Path) -> None:
        self.setting, self.work = setting, work
        plan = CorpusPlan(setting.seed, setting.clips, setting.queries, setting.lengths)
        self.corpus = Corpus(work / "corpus", plan)
        self.run = self.corpus.run

    @cached_property
    def paper(self) -> Objective:
        """The paper's objective, in many dimensions."""
        return replace(self.run.objective, dim=self.setting.dim)

    def features(self, role: Role, **changes: Any) -> Features:
        """Features of the moving clips or queries under the paper's objective, changed."""
        objective = replace(self.paper, **changes)
        self.run.gradients(objective)
        return only(self.run.features(role, objective), self.moving[role])

    @cached_property
    def moving(self) -> dict[Role, list[str]]:
        """Clip ids, in dataset order."""
        self.run.gradients(self.paper)
        found: dict[Role, list[str]] = {}
        roles: tuple[Role, ...] = ("clip", "query")
        for role in roles:
            features = self.run.features(role, self.paper)
            pairs = zip(features.members, features.static, strict=True)
            found[role] = [member.clip_id for member, static in pairs if not static]
        return found

    def labels(self, role: Role, name: str) -> np.ndarray:
        """A label of the zoo of everything that moves, as text."""
        every = self.corpus.labels(role, name)
        return np.array(every)[self.places(role)]

    def frames(self, role: Role) -> np.ndarray:
        """Pixel frames."""
        return self.labels(role, "frames").astype(int)

    def places(self, role: Role) -> np.ndarray:
        """Where in the corpus' own order what moves is."""
        ids = [m.clip_id for m in self.corpus.members[role]]
        return np.array([ids.index(clip_id) for clip_id in self.moving[role]])

    def statistic(self, name: str) -> np.ndarray:
        """A motion statistic of every moving clip."""
        every = self.corpus.statistics("clip")
        return every[self.places("clip"), STATISTICS.index(name)]

    def sampled(self, name: str) -> Run:
        """The run of the first clips and all queries in another sampling, up to encoding."""
        folders = {role: self.work / "corpus" / role for role in ("clips", "queries")}
        first = folders["clips"] / "first.csv"
        rows = (folders["clips"] / "metadata.csv").read_text(encoding="utf-8").splitlines(True)
        write_atomically(first, "".join(rows[: 1 + self.setting.sampled_clips]))
        folder = "".join(c if c.isalnum() else "-" for c in name.replace("×", "x"))
        run = Run.create(
            self.work / "samplings" / folder,
            clips=str(first),
            queries=str(folders["queries"] / "metadata.csv"),
            model=MODEL,
            seed=self.setting.seed,
            compute__threads=1,
            gradients__dim=self.setting.dim,
            **SAMPLINGS[name],
        )
        for stage in ("ingest", "track", "encode"):
            getattr(run, stage)()
        return run


def only(features: Features, clip_ids: list[str]) -> Features:
    """The features of these, in this order."""
    place = {member.clip_id: i for i, member in enumerate(features.members)}
    return features.take([place[clip_id] for clip_id in clip_ids])
