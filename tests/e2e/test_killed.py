"""kill -9 at any moment and the same command again: nothing is lost, nothing twice, the same scores."""

import random
import time
from pathlib import Path

import pytest
from commands import KILLED, SignalAt, Terminal
from run_files import Finished, done, duplicates, features, rows, scores

KILLS = 6


@pytest.fixture(scope="module")
def seconds(
    motive: Terminal, finished: Finished, tmp_path_factory: pytest.TempPathFactory
) -> float:
    """How long an undisturbed run takes here and now."""
    start = time.monotonic()
    motive(*finished.words, "--out", tmp_path_factory.mktemp("timed") / "run").succeeded()
    return time.monotonic() - start


@pytest.mark.parametrize("kill", range(KILLS))
def test_a_run_killed_once_ends_like_an_undisturbed_one(
    motive: Terminal, finished: Finished, seconds: float, tmp_path: Path, kill: int
) -> None:
    # One kill in each sixth of the run, so that all stages have their turn.
    moment = seconds * (kill + random.Random(kill).random()) / KILLS
    words = (*finished.words, "--out", tmp_path / "run")
    motive.start(*words).kill_after(moment)
    motive(*words).succeeded()
    assert_like_undisturbed(tmp_path / "run", finished.path)


@pytest.mark.parametrize("rename", range(1, 18, 3))
def test_a_run_killed_before_a_file_appears_ends_like_an_undisturbed_one(
    motive: Terminal, finished: Finished, tmp_path: Path, rename: int
) -> None:
    words = (*finished.words, "--out", tmp_path / "run")
    # What is written whole or not at all is renamed into its place: os.replace is such an event too.
    started = motive.start(*words, signal_at=SignalAt("os.rename", rename))
    assert started.outcome().code == KILLED
    motive(*words).succeeded()
    assert_like_undisturbed(tmp_path / "run", finished.path)


def test_a_run_killed_until_it_is_done_ends_like_an_undisturbed_one(
    motive: Terminal, finished: Finished, seconds: float, tmp_path: Path
) -> None:
    words, kills, moment = (*finished.words, "--out", tmp_path / "run"), 0, seconds / 8
    while motive.start(*words).kill_after(moment).code == KILLED:
        kills, moment = kills + 1, moment * 1.3
    assert kills > 0, "no kill came in time: the test shows nothing"
    assert_like_undisturbed(tmp_path / "run", finished.path)


def assert_like_undisturbed(run: Path, undisturbed: Path) -> None:
    """Scores bit for bit, features too; no row twice in any table; no half-written file."""
    assert (run / "scores.parquet").read_bytes() == (undisturbed / "scores.parquet").read_bytes()
    assert scores(run) == scores(undisturbed)
    mine, theirs = features(run), features(undisturbed)
    assert mine.keys() == theirs.keys()
    assert all(mine[key].tobytes() == theirs[key].tobytes() for key in theirs)
    assert duplicates(run) == {}
    for table in ("files", "members", "motion", "latents", "texts"):
        assert len(rows(run, table)) == len(rows(undisturbed, table)), table
    assert (run / "selection.csv").read_bytes() == (undisturbed / "selection.csv").read_bytes()
    assert (run / "failures.csv").read_bytes() == (undisturbed / "failures.csv").read_bytes()
    assert (run / "report.html").is_file()
    assert [path.name for path in run.iterdir() if path.name.endswith(".part")] == []
    computed = ("ingest", "track", "encode", "encode text", "gradients")
    mine_done, theirs_done = done(run), done(undisturbed)
    assert {s: mine_done[s] for s in computed} == {s: theirs_done[s] for s in computed}
