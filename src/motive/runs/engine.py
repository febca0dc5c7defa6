"""The local engine: a plain loop in this process, with decoding one step ahead."""

import time
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from motive.errors import UserError
from motive.runs.progress import Progress
from motive.runs.stage import Failure, Stage
from motive.runs.tables import Row, Table

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
    done: list[Row] = []
    failed: list[Row] = []
    counts = {"done": 0, "failed": 0}

    def flush() -> None:
        # Taken out before they are written: what an error or Ctrl-C stops is done again, never twice
        # in the table.
        now_done, now_failed = done[:], failed[:]
        done.clear()
        failed.clear()
        results.append(now_done)
        failures.append(now_failed)
        if now_done or now_failed:
            committed(len(now_done), len(now_failed))

    flushed = time.monotonic()
    if total:
        stage.open()
        try:
            with progress.stage(stage.name, total) as advance:
                for batch in _batches(stage, _prepared_ahead(stage, rows)):
                    outcomes = stage.attempt_batch(batch)
                    for (row, _), outcome in zip(batch, outcomes, strict=True):
                        if isinstance(outcome, Failure):
                            failed.append(failure_row(stage, row["key"], outcome.reason))
                            counts["failed"] += 1
                        else:
                            done.append(outcome)
                            counts["done"] += 1
                        advance(str(row.get("file_name", row["key"])))
                    now = time.monotonic()
                    if len(done) + len(failed) >= FLUSH_ROWS or now - flushed > FLUSH_SECONDS:
                        flush()
                        flushed = now
        finally:
            # Also on Ctrl-C: what is done is worth keeping.
            try:
                flush()
            finally:
                stage.close()
        results.tidy()
        failures.tidy()
        for note in stage.notes:
            progress.say(f"{stage.name}: {note}")
    return StageReport(counts["done"], counts["failed"], time.monotonic() - start)


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
