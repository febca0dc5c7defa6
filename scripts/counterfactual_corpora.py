"""A corpus of the counterfactual studies: rendered clips and queries, tracked, encoded, with their masks."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from motive import Run
from motive.backbones.encode import tensors_of
from motive.finetuning.loop import TrainingClip
from motive.motion.masks import motion_mask, pool_frames
from motive.motion.track import STATISTICS, maps_of
from motive.rows import gradient_rows
from motive.runs.members import Member, Role
from motive.zoo.motions import KINDS, PAPER_MOTIONS
from motive.zoo.render import render_corpus

MODEL = "tiny-wan"
QUERY_SEEDS = 10_000  # corpora of queries and of clips never share a seed


@dataclass(frozen=True)
class CorpusPlan:
    """What is rendered: `clips` of all kinds, `queries` of the paper's ten motions, one caption for all."""

    seed: int
    clips: int
    queries: int
    lengths: tuple[int, ...]


class Corpus:
    """A run in `folder` with everything before the gradients; made or taken up where it was.

    Queries that show no motion are left out: they have no masked loss.
    """

    def __init__(self, folder: Path, plan: CorpusPlan) -> None:
        self.plan = plan
        metadata = {
            "clips": self._render(folder / "clips", plan.clips, plan.seed, KINDS),
            "queries": self._render(
                folder / "queries", plan.queries, plan.seed + QUERY_SEEDS, PAPER_MOTIONS
            ),
        }
        self.run = Run.create(
            folder / "run",
            clips=str(metadata["clips"]),
            queries=str(metadata["queries"]),
            model=MODEL,
            seed=plan.seed,
            compute__threads=1,
        )
        for stage in ("ingest", "track", "encode"):
            getattr(self.run, stage)()

    def _render(self, folder: Path, count: int, seed: int, kinds: Sequence[str]) -> Path:
        metadata = folder / "metadata.csv"
        if not metadata.is_file():
            shutil.rmtree(folder, ignore_errors=True)  # interrupted, so without its metadata
            render_corpus(
                folder, count, seed=seed, kinds=kinds, same_caption=True, lengths=self.plan.lengths
            )
        return metadata

    @cached_property
    def members(self) -> dict[Role, list[Member]]:
        """Clips and moving queries, in dataset order."""
        queries = list(self.run.usable("query").values())
        moving = self._masks(queries)
        return {
            "clip": list(self.run.usable("clip").values()),
            "query": [m for m, mask in zip(queries, moving, strict=True) if mask.any()],
        }

    @cached_property
    def clips(self) -> list[TrainingClip]:
        return self._encoded("clip")

    @cached_property
    def queries(self) -> list[TrainingClip]:
        return self._encoded("query")

    def masks(self, role: Role) -> list[torch.Tensor]:
        """W̃ of the paper's mask, `(F, h, w)`, of each."""
        return self._masks_of[role]

    @cached_property
    def _masks_of(self) -> dict[Role, list[torch.Tensor]]:
        return {
            role: [torch.from_numpy(mask) for mask in self._masks(members)]
            for role, members in self.members.items()
        }

    def labels(self, role: Role, name: str) -> list[str]:
        """A label of the zoo, such as `motion`, `frames` or `background_color`."""
        return [str(json.loads(m.extra)[name]) for m in self.members[role]]

    def statistics(self, role: Role) -> np.ndarray:
        """The motion statistics of each, `(N, len(STATISTICS))`."""
        rows = self.run.motion(columns=["key", *STATISTICS])
        return np.array([[rows[m.clip_id][s] for s in STATISTICS] for m in self.members[role]])

    def pixels(self, role: Role) -> list[np.ndarray]:
        """The frames `(F, H, W, 3)` uint8, as the model's encoder got them."""
        from motive.clips.ingest import decode_unchanged

        return [
            decode_unchanged(m.file, Path(m.path), self.run.sampler).frames_fhw3
            for m in self.members[role]
        ]

    def _encoded(self, role: Role) -> list[TrainingClip]:
        members = self.members[role]
        found = []
        for member, row in zip(members, self._rows(members), strict=True):
            tensors = {**tensors_of(row["video"]), **tensors_of(row["text"])}
            latents = tensors.pop("latents")
            found.append(TrainingClip(member.clip_id, latents, tensors))
        return found

    def _masks(self, members: list[Member]) -> list[np.ndarray]:
        backbone, objective = self.run.plan.backbone, self.run.objective
        return [
            pool_frames(
                motion_mask(maps_of(row["motion"]), "paper", static_below=objective.static_below),
                backbone.frame_map(row["frames"]),
            )
            for row in self._rows(members)
        ]

    def _rows(self, members: list[Member]) -> list[dict]:
        return list(gradient_rows(members, self.run.plan, self.run.store))
