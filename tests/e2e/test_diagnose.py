"""A model's own videos as unwanted queries, from the terminal to the list of what is kept."""

import csv
import json
import shutil
from pathlib import Path

import pytest
from commands import Terminal
from run_files import rows

ARTIFACT = "a shape that jumps-0.mp4"


@pytest.fixture(scope="module")
def generated(zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `motive generate` leaves it, one of its videos marked as unwanted."""
    folder = tmp_path_factory.mktemp("generated")
    videos = []
    for row, prompt in ((1, "a shape that bounces"), (2, "a shape that jumps")):
        name = f"{prompt}-0.mp4"
        shutil.copy(zoo / "clips" / f"{row:06d}.mp4", folder / name)
        videos.append({"file_name": name, "prompt": prompt, "seed": 0})
    videos[1]["polarity"] = "unwanted"
    (folder / "generation.json").write_text(json.dumps({"videos": videos}))
    return folder


def test_generated_videos_are_queries_and_their_teachers_are_dropped(
    motive: Terminal, zoo: Path, small_wan: Path, generated: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    motive(
        *("curate", "--clips", zoo, "--queries", generated, "--model", small_wan),
        *("--out", run, "--quiet"),
    ).succeeded()
    queries = {r["file_name"]: r for r in rows(run, "members") if r["role"] == "query"}
    assert queries[ARTIFACT]["caption"] == "a shape that jumps"
    assert json.loads(queries[ARTIFACT]["extra"]) == {"seed": 0, "polarity": "unwanted"}

    kept = tmp_path / "kept.csv"
    said = motive("diagnose", run, "--drop-top", 2, "--out", kept).succeeded().out
    assert ARTIFACT in said.replace("\n", " ")
    assert "12 clips kept" in said
    with (run / "diagnosis.csv").open(newline="") as file:
        suspects = list(csv.DictReader(file))
    assert suspects[0]["file_name"] == "clips/000002.mp4"  # the very clip that was copied
    dropped = {s["clip_id"] for s in suspects[:2]}
    again = tmp_path / "again.csv"
    motive("subset", run, kept, "--out", again).succeeded()
    assert again.read_text() == kept.read_text()
    with kept.open(newline="") as file:
        left = {row["clip_id"] for row in csv.DictReader(file)}
    assert left == {s["clip_id"] for s in suspects} - dropped

    named = motive("diagnose", run, "--query", ARTIFACT, "--json").succeeded().out
    assert [s["clip_id"] for s in json.loads(named)["suspects"]] == [s["clip_id"] for s in suspects]
    complaint = motive("diagnose", run, "--query", "no such.mp4").complaint
    assert complaint.startswith(f"'no such.mp4' is no query of {run}")
    assert "both --drop-top and --out" in motive("diagnose", run, "--drop-top", 1).complaint
