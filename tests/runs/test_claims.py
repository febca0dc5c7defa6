"""Several writers: each key is claimed once, the dead are succeeded, and no row is there twice."""

import json
import multiprocessing
import os
import pickle
import subprocess
import sys
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from motive.runs import claims as claims_module
from motive.runs import store as store_module
from motive.runs import tables
from motive.runs.claims import Claim, Claims, Queue, read_claims
from motive.runs.locks import locked
from motive.runs.processes import ProcessName, is_gone, is_leftover, part_name, this_process
from motive.runs.progress import Progress
from motive.runs.stage import Stage
from motive.runs.store import Store
from motive.runs.tables import Row, Table
from motive.runs.wanted import Wanted

SPAWN = multiprocessing.get_context("spawn")
SCHEMA = pa.schema([("square", pa.int64())])


class Squaring(Stage):
    name, table, schema = "square", "squares", SCHEMA

    def fingerprint(self) -> str:
        return "squaring"

    def process(self, row: Row) -> Row:
        return {"square": row["number"] ** 2}


def wanted(count: int) -> dict[str, Row]:
    return {f"{n:04d}": {"key": f"{n:04d}", "number": n} for n in range(count)}


def claims_of(run: Path) -> Claims:
    return Claims(run, "square", "squaring")


def take(claims: Claims, keys: set[str]) -> tuple[frozenset[str], list[Claim]]:
    """Claim the keys that no other has. Returns them with the others' claims."""
    seen: list[Claim] = []

    def choose(others: list[Claim]) -> set[str]:
        seen.extend(others)
        return keys.difference(*(claim.keys for claim in others))

    return claims.take(choose), seen


def test_a_key_is_claimed_by_one(tmp_path: Path) -> None:
    with claims_of(tmp_path) as one, claims_of(tmp_path) as other:
        assert take(one, {"a", "b"})[0] == {"a", "b"}
        mine, others = take(other, {"b", "c"})
        assert mine == {"c"}
        assert [claim.keys for claim in others] == [{"a", "b"}]
        assert others[0].process == this_process()
    with claims_of(tmp_path) as third:  # the claims ended with their blocks
        assert take(third, {"a", "b", "c"}) == ({"a", "b", "c"}, [])
    assert list(tmp_path.glob("claims/*/*")) == []


def test_claims_of_another_stage_are_not_in_the_way(tmp_path: Path) -> None:
    with claims_of(tmp_path) as one, Claims(tmp_path, "square", "other settings") as other:
        take(one, {"a"})
        assert take(other, {"a"}) == ({"a"}, [])


def dead_process() -> ProcessName:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return ProcessName(this_process().host, ended.pid, "1")


@pytest.mark.parametrize(
    ("process", "silent", "lives"),
    [
        ("dead", 0.0, False),
        ("its number is another's now", 0.0, False),
        ("on another machine", 0.0, True),
        ("on another machine", claims_module.LOST_SECONDS + 5, False),
        ("hangs", claims_module.LOST_SECONDS + 5, False),
        ("lives", 0.0, True),
    ],
)
def test_only_the_dead_are_succeeded(
    tmp_path: Path, process: str, silent: float, lives: bool
) -> None:
    me = this_process()
    name = {
        "dead": dead_process(),
        "its number is another's now": ProcessName(me.host, me.pid, "1"),
        "on another machine": ProcessName("elsewhere", 1, "1"),
        "hangs": me,
        "lives": me,
    }[process]
    with claims_of(tmp_path) as one, claims_of(tmp_path) as other:
        take(one, {"a"})
        (claim,) = read_claims(next(tmp_path.glob("claims/square-*")))
        claim.file.write_text(json.dumps({**name.as_dict(), "keys": ["a"]}))
        then = claim.beat - silent
        os.utime(claim.file, (then, then))
        assert take(other, {"a", "b"})[0] == ({"b"} if lives else {"a", "b"})
        assert claim.file.exists() == lives


def test_a_claim_that_was_broken_off_is_none(tmp_path: Path) -> None:
    with claims_of(tmp_path) as one, claims_of(tmp_path) as other:
        take(one, {"a"})
        (claim,) = read_claims(next(tmp_path.glob("claims/square-*")))
        claim.file.write_text(claim.file.read_text()[:20])
        assert take(other, {"a"}) == ({"a"}, [])
        assert not claim.file.exists()


def test_a_claim_is_kept_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims_module, "BEAT_SECONDS", 0.01)
    with claims_of(tmp_path) as claims:
        take(claims, {"a"})
        (claim,) = read_claims(next(tmp_path.glob("claims/square-*")))
        os.utime(claim.file, (1, 1))
        while claim.file.stat().st_mtime == 1:
            pass  # ends, or the test does not
    assert not claim.file.exists()


def test_a_process_is_told_from_one_that_gets_its_number() -> None:
    me = this_process()
    assert is_gone(me) is False
    assert is_gone(ProcessName(me.host, me.pid, "1")) is True
    assert is_gone(dead_process()) is True
    assert is_gone(ProcessName("elsewhere", me.pid, me.started)) is None


def test_another_machines_half_written_file_is_left_alone() -> None:
    mine = part_name("scores.parquet")
    assert is_leftover(mine)  # of a process that had this one's number
    host = this_process().host
    assert not is_leftover(mine.replace(host, "0" * 12))
    assert is_leftover(mine.replace(str(os.getpid()), str(dead_process().pid)))
    assert not is_leftover(".a film.part")


