"""Everything a run keeps: its tables, who is done, who failed, and why."""

import time
from collections.abc import Iterator

import pyarrow as pa

from motive.runs import members as membership
from motive.runs.claims import Claim, Claims, Queue
from motive.runs.engine import Engine, StageReport, run_local
from motive.runs.progress import Progress
from motive.runs.provenance import StageLog
from motive.runs.remote import RunPath
from motive.runs.stage import Stage
from motive.runs.tables import Row, Table
from motive.runs.texts import Texts, is_among
from motive.runs.wanted import Wanted

FAILURE_SCHEMA = pa.schema([("stage", pa.string()), ("reason", pa.string())])
OBJECTIVE_SCHEMA = pa.schema([("objective", pa.string())])
_OBJECTIVES_MADE_BY = "motive"
_POLL_SECONDS = 1.0  # between two looks at what other processes have done


class Store:
    """The tables of the run in `path`, a folder that is there, and the log of its stages.

    engine: what puts rows through a stage.
    """

    def __init__(self, path: RunPath, engine: Engine = run_local) -> None:
        self.path, self.engine = path, engine
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

    def without(self, stage: Stage, keys: pa.Array) -> pa.Array:
        """Those of `keys` that have no result of this stage with its settings, in order."""
        return self.results(stage).without(keys, stage.fingerprint())

    def failed(self, stage: Stage) -> dict[str, str]:
        """The keys that failed in this stage with its settings, and why."""
        rows = self.failures.rows(stage.fingerprint())
        return {r["key"]: r["reason"] for r in rows if r["stage"] == stage.name}

    def work(self, stage: Stage, wanted: Wanted, progress: Progress) -> int:
        """Put what has neither result nor failure through the stage, in the order of the keys.

        Several processes may do so at once: each takes what no other has, waits for what the others have
        in the end, and takes over what they drop.

        Returns how many keys this process worked on.
        """
        with self.log.measure(stage.name) as measured:
            results, fingerprint = self.results(stage), stage.fingerprint()

            def settled() -> tuple[set[str], set[str]]:
                done, failed = (
                    table.follow(fingerprint).keys for table in (results, self.failures)
                )
                # Counted in the tables, so that the log is right whoever worked on them.
                measured.done, measured.failed = len(done), len(failed)
                return done, failed

            # A finished stage holds no key of its table.
            todo = Texts(results.without(wanted.keys.array, fingerprint))
            if failed := self.failures.keys(fingerprint):
                todo = Texts(todo.array.filter(pa.array(~is_among(todo.array, failed))))
            if not len(todo):
                measured.done, measured.failed = self._counts(results, fingerprint)
                return 0
            start, ran = time.monotonic(), [StageReport(0, 0, 0.0)]
            with Claims(self.path, stage.name, fingerprint) as claims:
                queue = Queue(claims, todo, settled)

                def rows(keys: list[str]) -> Iterator[Row]:
                    while keys:
                        yield from wanted.rows(keys)
                        keys = queue.take()

                def committed(new_done: int, new_failed: int) -> None:
                    queue.committed(new_done + new_failed)
                    settled()
                    measured.save()

                for keys, left in _turns(queue, stage.name, progress):
                    ran.append(
                        self.engine(
                            stage, rows(keys), left, results, self.failures, progress, committed
                        )
                    )
            done, lost = settled()
            # Of two processes that had a clip one may have failed: the clip is done.
            self.failures.drop(sorted(done & lost), fingerprint)
            settled()
        elsewhere = len(todo) - queue.taken
        progress.say(
            f"{stage.name}: {sum(r.done for r in ran)} done, {sum(r.failed for r in ran)} failed, "
            f"{len(wanted) - len(todo)} were there, "
            + (f"{elsewhere} done by other processes, " if elsewhere else "")
            + f"{time.monotonic() - start:.1f} s"
        )
        return queue.taken

    def _counts(self, results: Table, fingerprint: str) -> tuple[int, int]:
        """How many keys are done, and how many failed.

        Of two processes that had a clip one may have failed: the clip is done.
        """
        failed = self.failures.keys(fingerprint)
        done, both = 0, set()
        for batch in results.batches(fingerprint, ["key"]):
            done += batch.num_rows
            if failed:
                both |= failed.intersection(batch["key"].to_pylist())
        self.failures.drop(sorted(both), fingerprint)
        return done, len(failed - both)

    def save_objective(self, key: str, text: str) -> None:
        """Keep an objective's JSON, so that a later error can name what differs."""
        if key not in self.objectives.keys(_OBJECTIVES_MADE_BY):
            row = {"key": key, "made_by": _OBJECTIVES_MADE_BY, "objective": text}
            self.objectives.append([row])

    def other_objectives(self, key: str) -> list[str]:
        """The JSON of every objective but `key` that features were made for."""
        return [r["objective"] for r in self.objectives.rows() if r["key"] != key]


def _turns(queue: Queue, stage: str, progress: Progress) -> Iterator[tuple[list[str], int]]:
    """First keys and number of keys of each turn of work, until all is done here or elsewhere.

    Between two turns nothing is held back that another process could be waiting for.
    """
    said = 0
    while len(queue):
        left = len(queue)
        if keys := queue.take():
            yield keys, left
            said = 0
        elif len(queue):
            if len(queue) != said:
                said = len(queue)
                progress.say(f"{stage}: waiting for {said} that {_names(queue.others)} at work on")
            time.sleep(_POLL_SECONDS)


def _names(others: list[Claim]) -> str:
    numbers = ", ".join(str(claim.process.pid) for claim in others[:4])
    return f"process {numbers} is" if len(others) == 1 else f"processes {numbers} are"
