"""`motive export` of a finished run: every format, its order and captions read back."""

import json
import shutil
from pathlib import Path

import pytest
from commands import Terminal
from run_files import Finished, selection, snapshot

from motive.clips.formats import read_dataset

# Each format with what in the export its trainer is given: the folder or a file in it.
FORMATS = {
    "videofolder": "",
    "diffsynth": "",
    "musubi": "dataset.toml",
    "finetrainers": "training.json",
    "diffusion-pipe": "dataset.toml",
    "ai-toolkit": "job.yaml",
    "webdataset": "",
    "data-juicer": "dataset.jsonl",
}
SELECTED = 7  # half of fourteen


@pytest.mark.parametrize("link", [False, True], ids=["copies", "links"])
@pytest.mark.parametrize("format", FORMATS)
def test_order_captions_and_content_come_back(
    motive: Terminal, finished: Finished, zoo: Path, tmp_path: Path, format: str, link: bool
) -> None:
    before, out = snapshot(finished.path), tmp_path / "export"
    words = ("export", finished.path, "--format", format, "--out", out)
    outcome = motive(*words, *(["--link"] if link else [])).succeeded()
    assert f"clips: {SELECTED}" in outcome.out
    assert snapshot(finished.path) == before
    found = read_dataset(out / FORMATS[format], media_root=zoo, extract_to=tmp_path / "tar")
    assert found.problems == []
    chosen = [row for row in selection(finished.path) if row["selected"] == "true"]
    assert len(chosen) == SELECTED
    assert [record.caption for record in found.records] == [row["caption"] for row in chosen]
    for record, row in zip(found.records, chosen, strict=True):
        assert record.path.read_bytes() == (zoo / row["file_name"]).read_bytes()
        assert record.file_name.rpartition("/")[2].startswith(f"{int(row['rank']):06d}_")


def test_an_export_is_curated_like_the_clips_it_came_from(
    motive: Terminal, finished: Finished, tmp_path: Path
) -> None:
    """The whole circle: a selection, exported, is the corpus of the next run; nothing is lost."""
    out, run = tmp_path / "export", tmp_path / "run"
    motive("export", finished.path, "--format", "videofolder", "--out", out).succeeded()
    motive(*finished.words, "--clips", out, "--fraction", 1, "--out", run).succeeded()
    first = {
        row["clip_id"]: (row["caption"], row["mean_score"])
        for row in selection(finished.path)
        if row["selected"] == "true"
    }
    again = {row["clip_id"]: (row["caption"], row["mean_score"]) for row in selection(run)}
    assert again == first


def test_an_unknown_format(motive: Terminal, finished: Finished, tmp_path: Path) -> None:
    words = ("export", finished.path, "--format", "zip", "--out", tmp_path / "export")
    complaint = motive(*words).complaint
    assert "'zip'" in complaint
    for format in FORMATS:
        assert format in complaint
    assert not (tmp_path / "export").exists()


@pytest.mark.parametrize("taken", ["a folder", "a file"])
def test_a_place_that_is_taken(
    motive: Terminal, finished: Finished, tmp_path: Path, taken: str
) -> None:
    out = tmp_path / "export"
    if taken == "a folder":
        out.mkdir()
        (out / "mine.txt").write_text("kept")
    else:
        out.write_text("kept")
    before = snapshot(out)
    words = ("export", finished.path, "--format", "diffsynth", "--out", out)
    assert "is not an empty folder" in motive(*words).complaint
    assert snapshot(out) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["export"]


def test_a_run_without_a_selection(motive: Terminal, copied: Path, tmp_path: Path) -> None:
    (copied / "selection.csv").unlink()
    words = ("export", copied, "--format", "diffsynth", "--out", tmp_path / "export")
    assert "motive select" in motive(*words).complaint
    assert not (tmp_path / "export").exists()


def test_a_clip_that_is_gone(
    motive: Terminal, finished: Finished, zoo: Path, tmp_path: Path
) -> None:
    clips, run, out = tmp_path / "clips", tmp_path / "run", tmp_path / "export"
    shutil.copytree(zoo / "clips", clips)
    motive(*finished.words, "--clips", clips, "--out", run).succeeded()
    best = clips / selection(run)[0]["file_name"]
    best.unlink()
    complaint = motive("export", run, "--format", "musubi", "--out", out).complaint
    assert f"{best} is no longer there" in complaint
    assert not out.exists()


def test_the_export_says_what_it_holds(
    motive: Terminal, finished: Finished, tmp_path: Path
) -> None:
    out = tmp_path / "export"
    motive("export", finished.path, "--format", "webdataset", "--out", out).succeeded()
    record = json.loads((out / "export.json").read_text())
    chosen = [row for row in selection(finished.path) if row["selected"] == "true"]
    assert [clip["file_name"] for clip in record["clips"]] == [row["file_name"] for row in chosen]
    for clip, row in zip(record["clips"], chosen, strict=True):
        assert clip["scores"]["motive_score"] == float(row["mean_score"])
        assert clip["scores"]["motive_votes"] == float(row["votes"])
