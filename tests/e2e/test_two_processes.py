"""Several processes on one run: each row once, and the same numbers as of one process."""

import time
from pathlib import Path

from commands import KILLED, Started, Terminal
from run_files import Finished
from test_killed import assert_like_undisturbed


def words_for(finished: Finished, out: Path) -> tuple[str, ...]:
    """As the finished run was made, but with what it says while it works."""
    return (*(word for word in finished.words if word != "--quiet"), "--out", str(out))


def until(run: Path, pattern: str, started: Started, seconds: float = 120) -> None:
    """Wait until a process has made a file in the run."""
    end = time.monotonic() + seconds
    while not any(run.glob(pattern)):
        assert time.monotonic() < end, f"no {pattern}"
        assert started.process.is_alive(), started.outcome().err
        time.sleep(0.02)


def test_two_processes_end_like_one(motive: Terminal, finished: Finished, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = words_for(finished, run)
    both = [motive.start(*words), motive.start(*words)]
    said = [started.outcome().succeeded().err for started in both]
    assert_like_undisturbed(run, finished.path)
    # Each had its share, or else the test shows nothing.
    assert all("done by other processes" in text for text in said), said
    assert claims(run) == []


def test_the_other_goes_on_when_one_is_killed(
    motive: Terminal, finished: Finished, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    words = words_for(finished, run)
    first = motive.start(*words)
    until(run, "claims/track-*/*.json", first)
    second = motive.start(*words)
    assert first.kill_after(0.0).code == KILLED
    third = motive.start(*words)
    second.outcome().succeeded()
    third.outcome().succeeded()
    assert_like_undisturbed(run, finished.path)
    assert claims(run) == []


def claims(run: Path) -> list[str]:
    return [str(path) for path in run.glob("claims/*/*")]
