"""The Ray engine on a real cluster: the same rows as the local engine, whatever happens to workers."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from motive.errors import ClipError, UserError
from motive.runs import ray_engine
from motive.runs.engine import StageReport, make_engine, require_engine, run_local
from motive.runs.progress import Progress
from motive.runs.ray_cluster import Share, Surroundings, shares, software
from motive.runs.ray_engine import run_ray
from motive.runs.stage import Resources, Stage
from motive.runs.tables import Row, Table

FAILURES = pa.schema([("stage", pa.string()), ("reason", pa.string())])
WIDE = 2**19  # float32 numbers: three rows of them are a fragment that a worker writes


class Repeating(Stage):
    """Gives `number` so many times; fails for multiples of 10.

    log: file that says which process did which number, so that tests see what happened elsewhere.
    wide: length of a result. slow: seconds for each row of the process that opened first.
    deadly: the number at which a process kills itself, so many times as `deaths`.
    """

    name, table, schema = "repeat", "repeated", pa.schema([("values", pa.list_(pa.float32()))])

    def __init__(
        self,
        log: Path,
        wide: int = 2,
        slow: float = 0.0,
        deadly: int = -1,
        deaths: int = 0,
        error: Exception | None = None,
    ) -> None:
        self.log, self.wide, self.slow = log, wide, slow
        self.deadly, self.deaths, self.error = deadly, deaths, error
        self.opened = 0

    def fingerprint(self) -> str:
        return "repeating"

    def open(self) -> None:
        self.opened += 1
        self.say("open", self.opened)

    def close(self) -> None:
        self.say("close", 0)

    def prepare(self, row: Row) -> Row:
        return {**row, "ready": True}

    def process(self, row: Row) -> Row:
        assert row["ready"]
        number = row["number"]
        if self.slow and self.said("open")[0][0] == os.getpid():
            self.wait_for_another()
            time.sleep(self.slow)
        if number == self.deadly:
            self.say("die", number)
            if len(self.said("die")) <= self.deaths:
                os.kill(os.getpid(), signal.SIGKILL)
            if self.error is not None:
                raise self.error
        if number % 10 == 0:
            raise ClipError("tens cannot be repeated")
        self.say("did", number)
        return {"values": np.full(self.wide, number, np.float32)}

    def wait_for_another(self) -> None:
        """Until a second process has opened the stage, however busy the machine is."""
        for _ in range(1200):
            if len(self.said("open")) > 1:
                return
            time.sleep(0.05)

    def say(self, what: str, number: int) -> None:
        with self.log.open("a") as file:
            file.write(f"{what} {os.getpid()} {number}\n")

    def said(self, what: str) -> list[tuple[int, int]]:
        """Process and number of every such line."""
        words = [line.split() for line in self.log.read_text().splitlines()]
        return [(int(w[1]), int(w[2])) for w in words if len(w) == 3 and w[0] == what]


class Kept:
    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.results = Table(folder / "tables" / "results.lance", Repeating.schema)
        self.failures = Table(folder / "tables" / "failures.lance", FAILURES)

    def run(self, stage: Stage, numbers: range, address: str | None) -> StageReport:
        rows: list[Row] = [{"key": f"{n:03d}", "number": n} for n in numbers]
        engine: Any = run_local if address is None else make_engine("ray", address)
        quiet = Progress(quiet=True)
        return engine(stage, iter(rows), len(rows), self.results, self.failures, quiet)

    def content(self) -> tuple[dict[str, bytes], dict[str, str]]:
        """Results and reasons by key; fails when a key is there twice."""
        results = [(r["key"], r["values"].tobytes()) for r in self.results.rows("repeating")]
        failed = [(r["key"], r["reason"]) for r in self.failures.rows("repeating")]
        assert len(dict(results)) == len(results), "a result twice"
        assert len(dict(failed)) == len(failed), "a failure twice"
        return dict(sorted(results)), dict(sorted(failed))


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path / "ray")


def locally(
    tmp_path: Path, numbers: range, wide: int = 2
) -> tuple[dict[str, bytes], dict[str, str]]:
    """What the local engine makes of the same rows."""
    local = Kept(tmp_path / "local")
    local.run(Repeating(tmp_path / "local.log", wide), numbers, None)
    return local.content()


def test_the_same_rows_as_locally(kept: Kept, tmp_path: Path, ray_address: str) -> None:
    stage = Repeating(tmp_path / "log", slow=0.01)
    report = kept.run(stage, range(1, 61), ray_address)
    assert kept.content() == locally(tmp_path, range(1, 61))
    assert (report.done, report.failed) == (54, 6)
    assert {r["stage"] for r in kept.failures.rows()} == {"repeat"}
    opened = stage.said("open")
    assert [count for _, count in opened] == [1, 1], "opened once in each of two workers"
    assert {pid for pid, _ in stage.said("did")} == {pid for pid, _ in opened}
    assert sorted(pid for pid, _ in stage.said("close")) == sorted(pid for pid, _ in opened)
    assert os.getpid() not in dict(opened)
    assert sorted(n for _, n in stage.said("did")) == [n for n in range(1, 61) if n % 10]
    assert list((tmp_path / "ray" / "tables").glob(".*")) == [], "the token is gone"


def test_nothing_to_do_asks_no_cluster(kept: Kept, tmp_path: Path) -> None:
    stage = Repeating(tmp_path / "log")
    report = kept.run(stage, range(0), "192.0.2.1:1")
    assert (report.done, report.failed, stage.log.exists()) == (0, 0, False)


def test_large_results_are_written_by_the_workers(
    kept: Kept, tmp_path: Path, ray_address: str
) -> None:
    kept.run(Repeating(tmp_path / "log", WIDE), range(1, 30), ray_address)
    assert kept.content() == locally(tmp_path, range(1, 30), WIDE)


def test_a_worker_killed_in_mid_run_loses_nothing(
    kept: Kept, tmp_path: Path, ray_address: str
) -> None:
    stage = Repeating(tmp_path / "log", slow=0.05)
    killed: list[int] = []

    def kill_one() -> None:
        for _ in range(600):
            time.sleep(0.05)
            if stage.log.exists() and len(did := stage.said("did")) > 5:
                killed.append(did[-1][0])
                os.kill(did[-1][0], signal.SIGKILL)
                return

    thread = threading.Thread(target=kill_one)
    thread.start()
    kept.run(stage, range(1, 61), ray_address)
    thread.join()
    assert killed, "no kill came in time: the test shows nothing"
    assert killed[0] not in {pid for pid, _ in stage.said("close")}
    assert len(stage.said("open")) >= 2
    assert kept.content() == locally(tmp_path, range(1, 61))


def test_a_row_that_no_worker_survives_is_a_failure_and_the_others_are_done(
    kept: Kept, tmp_path: Path, ray_address: str
) -> None:
    stage = Repeating(tmp_path / "log", deadly=5, deaths=100)
    kept.run(stage, range(1, 21), ray_address)
    results, failed = locally(tmp_path, range(1, 21))
    del results["005"]
    failed["005"] = "2 workers died of it, one after the other"
    assert kept.content() == (results, dict(sorted(failed.items())))


def test_a_slow_worker_holds_up_little(kept: Kept, tmp_path: Path, ray_address: str) -> None:
    stage = Repeating(tmp_path / "log", slow=0.6)
    kept.run(stage, range(1, 41), ray_address)
    assert kept.content() == locally(tmp_path, range(1, 41))
    slow = stage.said("open")[0][0]
    shares_of = [sum(pid == slow for pid, _ in stage.said("did")), len(stage.said("did"))]
    assert shares_of[0] < shares_of[1] / 2


def test_an_error_of_the_stage_ends_the_run_with_what_was_done(
    kept: Kept, tmp_path: Path, ray_address: str
) -> None:
    stage = Repeating(tmp_path / "log", deadly=25, error=UserError("the model does not load"))
    with pytest.raises(UserError, match="the model does not load"):
        kept.run(stage, range(1, 41), ray_address)
    begun = kept.content()
    assert begun[0]
    assert "025" not in begun[0]
    kept.results = Table(kept.results.path, Repeating.schema)
    rest = [n for n in range(1, 41) if f"{n:03d}" not in begun[0].keys() | begun[1].keys()]
    for_good: list[Row] = [{"key": f"{n:03d}", "number": n} for n in rest]
    quiet = Progress(quiet=True)
    run_local(Repeating(tmp_path / "log2"), for_good, len(rest), kept.results, kept.failures, quiet)
    assert kept.content() == locally(tmp_path, range(1, 41))


def test_few_rows_are_read_ahead(kept: Kept, tmp_path: Path, ray_address: str) -> None:
    stage = Repeating(tmp_path / "log", slow=0.01)
    ahead: list[int] = []

    def rows() -> Iterator[Row]:
        for n in range(1, 201):
            ahead.append(n - (len(stage.said("did")) if stage.log.exists() else 0))
            yield {"key": f"{n:03d}", "number": n}

    run_ray(
        stage, rows(), 200, kept.results, kept.failures, Progress(quiet=True), address=ray_address
    )
    assert kept.content() == locally(tmp_path, range(1, 201))
    assert max(ahead) <= 200 // 10 + 2 * ray_engine.DEALT * ray_engine.BLOCK_ROWS


# What cannot run is refused. No cluster is needed to say so.


def machine(cpus: float, gpus: int = 0, *, alive: bool = True) -> dict[str, Any]:
    return {"Alive": alive, "Resources": {"CPU": cpus} | ({"GPU": gpus} if gpus else {})}


def test_workers_leave_room_on_every_machine() -> None:
    assert shares(Resources(), [machine(2)]) == [Share(0.9, 0)] * 2
    assert shares(Resources(cpus=4), [machine(6), machine(9)]) == [Share(3.6, 0)] * 3
    assert shares(Resources(cpus=None), [machine(2), machine(0), machine(8)]) == [
        Share(1.8, 0),
        Share(7.2, 0),
    ]
    assert shares(Resources("auto"), [machine(8), machine(8, 2)]) == [Share(0.9, 1)] * 2
    assert shares(Resources("cpu"), [machine(2, 2)]) == [Share(0.9, 0)] * 2
    assert shares(Resources("auto", 4), [machine(8, 8)]) == [Share(3.6, 1)] * 2
    assert len(shares(Resources("auto"), [machine(2), machine(64, alive=False)])) == 2


@pytest.mark.parametrize(
    ("resources", "nodes", "words"),
    [
        (Resources("cuda"), [machine(8)], "the cluster has no GPU"),
        (Resources("cuda:1"), [machine(8, 2)], "one machine's own"),
        (Resources("mps"), [machine(8)], "one machine's own"),
        (Resources(cpus=4), [machine(2), machine(3)], "takes 4 CPUs: the largest has 3"),
        (Resources("cuda"), [machine(0, 1)], "takes 1 CPUs and a GPU"),
        (Resources(), [], "the largest has 0 CPUs"),
    ],
)
def test_a_plan_that_cannot_run_is_refused(
    resources: Resources, nodes: list[dict[str, Any]], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        shares(resources, nodes)


def test_a_machine_with_other_software_or_storage_is_refused(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.touch()
    same = Surroundings(software(), token, (tmp_path,))
    same.require("here")
    other = Surroundings({**software(), "motive": "0.0.1"}, token, ())
    with pytest.raises(UserError, match=r"the machine here has motive .* and the driver 0.0.1"):
        other.require("here")
    with pytest.raises(UserError, match=r"does not see .*/clips: put the run"):
        Surroundings(software(), token, (tmp_path / "clips",)).require("here")
    token.unlink()
    with pytest.raises(UserError, match=f"does not see {tmp_path}: put the run"):
        same.require("here")


def test_a_cluster_whose_workers_do_not_start_is_given_up(
    kept: Kept, tmp_path: Path, ray_address: str
) -> None:
    class Dying(Repeating):
        def open(self) -> None:
            os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(UserError, match="workers of the repeat stage do not start"):
        kept.run(Dying(tmp_path / "log"), range(1, 5), ray_address)


@pytest.mark.parametrize(
    ("name", "address", "words"),
    [
        ("local", "10.0.0.1:6379", "add --engine ray"),
        ("dask", None, "there is no engine 'dask': use --engine local or ray"),
        ("ray", "ray://10.0.0.1:10001", "give HOST:PORT"),
    ],
)
def test_a_wrong_engine_is_refused(name: str, address: str | None, words: str) -> None:
    with pytest.raises(UserError, match=words):
        require_engine(name, address)


def test_ray_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("motive.runs.ray_cluster.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install 'motive-attribution\\[ray\\]'"):
        require_engine("ray", None)
