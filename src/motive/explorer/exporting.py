"""The final choice written as a trainer's dataset, into `RUN/exports`, while the page waits or goes on."""

import itertools
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from motive.clips.formats import EXPORT_FORMATS, ExportClip, ExportReport, write_dataset
from motive.clips.formats.export import sanitised_stem
from motive.errors import UserError
from motive.explorer.clip_files import ClipFiles
from motive.explorer.table import ClipTable

if TYPE_CHECKING:
    from motive.pipeline import Run

FOLDER = "exports"


def formats() -> list[str]:
    """What can be written."""
    return list(EXPORT_FORMATS)


def export_chosen(
    format: str, table: ClipTable, chosen: np.ndarray, files: ClipFiles, out: Path, link: bool
) -> ExportReport:
    """The chosen clips, best first, as a dataset of `format` in `out`, with their ranks and scores.

    Raises UserError as `motive.clips.formats.write_dataset` does.
    """
    positions = np.flatnonzero(chosen)
    ids = table.clip_ids.take(pa.array(positions))
    paths = files.clip_column("path", ids).to_pylist()
    clips = []
    for position, path in zip(positions.tolist(), paths, strict=True):
        row = table.row(position)
        scores = {"motive_score": float(row["mean_score"]), "motive_votes": float(row["votes"])}
        clips.append(
            ExportClip(
                Path(path), str(row["file_name"]), str(row["caption"]), int(row["rank"]), scores
            )
        )
    return write_dataset(format, clips, out, link=link)


@dataclass
class Job:
    """An export under way. state: running, done or failed."""

    number: int
    out: Path
    started: float = field(default_factory=time.monotonic)
    state: str = "running"
    message: str = ""

    def as_json(self) -> dict[str, Any]:
        return {
            "job": self.number,
            "state": self.state,
            "message": self.message,
            "folder": str(self.out),
            "seconds": round(time.monotonic() - self.started, 1),
        }


class Exports:
    """Exports of one run, one after another. A page names a folder, never a path."""

    def __init__(self, run: "Run") -> None:
        self._folder = run.path.resolve() / FOLDER
        self._jobs: dict[int, Job] = {}
        self._numbers = itertools.count(1)
        self._turn = threading.Lock()

    def start(self, name: str, write: Callable[[Path], ExportReport]) -> Job:
        """Begin an export into the folder of that name below `RUN/exports`.

        Raises UserError when the name is empty or taken.
        """
        stem = sanitised_stem(f"{name.strip()}.x") if name.strip() else ""
        if not stem:
            raise UserError("the export has no name: give it one")
        out = self._folder / stem
        if out.exists() or any(j.out == out and j.state == "running" for j in self._jobs.values()):
            raise UserError(f"there is an export {stem!r} already: give this one another name")
        job = Job(next(self._numbers), out)
        self._jobs[job.number] = job
        threading.Thread(target=self._work, args=(job, write), daemon=True).start()
        return job

    def job(self, number: int) -> Job:
        """Raises KeyError when there is none of that number."""
        return self._jobs[number]

    def _work(self, job: Job, write: Callable[[Path], ExportReport]) -> None:
        try:
            with self._turn:
                job.message = write(job.out).summary()
            job.state = "done"
        except UserError as error:
            job.message, job.state = str(error), "failed"
        except Exception as error:
            job.message, job.state = f"the export failed: {error}", "failed"
