"""Interruptions that leave the process a last word: Ctrl-C, a full disk, clips or queries that are gone."""

import contextlib
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from commands import Outcome, SignalAt, Terminal
from run_files import Finished, done, duplicates, failures, rows, scores, selection, snapshot

KB = 1024


def test_ctrl_c_is_one_sentence_and_keeps_what_was_done(
    motive: Terminal, finished: Finished, tmp_path: Path
) -> None:
    words = (*finished.words, "--out", tmp_path / "run")
    # Ingest claims the next clips when the first ones are on their way: in the middle of that.
    interrupt = SignalAt("open", 2, signal.SIGINT, ending="claims.lock")
    outcome = motive.start(*words, signal_at=interrupt).outcome()
    assert (outcome.code, outcome.out) == (130, "")
    assert outcome.err == "motive: interrupted; run the same command again to go on\n"
    kept, total = (len(rows(run, "files")) for run in (tmp_path / "run", finished.path))
    assert 0 < kept < total
    assert done(tmp_path / "run")["ingest"] == (kept, 0)
    motive(*words).succeeded()
    assert done(tmp_path / "run")["ingest"] == (total, 0)
    assert_like(tmp_path / "run", finished.path)


@pytest.mark.parametrize("limit", [1 * KB, 4 * KB, 24 * KB, 64 * KB])
def test_a_file_that_cannot_grow_is_one_sentence(
    motive: Terminal, finished: Finished, tmp_path: Path, limit: int
) -> None:
    """RLIMIT_FSIZE stands for a full disk: a smaller limit stops the run at an earlier file."""
    words = (*finished.words, "--out", tmp_path / "run")
    outcome = motive(*words, largest_file=limit)
    assert "cannot be written" in outcome.complaint
    assert_nothing_half_written(tmp_path / "run")
    motive(*words).succeeded()
    assert_like(tmp_path / "run", finished.path)


@pytest.mark.parametrize("size", [16 * KB, 96 * KB, 192 * KB, 256 * KB])
def test_a_full_disk_is_one_sentence(
    motive: Terminal, finished: Finished, tmp_path: Path, size: int
) -> None:
    with small_disk(tmp_path / "disk", size) as disk:
        words = (*finished.words, "--out", disk / "run")
        assert "cannot be written" in motive(*words).complaint
        assert_nothing_half_written(disk / "run")
        grown = ["mount", "-o", "remount,size=16m", str(disk)]
        subprocess.run(grown, check=True)
        motive(*words).succeeded()
        assert_like(disk / "run", finished.path)


def test_an_export_to_a_full_disk_is_one_sentence(
    motive: Terminal, finished: Finished, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk", 16 * KB) as disk:
        words = ("export", finished.path, "--format", "musubi", "--out", disk / "export")
        complaint = motive(*words).complaint
        assert "No space left on device" in complaint
        assert list(disk.iterdir()) == []


def test_a_clip_that_changes_after_ingest_is_a_failure_with_its_reason(
    motive: Terminal, finished: Finished, zoo: Path, tmp_path: Path
) -> None:
    """Stage by stage, as on a machine where hours lie between them."""
    clips, run = Path(shutil.copytree(zoo / "clips", tmp_path / "clips")), tmp_path / "run"
    record = yaml.safe_load((finished.path / "run.yaml").read_text())
    record["config"]["clips"] = str(clips)
    run.mkdir()
    (run / "run.yaml").write_text(yaml.safe_dump(record))
    motive("ingest", run, "--quiet").succeeded()
    (clips / "000003.mp4").write_bytes(b"another content")
    (clips / "000004.mp4").unlink()
    for stage in ("track", "encode", "gradients", "score", "select", "report"):
        motive(stage, run, "--quiet").succeeded()
    failed = {row["file_name"]: row for row in failures(run)}
    for name in ("000003.mp4", "000004.mp4"):
        assert failed[name]["stage"] == "track"
        assert "changed after it was ingested" in failed[name]["reason"]
    names = {path.name for path in (zoo / "clips").iterdir()}
    assert {row["file_name"] for row in selection(run)} == names - {"000003.mp4", "000004.mp4"}


def test_clips_of_which_none_can_be_read(
    motive: Terminal, finished: Finished, zoo: Path, tmp_path: Path
) -> None:
    """Found by ingest, not before: a good folder takes the same run up."""
    clips = tmp_path / "clips"
    clips.mkdir()
    (clips / "broken.mp4").write_text("no video")
    words = with_clips(finished, clips, tmp_path / "run")
    complaint = motive(*words).complaint
    assert complaint.startswith("none of the 1 clips can be used (broken.mp4: not a readable media")
    assert not (tmp_path / "run" / "scores.parquet").exists()
    shutil.copytree(zoo / "clips", clips, dirs_exist_ok=True)
    motive(*words).succeeded()
    assert failures(tmp_path / "run")[0]["file_name"] == "broken.mp4"


def test_queries_without_any_motion_are_refused(
    motive: Terminal, finished: Finished, still: Path, tmp_path: Path
) -> None:
    words = (*finished.words, "--queries", still, "--out", tmp_path / "run")
    assert "no query shows any motion" in motive(*words).complaint
    assert not (tmp_path / "run" / "scores.parquet").exists()


def with_clips(finished: Finished, clips: Path, run: Path) -> tuple[object, ...]:
    """The words of the finished run, with other clips."""
    return (*finished.words, "--clips", clips, "--out", run)


@contextlib.contextmanager
def small_disk(place: Path, size: int) -> Iterator[Path]:
    """A file system of its own of so many bytes. Skips where nothing can be mounted."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def assert_nothing_half_written(run: Path) -> None:
    """Each file is whole or not there."""
    files = snapshot(run) or {}
    assert [name for name in files if name.endswith(".part")] == []
    assert "report.html" not in files
    assert duplicates(run) == {}
    if "stages.json" in files:
        done(run)
    if "scores.parquet" in files:
        assert len(scores(run)) == 4 * 14
    if "selection.csv" in files:
        assert len(selection(run)) == 14


def assert_like(run: Path, undisturbed: Path) -> None:
    for name in ("scores.parquet", "selection.csv", "failures.csv"):
        assert (run / name).read_bytes() == (undisturbed / name).read_bytes(), name
    assert duplicates(run) == {}


def test_a_refused_command_fails_its_own_check() -> None:
    """What the tests above rest on: a second line, a traceback or another exit code is noticed."""
    assert Outcome(2, "", "motive: a sentence\n").complaint == "a sentence"
    for bad in (
        Outcome(1, "", "motive: a sentence\n"),
        Outcome(2, "", "motive: a sentence\nand another\n"),
        Outcome(2, "", "Traceback\n"),
        Outcome(2, "some output", "motive: a sentence\n"),
    ):
        with pytest.raises(AssertionError):
            _ = bad.complaint
