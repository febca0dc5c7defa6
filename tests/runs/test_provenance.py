"""Versions, revisions, whole files and the stages' log."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from motive.runs import provenance
from motive.runs.provenance import (
    StageLog,
    now,
    peak_memory_mb,
    remove_leftovers,
    revision,
    versions,
    write_atomically,
)


def test_versions_name_what_the_numbers_depend_on() -> None:
    found = versions()
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    for package in ("torch", "diffusers", "transformers", "av", "numba"):
        assert found[package][0].isdigit()


def git(folder: Path, *words: str) -> str:
    me = ["-c", "user.name=me", "-c", "user.email=me@example.org"]
    command = ["git", "-C", str(folder), *me, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not there")
def test_the_revision_is_of_the_checkout_that_holds_this_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = tmp_path / "src" / "provenance.py"
    module.parent.mkdir()
    module.write_text("")
    monkeypatch.setattr(provenance, "__file__", str(module))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert revision() is None  # no repository
    git(tmp_path, "init", "-q")
    (tmp_path / "mine.txt").write_text("a project with the package in its environment")
    git(tmp_path, "add", "mine.txt")
    git(tmp_path, "commit", "-q", "-m", "mine")
    assert revision() is None  # somebody else's repository
    git(tmp_path, "add", "src")
    git(tmp_path, "commit", "-q", "-m", "the package")
    assert revision() == git(tmp_path, "rev-parse", "HEAD")


def test_without_git_there_is_no_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert revision() is None


def test_now_is_utc_to_the_second() -> None:
    assert now().endswith("+00:00")
    assert len(now()) == len("2026-01-01T00:00:00+00:00")


def test_a_file_is_written_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    write_atomically(path, "ü\n")
    assert path.read_bytes() == "ü\n".encode()
    write_atomically(path, b"\x00")
    assert path.read_bytes() == b"\x00"

    def broken(self: Path, content: bytes) -> int:
        with self.open("wb") as file:
            file.write(content[:1])
        raise OSError("no space left")

    monkeypatch.setattr(Path, "write_bytes", broken)
    with pytest.raises(OSError, match="no space left"):
        write_atomically(path, "another text")
    assert path.read_bytes() == b"\x00"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_what_killed_processes_left_is_removed(tmp_path: Path) -> None:
    killed = subprocess.Popen([sys.executable, "-c", ""])
    killed.wait()
    living = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    kept = [
        f".run.yaml.{living.pid}.part",  # it may be in the middle of writing
        "scores.parquet",
        f"run.yaml.{killed.pid}.part",
        f".run.yaml.{killed.pid}.part.bak",
        ".run.yaml.part",
        ".a film.part",
    ]
    left = [
        f".run.yaml.{killed.pid}.part",
        f".scores.parquet.{killed.pid}.part",
        f".report.html.{os.getpid()}.part",  # of a process that had this one's number
    ]
    try:
        for name in (*kept, *left):
            (tmp_path / name).touch()
        remove_leftovers(tmp_path)
        assert {path.name for path in tmp_path.iterdir()} == set(kept)
    finally:
        living.communicate(b"\n")


def test_the_log_adds_up_seconds_and_says_what_is_done(tmp_path: Path) -> None:
    log = StageLog(tmp_path / "stages.json")
    assert log.read() == {}
    with log.measure("track") as measured:
        measured.done, measured.failed = 3, 1
    with log.measure("encode"):
        pass
    first = log.read()
    with log.measure("track") as measured:
        time.sleep(0.01)
        measured.done = 5
    entry = StageLog(tmp_path / "stages.json").read()["track"]
    assert (entry["done"], entry["failed"]) == (5, 1)
    assert entry["seconds"] >= first["track"]["seconds"] + 0.01
    assert entry["peak_mb"] > 10
    assert log.read()["encode"] == first["encode"]
    assert (first["encode"]["done"], first["encode"]["failed"]) == (0, 0)
    assert json.loads((tmp_path / "stages.json").read_text()).keys() == {"track", "encode"}


def test_a_killed_stage_is_logged_up_to_its_last_word(tmp_path: Path) -> None:
    code = """
import os, signal, sys, time
from pathlib import Path
from motive.runs.provenance import StageLog
with StageLog(Path(sys.argv[1])).measure("track") as measured:
    time.sleep(0.02)
    measured.done, measured.failed = 4, 1
    measured.save()
    measured.done = 5
    os.kill(os.getpid(), signal.SIGKILL)
"""
    path = tmp_path / "stages.json"
    killed = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert killed.returncode == -9
    entry = StageLog(path).read()["track"]
    assert (entry["done"], entry["failed"]) == (4, 1)
    assert entry["seconds"] >= 0.02
    with StageLog(path).measure("track"):
        pass
    assert StageLog(path).read()["track"]["done"] == 4


def test_an_interrupted_stage_is_logged_too(tmp_path: Path) -> None:
    log = StageLog(tmp_path / "stages.json")

    def interrupted() -> None:
        with log.measure("track") as measured:
            measured.done = 4
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert log.read()["track"]["done"] == 4


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="needs Linux")
def test_the_peak_is_the_stages_own(tmp_path: Path) -> None:
    # In a process of its own: one that has run a thousand tests holds memory of all ages.
    code = """
import sys
from pathlib import Path
import numpy as np
from motive.runs.provenance import StageLog
log = StageLog(Path(sys.argv[1]))
with log.measure("large"):
    large = np.ones(40_000_000)  # 305 MB
    del large
with log.measure("small"):
    pass
"""
    path = tmp_path / "stages.json"
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    found = StageLog(path).read()
    assert found["large"]["peak_mb"] - found["small"]["peak_mb"] > 200
    assert peak_memory_mb() > 10
