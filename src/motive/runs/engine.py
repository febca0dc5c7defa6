"""The local engine: a plain loop in this process, with decoding one step ahead."""

import time
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from motive.runs.progress import Progress
from motive.runs.stage import Failure, Stage
from motive.runs.tables import Row, Table

AHEAD = 2  # clips that are prepared while one is computed
WAITING = 256  # rows that may wait for others to make a batch with
FLUSH_ROWS, FLUSH_SECONDS = 64, 5.0  # whatever comes first; what is not flushed is done again


@dataclass(frozen=True)
class StageReport:
    """What one run of a stage did."""

    done: int
    failed: int
    seconds: float


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
                            failed.append(_failure_row(stage, row, outcome.reason))
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


def _failure_row(stage: Stage, row: Row, reason: str) -> Row:
    return {
        "key": row["key"],
        "made_by": stage.fingerprint(),
        "stage": stage.name,
        "reason": reason,
    }


_Prepared = tuple[Row, Row | Exception]


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

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="prepare") as pool:
        waiting: list[tuple[Row, Future[Row | Exception]]] = []
        for row in rows:
            waiting.append((row, pool.submit(prepare, row)))
            if len(waiting) > AHEAD:
                first, future = waiting.pop(0)
                yield first, future.result()
        for first, future in waiting:
            yield first, future.result()
