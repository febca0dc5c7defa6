"""The engine: every row once, in order, whatever breaks, and nothing committed is lost or doubled."""

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from motive.errors import ClipError, UserError
from motive.runs import engine
from motive.runs.engine import run_local
from motive.runs.progress import Progress
from motive.runs.stage import Stage
from motive.runs.tables import Row, Table

FAILURES = pa.schema([("stage", pa.string()), ("reason", pa.string())])


class Squaring(Stage):
    """Squares `number`; fails for multiples of 10, and at `stop` raises what it is given."""

    name, table, schema = "square", "squares", pa.schema([("square", pa.int64())])

    def __init__(self, stop: int = -1, error: BaseException | None = None) -> None:
        self.stop, self.error = stop, error
        self.log: list[str] = []
        self.prepared_by: set[str] = set()

    def fingerprint(self) -> str:
        return "squaring"

    def open(self) -> None:
        self.log.append("open")

    def close(self) -> None:
        self.log.append("close")

    def prepare(self, row: Row) -> Row:
        self.prepared_by.add(threading.current_thread().name)
        if row["number"] % 10 == 7:
            raise ClipError("sevens cannot be prepared")
        return {**row, "ready": True}

    def process(self, row: Row) -> Row:
        assert row["ready"]
        if row["number"] == self.stop and self.error is not None:
            raise self.error
        if row["number"] % 10 == 0:
            raise ClipError("tens cannot be squared")
        self.log.append(row["key"])
        return {"square": row["number"] ** 2}


def rows(numbers: range) -> list[Row]:
    return [{"key": f"{n:03d}", "number": n} for n in numbers]


class Kept:
    def __init__(self, folder: Path) -> None:
        self.results = Table(folder / "results.lance", Squaring.schema)
        self.failures = Table(folder / "failures.lance", FAILURES)

    def run(self, stage: Stage, wanted: list[Row]) -> engine.StageReport:
        quiet = Progress(quiet=True)
        return run_local(stage, wanted, len(wanted), self.results, self.failures, quiet)

    def squares(self) -> dict[str, int]:
        found = [(r["key"], r["square"]) for r in self.results.rows("squaring")]
        assert len(dict(found)) == len(found), "a key twice"
        return dict(found)

    def reasons(self) -> dict[str, str]:
        found = [(r["key"], r["reason"]) for r in self.failures.rows("squaring")]
        assert len(dict(found)) == len(found), "a key twice"
        return dict(found)


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path)


def expected(numbers: range) -> dict[str, int]:
    return {f"{n:03d}": n * n for n in numbers if n % 10 not in (0, 7)}


def test_results_and_failures_are_kept_in_order(kept: Kept) -> None:
    stage = Squaring()
    report = kept.run(stage, rows(range(40, 0, -1)))
    assert kept.squares() == expected(range(1, 41))
    assert list(kept.squares()) == sorted(kept.squares(), reverse=True)
    assert kept.reasons() == {
        **{f"{n:03d}": "tens cannot be squared" for n in (40, 30, 20, 10)},
        **{f"{n:03d}": "sevens cannot be prepared" for n in (37, 27, 17, 7)},
    }
    assert {r["stage"] for r in kept.failures.rows()} == {"square"}
    assert (report.done, report.failed) == (32, 8)
    assert (stage.log[0], stage.log[-1]) == ("open", "close")
    # Preparing runs ahead in one other thread.
    assert len(stage.prepared_by) == 1
    assert not stage.prepared_by & {threading.current_thread().name}


def test_nothing_to_do_loads_nothing(kept: Kept) -> None:
    stage = Squaring()
    report = kept.run(stage, [])
    assert (report.done, report.failed, stage.log) == (0, 0, [])
    assert not kept.results.exists()


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), UserError("the disk is full"), OSError("gone"), SystemExit(3)]
)
def test_an_interruption_keeps_what_was_done_and_a_rerun_does_the_rest(
    kept: Kept, error: BaseException
) -> None:
    stage = Squaring(stop=25, error=error)
    with pytest.raises(type(error)):
        kept.run(stage, rows(range(1, 41)))
    assert kept.squares() == expected(range(1, 25))
    assert kept.reasons().keys() == {"007", "010", "017", "020"}
    assert stage.log[-1] == "close"
    settled = kept.squares().keys() | kept.reasons().keys()
    rest = Squaring()
    kept.run(rest, [r for r in rows(range(1, 41)) if r["key"] not in settled])
    assert rest.log[1] == "025"
    assert kept.squares() == expected(range(1, 41))
    assert len(kept.reasons()) == 8


def test_rows_that_break_off_keep_what_was_done(kept: Kept) -> None:
    def breaking() -> Iterator[Row]:
        yield from rows(range(1, 20))
        raise UserError("the table cannot be read")

    with pytest.raises(UserError):
        run_local(Squaring(), breaking(), 40, kept.results, kept.failures, Progress(quiet=True))
    # What was only prepared is done again.
    assert kept.squares() == expected(range(1, 20 - engine.AHEAD))


def test_results_are_committed_on_the_way(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "FLUSH_ROWS", 5)
    seen: list[int] = []

    class Watching(Squaring):
        def process(self, row: Row) -> Row:
            seen.append(kept.results.count() + kept.failures.count())
            return super().process(row)

    kept.run(Watching(), rows(range(1, 7)))
    assert seen == [0, 0, 0, 0, 0, 5]


