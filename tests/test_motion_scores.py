"""`motive curate --score-only`, motion.csv, recipes and the filters on motion, through a run."""

import csv
from pathlib import Path

import numpy as np
import pytest

from motive import Run
from motive.cli import main
from motive.zoo.render import render_corpus

COLUMNS = (
    "file_name", "clip_id", "mean_speed", "p95_speed", "object_speed", "camera_share",
    "moving_share", "jerk", "confident_share",
)  # fmt: skip
SELECTION_COLUMNS = (
    "rank", "clip_id", "file_name", "caption", "votes", "mean_score", "best_query", "selected",
)  # fmt: skip


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Slides, static scenes and pans, two of each."""
    folder = tmp_path_factory.mktemp("motion") / "clips"
    kinds = ("slide", "static", "camera_pan")
    render_corpus(folder, 6, seed=8, kinds=kinds, lengths=(5,))
    return folder


def motive(*words: object) -> int:
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    assert isinstance(end.value.code, int)
    return end.value.code


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_score_only_writes_the_statistics_and_stops(
    small_wan: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    words = ("curate", "--clips", clips, "--model", small_wan, "--out", out, "--quiet")
    assert motive(*words, "--score-only", "--max-camera-share", 0.5) == 0
    said = capsys.readouterr().out
    rows = read(out / "motion.csv")
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == 6
    assert "motion of 6 clips" in said
    own = [float(row["object_speed"]) for row in rows]
    assert own == sorted(own, reverse=True)
    names = {row["file_name"]: row["motion"] for row in read(clips / "metadata.csv")}
    assert {names[row["file_name"]] for row in rows[:2]} <= {"slide", "camera_pan"}
    held = sum(float(row["camera_share"]) > 0.5 for row in rows)
    assert held > 0
    assert f"{held} of them would be held back" in said
    for row in rows:
        assert all(np.isfinite(float(row[name])) for name in COLUMNS[2:])
    assert not (out / "selection.csv").exists()
    assert not list((out / "tables").glob("features*"))


def test_queries_are_needed_for_more(
    small_wan: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert motive("curate", "--clips", clips, "--model", small_wan, "--out", out) == 2
    assert "give --queries, or --score-only" in capsys.readouterr().err
    assert not out.exists()


def test_filters_hold_clips_back_and_rank_them(
    small_wan: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    words = ("curate", "--clips", clips, "--queries", clips, "--model", small_wan, "--out", out)
    words = (*map(str, words), "--fraction", "1", "--quiet")
    assert motive(*words) == 0
    free = read(out / "selection.csv")
    assert {row["selected"] for row in free} == {"true"}
    assert "held back" not in capsys.readouterr().out
    motion = {row["clip_id"]: row for row in read(out / "motion.csv")}
    # The features do not feel the filter, so the same run takes it.
    assert motive(*words, "--max-camera-share", 0.5, "--min-speed", 0.05) == 0
    said = capsys.readouterr().out
    rows = read(out / "selection.csv")
    assert tuple(rows[0]) == SELECTION_COLUMNS
    without = [{k: v for k, v in row.items() if k != "selected"} for row in rows]
    assert without == [{k: v for k, v in row.items() if k != "selected"} for row in free]
    held = {
        clip_id
        for clip_id, row in motion.items()
        if float(row["camera_share"]) > 0.5 or float(row["mean_speed"]) < 0.05
    }
    assert 2 <= len(held) < 6
    assert {row["clip_id"] for row in rows if row["selected"] == "false"} == held
    assert f"{len(held)} clips were held back for their motion" in said
    assert "held back for their motion" in (out / "report.html").read_text()


def test_the_recipe_is_part_of_the_objective(small_wan: Path, clips: Path, tmp_path: Path) -> None:
    features = {}
    for mask in ("paper", "object", "camera"):
        run = Run.create(
            tmp_path / mask, clips=str(clips), queries=str(clips), model=str(small_wan),
            motion__mask=mask, motion__mask_trusted=True,
        )  # fmt: skip
        run.curate()
        assert (run.objective.mask, run.objective.mask_trusted) == (mask, True)
        features[mask] = run.features("clip")
    # A camera that stands still leaves the camera's recipe nothing.
    assert features["camera"].static.sum() > features["paper"].static.sum()
    assert len({f.objective.id for f in features.values()}) == 3
    moving = ~(features["paper"].static | features["object"].static)
    same = (features["paper"].features_nd * features["object"].features_nd).sum(1)[moving]
    assert same.min() < 0.999


def test_a_tracker_without_its_weights_is_refused_before_anything_is_written(
    small_wan: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    words = ("curate", "--clips", clips, "--score-only", "--model", small_wan, "--out", out)
    weights = ("--tracker", "alltracker", "--tracker-checkpoint", tmp_path / "missing.pth")
    assert motive(*words, *weights) == 2
    said = capsys.readouterr().err
    assert "https://huggingface.co/aharley/alltracker" in said
    assert "`--tracker dis` needs none" in said
    assert not out.exists()
