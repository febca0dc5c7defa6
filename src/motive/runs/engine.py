"""The local engine: a plain loop in this process, with decoding one step ahead."""

import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from motive.errors import UserError
from motive.runs.progress import Progress
from motive.runs.stage import Failure, Stage
from motive.runs.tables import Row, Table, Written

ENGINES = ("local", "ray")
AHEAD = 2  # clips that each thread prepares while one is computed
WAITING = 256  # rows that may wait for others to make a batch with
FLUSH_ROWS, FLUSH_SECONDS = 64, 5.0  # whatever comes first; what is not flushed is done again


@dataclass(frozen=True)
class StageReport:
    """What one run of a stage did."""

    done: int
    failed: int
    seconds: float


class Engine(Protocol):
    """Whatever puts rows through a stage, as `run_local` does."""

    def __call__(
        self,
        stage: Stage,
        rows: Iterable[Row],
        total: int,
        results: Table,
        failures: Table,
        progress: Progress,
        committed: Callable[[int, int], None] = ...,
    ) -> StageReport: ...


def make_engine(name: str, address: str | None = None) -> Engine:
    """The engine called `name`: `local`, or `ray` for workers on the cluster at `address`.

    Ray is asked for when there is work: a run that was made on a cluster can be read anywhere.
    """
    if name == "local":
        return run_local
    from motive.runs.ray_engine import run_ray

    return partial(run_ray, address=address)


def require_engine(name: str, address: str | None) -> None:
    """Check that there is such an engine, and that it can be reached.

    Raises UserError otherwise, and for an address that no engine asks for.
    """
    if name not in ENGINES:
        raise UserError(f"there is no engine '{name}': use --engine {' or '.join(ENGINES)}")
    if name == "ray":
        from motive.runs.ray_cluster import require_ray

        require_ray(address)
    elif address is not None:
        raise UserError("an address is a Ray cluster's: add --engine ray, or leave --address out")


def run_local(
    stage: Stage,
    rows: Iterable[Row],
    total: int,
    results: Table,
    failures: Table,
    progress: Progress,
    committed: Callable[[int, int], None] = lambda done, failed: None,
) -> StageReport:
    """Put every row through the stage; results and failures are committed every few seconds.

    committed: told after each commit how many results and how many failures were in it.

    An interruption at any moment loses what came after the last commit and nothing else.
    """
    start = time.monotonic()
    commits = Commits(stage, results, failures, committed, most=FLUSH_ROWS)
    if total:
        stage.open()
        try:
            with progress.stage(stage.name, total) as advance:
                for row, outcome in outcomes(stage, rows):
                    if isinstance(outcome, Failure):
                        commits.take(failures=[outcome])
                    else:
                        commits.take([outcome])
                    advance(str(row.get("file_name", row["key"])))
                    commits.flush_if_due()
        finally:
            # Also on Ctrl-C: what is done is worth keeping.
            try:
                commits.flush()
            finally:
                stage.close()
        commits.tidy(stage.notes, progress)
    return commits.report(start)


class Commits:
    """What a stage has made, committed every few seconds, by whichever engine.

    committed: told after each commit how many results and how many failures were in it.
    most: rows that wait at most; None leaves it to the seconds.
    """

    def __init__(
        self,
        stage: Stage,
        results: Table,
        failures: Table,
        committed: Callable[[int, int], None],
        *,
        most: int | None,
    ) -> None:
        self._stage, self._results, self._failures = stage, results, failures
        self._committed, self._most = committed, most
        self._rows: list[Row] = []
        self._failed: list[Failure] = []
        self._written: list[Written] = []
        self._flushed = time.monotonic()
        self.done = self.failed = 0

    def take(
        self,
        rows: Sequence[Row] = (),
        failures: Sequence[Failure] = (),
        written: Written | None = None,
    ) -> None:
        """What became of some rows. written: results that lie beside their table already."""
        self._rows += rows
        self._failed += failures
        self.done += len(rows)
        self.failed += len(failures)
        if written is not None:
            self._written.append(written)
            self.done += len(written.keys)

    def flush_if_due(self) -> None:
        """Commit if enough waits, or for long enough."""
        enough = self._most is not None and len(self._rows) + len(self._failed) >= self._most
        if enough or time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Commit what waits."""
        # Taken out before it is written: what an error or Ctrl-C stops is done again, never twice in the
        # table.
        rows, self._rows = self._rows, []
        failed, self._failed = self._failed, []
        written, self._written = self._written, []
        self._flushed = time.monotonic()
        self._results.append(rows)
        self._results.commit(written)
        self._failures.append([failure_row(self._stage, f.key, f.reason) for f in failed])
        done = len(rows) + sum(len(one.keys) for one in written)
        if done or failed:
            self._committed(done, len(failed))

    def tidy(self, notes: Iterable[str], progress: Progress) -> None:
        """At the stage's end: few fragments, and what a user should know."""
        self._results.tidy()
        self._failures.tidy()
        for note in notes:
            progress.say(f"{self._stage.name}: {note}")

    def report(self, start: float) -> StageReport:
        """What was done since `start`."""
        return StageReport(self.done, self.failed, time.monotonic() - start)


def failure_row(stage: Stage, key: str, reason: str) -> Row:
    """A failure as its table has it."""
    return {
        "key": key,
        "made_by": stage.fingerprint(),
        "stage": stage.name,
        "reason": reason,
    }


_Prepared = tuple[Row, Row | Exception]


def outcomes(stage: Stage, rows: Iterable[Row]) -> Iterator[tuple[Row, Row | Failure]]:
    """Each row with what an opened stage makes of it, as soon as it is made."""
    for batch in _batches(stage, _prepared_ahead(stage, rows)):
        for (row, _), outcome in zip(batch, stage.attempt_batch(batch), strict=True):
            yield row, outcome


def _batches(stage: Stage, rows: Iterable[_Prepared]) -> Iterator[list[_Prepared]]:
    """The rows in batches that the stage can take at once, each as soon as it is full.

    A stage without batches gets one row after the other, at once and in order.
    """
    waiting: dict[Hashable, list[_Prepared]] = {}
    for row, prepared in rows:
        if isinstance(prepared, Exception):
            yield [(row, prepared)]
            continue
        alike, most = stage.batch_of(prepared)
        batch = waiting.setdefault(alike, [])
        batch.append((row, prepared))
        if len(batch) >= most:
            yield waiting.pop(alike)
        elif sum(map(len, waiting.values())) >= WAITING:
            yield waiting.pop(next(iter(waiting)))
    yield from waiting.values()


def _prepared_ahead(stage: Stage, rows: Iterable[Row]) -> Iterator[tuple[Row, Row | Exception]]:
    """Rows with their prepared form, in order, the next few being prepared in a thread."""

    def prepare(row: Row) -> Row | Exception:
        try:
            return stage.prepare(row)
        except Exception as error:  # handed to `attempt`, which knows what is a clip's fault
            return error

    pool = ThreadPoolExecutor(max_workers=stage.prepares, thread_name_prefix="prepare")
    waiting: deque[tuple[Row, Future[Row | Exception]]] = deque()
    try:
        for row in rows:
            waiting.append((row, pool.submit(prepare, row)))
            if len(waiting) > AHEAD * stage.prepares:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
    finally:
        # After Ctrl-C only what was begun is waited for.
        pool.shutdown(cancel_futures=True)