def test_every_commit_is_told_of_after_it_is_made(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "FLUSH_ROWS", 5)
    told: list[tuple[int, int]] = []

    def committed(done: int, failed: int) -> None:
        told.append((done, failed))
        sums = (sum(d for d, _ in told), sum(f for _, f in told))
        assert (kept.results.count(), kept.failures.count()) == sums

    stage = Squaring(stop=14, error=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        run_local(
            stage,
            rows(range(1, 41)),
            40,
            kept.results,
            kept.failures,
            Progress(quiet=True),
            committed,
        )
    assert told == [(5, 0), (3, 2), (3, 0)]


def test_time_commits_too(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "FLUSH_SECONDS", -1.0)
    seen: list[int] = []

    class Watching(Squaring):
        def process(self, row: Row) -> Row:
            seen.append(kept.results.count())
            return super().process(row)

    kept.run(Watching(), rows(range(1, 5)))
    assert seen == [0, 1, 2, 3]


def test_a_failing_commit_doubles_nothing(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results are written, then the failures cannot be: a rerun must not find anything twice."""
    monkeypatch.setattr(engine, "FLUSH_ROWS", 12)
    append, tries = kept.failures.append, itertools.chain([True], itertools.repeat(False))

    def full_once(new: list[Row]) -> None:
        if next(tries):
            raise UserError("the disk is full")
        append(new)

    monkeypatch.setattr(kept.failures, "append", full_once)
    stage = Squaring()
    with pytest.raises(UserError, match="the disk is full"):
        kept.run(stage, rows(range(1, 41)))
    assert stage.log[-1] == "close"
    assert kept.squares() == expected(range(1, 13))
    assert kept.reasons() == {}
    settled = kept.squares().keys() | kept.reasons().keys()
    kept.run(Squaring(), [r for r in rows(range(1, 41)) if r["key"] not in settled])
    assert kept.squares() == expected(range(1, 41))
    assert len(kept.reasons()) == 8


def test_a_stage_is_closed_when_nothing_can_be_written(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: list[Row]) -> None:
        raise UserError("the disk is full")

    monkeypatch.setattr(kept.results, "append", full)
    stage = Squaring()
    with pytest.raises(UserError, match="the disk is full"):
        kept.run(stage, rows(range(1, 5)))
    assert stage.log[-1] == "close"


def test_few_rows_are_prepared_ahead(kept: Kept) -> None:
    taken, behind = [0], []

    def counting() -> Iterator[Row]:
        for row in rows(range(1, 30)):
            taken[0] += 1
            yield row

    class Watching(Squaring):
        def process(self, row: Row) -> Row:
            behind.append(taken[0] - row["number"])
            return super().process(row)

    run_local(Watching(), counting(), 29, kept.results, kept.failures, Progress(quiet=True))
    assert max(behind) == engine.AHEAD


class InBatches(Squaring):
    """Squares up to three even or three odd numbers at a time; ones alone."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[list[int]] = []

    def batch_of(self, row: Row) -> tuple[int, int]:
        return (row["number"] % 2, 3) if row["number"] > 1 else (-1, 1)

    def process_batch(self, rows: list[Row]) -> list[Row | Exception]:
        self.batches.append([row["number"] for row in rows])
        return [
            ClipError("tens cannot be squared")
            if row["number"] % 10 == 0
            else {"square": row["number"] ** 2}
            for row in rows
        ]


def test_rows_go_through_in_batches_of_their_kind(kept: Kept) -> None:
    stage = InBatches()
    report = kept.run(stage, rows(range(1, 13)))
    assert stage.batches == [[2, 4, 6], [3, 5, 9], [8, 10, 12]]
    assert stage.log == ["open", "001", "011", "close"]  # what is alone goes alone
    assert kept.squares() == expected(range(1, 13))
    assert kept.reasons() == {
        "007": "sevens cannot be prepared",
        "010": "tens cannot be squared",
    }
    assert (report.done, report.failed) == (10, 2)


def test_not_too_many_rows_wait_for_their_kind(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "WAITING", 2)
    stage = InBatches()
    kept.run(stage, rows(range(2, 7)))
    # As soon as two wait, the first kind goes as it is.
    assert stage.log == ["open", "002", "003", "004", "005", "006", "close"]
    assert kept.squares() == expected(range(2, 7))


def test_an_interrupted_batch_is_done_again(kept: Kept) -> None:
    class Interrupted(InBatches):
        def process_batch(self, rows: list[Row]) -> list[Row | Exception]:
            if rows[0]["number"] == 3:
                raise KeyboardInterrupt
            return super().process_batch(rows)

    with pytest.raises(KeyboardInterrupt):
        kept.run(Interrupted(), rows(range(1, 13)))
    assert kept.squares().keys() == {"001", "002", "004", "006"}


def test_what_a_stage_notes_is_said(kept: Kept, capsys: pytest.CaptureFixture[str]) -> None:
    stage = Squaring()
    stage.notes = ["slowly"]
    run_local(stage, rows(range(1, 3)), 2, kept.results, kept.failures, Progress())
    said = capsys.readouterr()
    assert "square: slowly" in said.out + said.err