def test_a_queue_hands_out_what_is_left_in_order(tmp_path: Path) -> None:
    done: set[str] = {"0001"}
    with claims_of(tmp_path) as claims, claims_of(tmp_path) as other:
        take(other, {"0003"})
        queue = Queue(claims, sorted(wanted(20)), lambda: (done, set()))
        first = queue.take()
        assert first[0] == "0000"
        assert not {"0001", "0003"} & set(first)
        assert first == sorted(first)
        rest = []
        while keys := queue.take():
            rest += keys
        assert sorted({*first, *rest}) == sorted(wanted(20).keys() - {"0001", "0003"})
        assert len(queue) == 1  # what the other has
        done.add("0003")
        assert queue.take() == []
        assert len(queue) == 0
        assert queue.taken == 18


def work(run: str, count: int, barrier: object) -> None:
    barrier.wait()  # type: ignore[attr-defined]
    store = Store(Path(run))
    store.work(Squaring(), Wanted.of(wanted(count)), Progress(quiet=True))


def test_processes_share_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "_POLL_SECONDS", 0.05)
    barrier = SPAWN.Barrier(3)
    processes = [SPAWN.Process(target=work, args=(str(tmp_path), 300, barrier)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    store = Store(tmp_path)
    rows = list(store.results(Squaring()).rows())
    assert Counter(row["key"] for row in rows) == dict.fromkeys(wanted(300), 1)
    assert all(row["square"] == int(row["key"]) ** 2 for row in rows)
    log = store.log.read()["square"]
    assert (log["done"], log["failed"]) == (300, 0)
    assert list(tmp_path.glob("claims/*/*")) == []


def append(table: str, barrier: object) -> None:
    mine = Table(Path(table), SCHEMA)
    mine.follow("me")  # what it knows is old by the time that it writes
    for block in range(10):
        barrier.wait()  # type: ignore[attr-defined]
        rows = [{"key": f"{block}-{n}", "made_by": "me", "square": os.getpid()} for n in range(20)]
        mine.append(rows)


def test_rows_that_two_think_are_theirs_are_there_once(tmp_path: Path) -> None:
    path, barrier = tmp_path / "a.lance", SPAWN.Barrier(2)
    processes = [SPAWN.Process(target=append, args=(str(path), barrier)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    rows = list(Table(path, SCHEMA).rows())
    assert Counter(row["key"] for row in rows) == {
        f"{block}-{n}": 1 for block in range(10) for n in range(20)
    }
    # All of a commit or nothing: a block has one writer.
    writers = {(row["key"].partition("-")[0], row["square"]) for row in rows}
    assert len(writers) == 10


def test_a_row_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    one, other = (Table(tmp_path / "a.lance", SCHEMA) for _ in range(2))
    assert one.append([{"key": "a", "made_by": "me", "square": 1}]) == 1
    new = [
        {"key": k, "made_by": m, "square": 2} for k, m in (("a", "me"), ("b", "me"), ("a", "you"))
    ]
    assert other.append(new) == 2
    assert other.append(new) == 0
    found = [(r["key"], r["made_by"], r["square"]) for r in one.rows()]
    assert found == [("a", "me", 1), ("b", "me", 2), ("a", "you", 2)]
    one.drop(["a"], "me")
    assert other.append(new) == 1
    assert one.follow("me").keys == {"a", "b"}


def hold(lock: str, held: object) -> None:
    with locked(Path(lock)):
        held.set()  # type: ignore[attr-defined]
        held.wait(3600)  # type: ignore[attr-defined]
        while True:
            pass


def test_a_killed_process_lets_go_of_its_lock(tmp_path: Path) -> None:
    held = SPAWN.Event()
    process = SPAWN.Process(target=hold, args=(str(tmp_path / "a.lock"), held))
    process.start()
    assert held.wait(60)
    process.kill()
    with locked(tmp_path / "a.lock"):
        pass
    process.join()


def test_merging_on_the_way_writes_each_row_only_a_few_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "_MANY_FRAGMENTS", 4)
    monkeypatch.setattr(tables, "_LOOK_EVERY", 2)
    monkeypatch.setattr(tables, "_MERGED_ROWS", (8, 64))
    table = Table(tmp_path / "a.lance", SCHEMA)
    count = 200
    for n in range(count):
        table.append([{"key": f"{n:04d}", "made_by": "me", "square": n}])
    fragments = table.open().get_fragments()
    assert len(fragments) < 4 * 4
    assert [row["square"] for row in table.rows()] == list(range(count))
    # All that was ever written lies there still: it is kept for a day.
    import lance

    written = 0
    for file in (table.path / "data").glob("*.lance"):  # type: ignore[union-attr, operator]
        written += lance.file.LanceFileReader(str(file)).metadata().num_rows
    assert written <= 4 * count


def test_old_versions_are_removed_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_MANY_FRAGMENTS", 4)
    table = Table(tmp_path / "a.lance", SCHEMA)
    for n in range(10):
        table.append([{"key": f"{n:04d}", "made_by": "me", "square": n}])
    reading = table.open()
    table.tidy()
    assert reading.count_rows() == 10  # whoever reads may go on for a day
    assert len(reading.to_table()) == 10
    assert len(table.open().versions()) > 10
    monkeypatch.setattr(tables, "KEPT_VERSIONS", timedelta(0))
    table.tidy()
    assert len(table.open().versions()) == 1
    assert len(list((tmp_path / "a.lance" / "data").iterdir())) == 1
    assert [row["square"] for row in table.rows()] == list(range(10))


def test_a_table_goes_to_another_process_without_what_it_knows(tmp_path: Path) -> None:
    table = Table(tmp_path / "a.lance", SCHEMA)
    table.append([{"key": "a", "made_by": "me", "square": 1}])
    copy = pickle.loads(pickle.dumps(table))
    assert (copy.path, copy.schema) == (table.path, table.schema)
    assert copy.append([{"key": k, "made_by": "me", "square": 2} for k in "ab"]) == 1
