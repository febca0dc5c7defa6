"""The corpus of the study of artifacts, with its bad clips, and rendered queries that show what they show."""

import csv
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from motive import Run
from motive.runs.progress import Progress
from motive.zoo.artifacts import ARTIFACTS, HOSTS, plant_artifacts
from motive.zoo.motions import KINDS, OTHER_KINDS, PAPER_MOTIONS
from motive.zoo.render import render_corpus

FRAMES = 17
CORPUS_SEED, QUERY_SEED = 81, 82
CORPUS_KINDS = [*PAPER_MOTIONS, *OTHER_KINDS * 10]  # as they take turns: most clips teach no motion


@dataclass(frozen=True)
class Size:
    """How large the study is.

    planted: how many bad clips of each kind. queries: of each kind and origin, at most.
    own: videos of each kind that unwanted queries are looked for in. prompts: of each kind, whose videos
        are counted. calibration: good clips by motion, and how many bad ones of each kind, for the
        detectors' thresholds; there are as many for their errors.
    """

    clips: int
    planted: dict[str, int]
    queries: int
    own: int
    prompts: int
    steps: int
    lr: float
    batch: int
    seeds: tuple[int, ...]
    sampling_steps: int
    guidance: float
    calibration: tuple[tuple[str, ...], int]
    resamples: int


# Most of the bad clips flicker: what a model this small learns from three clips in 400 cannot be seen.
FULL_PLANTED = {"flicker": 11, "teleport": 3, "reversed_gravity": 3, "frozen_middle": 3}
_GOOD = (*KINDS, *HOSTS.values())
FULL = Size(400, FULL_PLANTED, 6, 16, 12, 800, 1e-3, 8, (0, 1, 2), 12, 4.0, (_GOOD * 2, 6), 1000)
QUICK = Size(
    30, dict.fromkeys(ARTIFACTS, 1), 1, 1, 1, 2, 1e-3, 2, (0,), 2, 4.0, (_GOOD[-4:], 1), 20
)


class Corpus:
    """The clips and the rendered queries in `work`, rendered when first asked for."""

    def __init__(self, work: Path, size: Size, progress: Progress) -> None:
        self.work, self.size, self.progress = work, size, progress

    def run(self, name: str, queries: Path, **more: Any) -> Run:
        """A run on the corpus, ingested, tracked, encoded and with features."""
        clips = self.work / "clips"
        if not self.planted_there(clips):
            shutil.rmtree(clips, ignore_errors=True)  # interrupted, so without its last metadata
            render_corpus(
                clips,
                self.size.clips,
                seed=CORPUS_SEED,
                kinds=CORPUS_KINDS,
                lengths=(FRAMES,),
                progress=self.progress,
            )
            plant_artifacts(clips, self.where(), seed=CORPUS_SEED, progress=self.progress)
        run = Run.create(
            self.work / name,
            clips=str(clips / "metadata.csv"),
            queries=str(queries),
            model="tiny-wan",
            sampling__frames=FRAMES,
            compute__threads=1,
            progress=self.progress,
            **more,
        )
        for stage in ("ingest", "track", "encode", "gradients"):
            getattr(run, stage)()
        return run

    def where(self) -> dict[int, str]:
        """Which clips are bad, all of them in the places of clips that show none of the ten motions."""
        count = self.size.clips
        others = [i for i in range(count) if CORPUS_KINDS[i % len(CORPUS_KINDS)] in OTHER_KINDS]
        kinds = [kind for kind, times in self.size.planted.items() for _ in range(times)]
        chosen = np.random.default_rng([CORPUS_SEED, 9]).choice(others, len(kinds), replace=False)
        return {int(i): kind for i, kind in zip(chosen, kinds, strict=True)}

    @staticmethod
    def planted_there(clips: Path) -> bool:
        table = clips / "metadata.csv"
        return table.is_file() and "artifact" in read_rows(table)[0]

    def planted(self) -> dict[str, tuple[str, str]]:
        """Artifact ("" for a good clip) and motion of every clip, by file name."""
        rows = read_rows(self.work / "clips" / "metadata.csv")
        return {row["file_name"]: (row["artifact"], row["motion"]) for row in rows}

    def rendered_queries(self) -> Path:
        """Rendered clips with each artifact, of scenes that are nowhere else."""
        folder, count = self.work / "queries", self.size.queries * len(ARTIFACTS)
        if not self.planted_there(folder):
            shutil.rmtree(folder, ignore_errors=True)
            render_corpus(
                folder,
                count,
                seed=QUERY_SEED,
                kinds=list(HOSTS.values()),
                lengths=(FRAMES,),
                progress=self.progress,
            )
            kinds = {i: ARTIFACTS[i % len(ARTIFACTS)] for i in range(count)}
            plant_artifacts(folder, kinds, seed=QUERY_SEED, progress=self.progress)
        return folder / "metadata.csv"


def read_rows(table: Path) -> list[dict[str, str]]:
    """The rows of a csv."""
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
