"""`--engine ray` on a real cluster: the same run as the local engine's, also when processes are killed."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import KILLED, Terminal
from run_files import Finished, done
from test_killed import assert_like_undisturbed

from s3_server import S3Server

pytestmark = pytest.mark.timeout(2000)
PATIENCE = 900  # seconds; every worker imports torch and diffusers, and the machine may be busy


def on_ray(finished: Finished, address: str, run: Path | str) -> list[str]:
    return [*finished.words, "--out", str(run), "--engine", "ray", "--address", address]


@pytest.fixture(scope="module")
def by_ray(
    motive: Terminal, finished: Finished, ray_address: str, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """An undisturbed run on the cluster."""
    run = tmp_path_factory.mktemp("by_ray") / "run"
    motive.start(*on_ray(finished, ray_address, run)).outcome(PATIENCE).succeeded()
    return run


def test_a_run_on_the_cluster_is_the_local_one_bit_for_bit(
    by_ray: Path, finished: Finished
) -> None:
    assert_like_undisturbed(by_ray, finished.path)
    assert [p for p in (by_ray / "tables").iterdir() if p.name.startswith(".")] == []


def test_the_engine_and_address_may_change(
    motive: Terminal, by_ray: Path, finished: Finished
) -> None:
    before = done(by_ray)
    # Nothing is left to do: no cluster is asked for.
    for words in (["--engine", "local"], ["--engine", "ray", "--address", "192.0.2.1:1"], []):
        motive("gradients", by_ray, *words, "--quiet").succeeded()
    motive(*finished.words, "--out", by_ray).succeeded()
    assert done(by_ray) == before


def test_killed_workers_and_drivers_lose_nothing(
    motive: Terminal, finished: Finished, ray_address: str, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    words = on_ray(finished, ray_address, run)
    # Once a table has rows its stage is under way: the driver dies there, or one of its workers.
    for table, victim in (("motion", "driver"), ("features", "worker")):
        started = motive.start(*words)
        wait_for_rows(run, table, started.process.is_alive)
        if victim == "driver":
            started.process.kill()
            assert started.outcome().code == KILLED
        else:
            assert workers(), "no worker is there to be killed: the test shows nothing"
            os.kill(workers()[0], signal.SIGKILL)
            started.outcome(PATIENCE).succeeded()
    motive.start(*words).outcome(PATIENCE).succeeded()
    assert_like_undisturbed(run, finished.path)


def test_a_run_on_the_cluster_may_lie_on_an_object_store(
    motive: Terminal, finished: Finished, ray_address: str, s3: S3Server, tmp_path: Path
) -> None:
    s3.client().create_bucket(Bucket="by-ray")
    words = on_ray(finished, ray_address, "s3://by-ray/run")
    started = motive.start(*words, environment=s3.environment)
    started.outcome(PATIENCE).succeeded()
    s3.download("by-ray", "run", tmp_path / "run")
    assert_like_undisturbed(tmp_path / "run", finished.path)


def test_what_cannot_run_is_refused_before_anything_is_written(
    motive: Terminal, finished: Finished, ray_address: str, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    words = on_ray(finished, ray_address, run)
    assert "no GPU" in motive(*words, "--device", "cuda").complaint
    assert not run.exists()
    local = [*finished.words, "--out", tmp_path / "local", "--address", ray_address]
    assert "add --engine ray" in motive(*local).complaint
    assert not (tmp_path / "local").exists()


def wait_for_rows(run: Path, table: str, running: Callable[[], bool]) -> None:
    """Until the stage that fills `table` has begun; fails when the run ends before."""
    for _ in range(6000):
        folders = list((run / "tables").glob(f"{table}*.lance"))
        if folders and workers():
            return
        assert running(), f"the run ended before {table} was there"
        time.sleep(0.02)
    raise AssertionError(f"{table} was never there")


def workers() -> list[int]:
    """The cluster's processes that work on a stage, told from others' by the cluster's word."""
    word = f"RAY_AUTH_TOKEN={os.environ['RAY_AUTH_TOKEN']}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            name = (process / "cmdline").read_bytes()
            if name.startswith(b"ray::Worker") and word in (process / "environ").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue
    return sorted(found)
