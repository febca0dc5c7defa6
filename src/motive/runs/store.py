"""Everything a run keeps: its tables, who is done, who failed, and why."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa

from motive.runs import members as membership
from motive.runs.engine import run_local
from motive.runs.progress import Progress
from motive.runs.provenance import StageLog
from motive.runs.stage import Stage
from motive.runs.tables import Row, Table

FAILURE_SCHEMA = pa.schema([("stage", pa.string()), ("reason", pa.string())])
OBJECTIVE_SCHEMA = pa.schema([("objective", pa.string())])
_OBJECTIVES_MADE_BY = "motive"


class Store:
    """The tables of the run in `path`, and the log of its stages."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.log = StageLog(path / "stages.json")
        self.members = self.table("members", membership.SCHEMA)
        self.failures = self.table("failures", FAILURE_SCHEMA)
        self.objectives = self.table("objectives", OBJECTIVE_SCHEMA)

    def table(self, name: str, schema: pa.Schema) -> Table:
        return Table(self.path / "tables" / f"{name}.lance", schema)

    def results(self, stage: Stage) -> Table:
        """The table that a stage fills."""
        return self.table(stage.table, stage.schema)

    def done(self, stage: Stage) -> set[str]:
        """The keys that have a result of this stage with its settings."""
        return self.results(stage).keys(stage.fingerprint())

    def failed(self, stage: Stage) -> dict[str, str]:
        """The keys that failed in this stage with its settings, and why."""
        rows = self.failures.rows(stage.fingerprint())
        return {r["key"]: r["reason"] for r in rows if r["stage"] == stage.name}

    def work(
        self,
        stage: Stage,
        wanted: dict[str, Any],
        progress: Progress,
        load: Callable[[list[Any]], Iterable[Row]] = iter,
    ) -> list[str]:
        """Put what has neither result nor failure through the stage, in the order of the keys.

        wanted: what the stage is asked for, by key.
        load: turns the wanted things, in order, into the stage's rows.

        Returns the keys that were worked on.
        """
        with self.log.measure(stage.name) as measured:
            done, failed = self.done(stage), self.failed(stage)
            # Counted in the tables, so that the log is right whatever happened to it before.
            counts = [len(done), len(failed)]

            def committed(new_done: int, new_failed: int) -> None:
                counts[0] += new_done
                counts[1] += new_failed
                measured.done, measured.failed = counts
                measured.save()

            measured.done, measured.failed = counts
            todo = [key for key in sorted(wanted) if key not in done and key not in failed]
            rows = load([wanted[key] for key in todo])
            ran = run_local(
                stage, rows, len(todo), self.results(stage), self.failures, progress, committed
            )
        if todo:
            progress.say(
                f"{stage.name}: {ran.done} done, {ran.failed} failed, "
                f"{len(wanted) - len(todo)} were there, {ran.seconds:.1f} s"
            )
        return todo

    def save_objective(self, key: str, text: str) -> None:
        """Keep an objective's JSON, so that a later error can name what differs."""
        if key not in self.objectives.keys(_OBJECTIVES_MADE_BY):
            row = {"key": key, "made_by": _OBJECTIVES_MADE_BY, "objective": text}
            self.objectives.append([row])

    def other_objectives(self, key: str) -> list[str]:
        """The JSON of every objective but `key` that features were made for."""
        return [r["objective"] for r in self.objectives.rows() if r["key"] != key]
