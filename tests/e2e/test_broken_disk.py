"""Disks that are full or read-only, tables that are damaged, files that change or go while a run is made.

Each time: one sentence, or a failure that is recorded; and once the cause is mended, the same command ends
like a run that nothing happened to.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import lance
import pytest
from commands import Terminal
from run_files import Finished, failures, features, rows, snapshot
from test_killed import assert_like_undisturbed


class Disk:
    """A file system in memory of a given size."""

    def __init__(self, place: Path) -> None:
        self.place = place
        place.mkdir()

    def mount(self, options: str) -> None:
        again = "remount," if os.path.ismount(self.place) else ""
        command = ["mount", "-t", "tmpfs", "-o", again + options, "tmpfs", str(self.place)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            pytest.skip(f"there is no mount command ({error.strerror})")
        if done.returncode != 0 and not again:
            pytest.skip(f"a disk cannot be mounted here ({done.stderr.strip()})")
        assert done.returncode == 0, done.stderr


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    made = Disk(tmp_path / "disk")
    yield made
    subprocess.run(["umount", "--lazy", str(made.place)], capture_output=True, check=False)


def bytes_on_disk(folder: Path) -> int:
    """In pages, as a file system in memory counts them."""
    return sum(
        (path.stat().st_size + 4095) // 4096 * 4096 for path in folder.rglob("*") if path.is_file()
    )


@pytest.mark.parametrize("share", [0.05, 0.4, 0.8])
def test_a_full_disk(motive: Terminal, finished: Finished, disk: Disk, share: float) -> None:
    size = max(16, int(bytes_on_disk(finished.path) * share) // 1024)
    disk.mount(f"size={size}k")
    words = (*finished.words, "--out", disk.place / "run")
    assert "free space" in motive(*words).complaint
    before = kept(disk.place / "run")
    disk.mount("size=256m")
    motive(*words).succeeded()
    assert before.items() <= kept(disk.place / "run").items(), "a row that was there was made anew"
    assert_like_undisturbed(disk.place / "run", finished.path)


def kept(run: Path) -> dict[str, bytes]:
    """The features that a run has."""
    if not list(run.glob("tables/features-*.lance/_versions/*.manifest")):
        return {}
    return {key: feature.tobytes() for key, feature in features(run).items()}


def test_a_disk_that_becomes_read_only(motive: Terminal, finished: Finished, disk: Disk) -> None:
    disk.mount("size=256m")
    run = disk.place / "run"
    words = (*finished.words, "--out", run)
    motive(*words, "--score-only").succeeded()
    disk.mount("ro")
    assert "cannot be written" in motive(*words).complaint
    for stage in ("ingest", "encode"):
        assert "cannot be written" in motive(stage, run, "--quiet").complaint
    disk.mount("rw")
    motive(*words).succeeded()
    assert_like_undisturbed(run, finished.path)


def test_a_table_of_another_version(motive: Terminal, finished: Finished, copied: Path) -> None:
    place = copied / "tables/motion.lance"
    table = lance.dataset(str(place)).to_table()
    newer = table.set_column(
        table.schema.get_field_index("low"), "low", table["low"].cast("float64")
    )
    shutil.rmtree(place)
    lance.write_dataset(newer, str(place))
    before = snapshot(copied)
    said = motive(*finished.words, "--out", copied).complaint
    assert "motion.lance" in said
    assert "version" in said
    assert "motion.lance" in motive("track", copied, "--quiet").complaint
    after = snapshot(copied) or {}
    assert {n for n in after if n.startswith("tables/")} >= {
        n for n in before or {} if n.startswith("tables/")
    }
    shutil.rmtree(place)  # as the sentence says
    motive(*finished.words, "--out", copied).succeeded()
    assert_like_undisturbed(copied, finished.path)


@pytest.mark.parametrize(
    ("table", "harm"),
    [
        ("files", "cut"),
        ("motion", "flipped"),
        ("latents", "gone"),
        ("features", "cut"),
        ("features", "flipped"),
    ],
)
def test_a_damaged_table_is_found_and_made_anew(
    motive: Terminal, finished: Finished, copied: Path, table: str, harm: str
) -> None:
    (data, *_) = sorted(copied.glob(f"tables/{table}*.lance/data/*.lance"))
    content = bytearray(data.read_bytes())
    if harm == "cut":
        data.write_bytes(content[: len(content) // 2])
    elif harm == "flipped":
        content[len(content) // 3] ^= 0xFF
        data.write_bytes(content)
    else:
        data.unlink()
    assert motive("check", copied).code == 1
    motive("check", copied, "--mend")
    motive(*finished.words, "--out", copied).succeeded()
    assert motive("check", copied).code == 0
    assert_like_undisturbed(copied, finished.path)


@pytest.fixture
def moving(finished: Finished, zoo: Path, tmp_path: Path) -> tuple[str, ...]:
    """The words of the finished run on a copy of its clips, which may be changed."""
    corpus = Path(shutil.copytree(zoo, tmp_path / "corpus"))
    words = list(finished.words)
    words[words.index("--clips") + 1] = str(corpus)
    return tuple(words)


def test_a_clip_that_is_replaced_during_the_run(
    motive: Terminal, moving: tuple[str, ...], zoo: Path, tmp_path: Path
) -> None:
    run, clip = tmp_path / "run", tmp_path / "corpus/clips/000004.mp4"
    motive(*moving, "--out", run, "--score-only").succeeded()
    clip.write_bytes((zoo / "clips/000009.mp4").read_bytes()[:-1] + b"\1")
    motive("encode", run, "--quiet").succeeded()
    reasons = {row["stage"]: row["reason"] for row in rows(run, "failures")}
    assert "the file changed after it was ingested" in reasons["encode"]
    motive(*moving, "--out", run).succeeded()
    assert [row["stage"] for row in failures(run)] == ["score"]  # the query that shows nothing
    motive(*moving, "--out", tmp_path / "anew").succeeded()
    mine, theirs = features(run), features(tmp_path / "anew")
    assert all(mine[key].tobytes() == theirs[key].tobytes() for key in theirs)
    assert (run / "selection.csv").read_bytes() == (tmp_path / "anew/selection.csv").read_bytes()


def test_a_folder_of_clips_that_goes_away_during_the_run(
    motive: Terminal, finished: Finished, moving: tuple[str, ...], tmp_path: Path
) -> None:
    run, corpus = tmp_path / "run", tmp_path / "corpus"
    motive(*moving, "--out", run, "--score-only").succeeded()
    corpus.rename(tmp_path / "away")
    motive("encode", run, "--quiet").succeeded()
    assert (
        "the file changed"
        in {row["stage"]: row["reason"] for row in rows(run, "failures")}["encode"]
    )
    assert "does not exist" in motive(*moving, "--out", run).complaint
    (tmp_path / "away").rename(corpus)
    motive(*moving, "--out", run, "--retry-failed").succeeded()
    mine, theirs = features(run), features(finished.path)
    assert mine.keys() == theirs.keys()
    assert all(mine[key].tobytes() == theirs[key].tobytes() for key in theirs)
    assert (run / "scores.parquet").read_bytes() == (finished.path / "scores.parquet").read_bytes()


def test_a_run_directory_that_is_removed_during_the_run(
    motive: Terminal, finished: Finished, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    words = (*finished.words, "--out", run)
    started = motive.start(*words)
    while not (run / "tables/motion.lance").exists():
        assert started.process.is_alive()
        time.sleep(0.01)
    run.rename(tmp_path / "away")
    outcome = started.outcome()
    assert "Traceback" not in outcome.err, outcome.err
    assert outcome.code in (0, 2), outcome.err
    if outcome.code == 2:
        assert outcome.complaint
    shutil.rmtree(run, ignore_errors=True)
    (tmp_path / "away").rename(run)
    motive(*words).succeeded()
    assert_like_undisturbed(run, finished.path)
