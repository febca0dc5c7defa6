"""The ablations as a user runs them, in their short version."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "ablations.py"


def run(out: Path, work: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--quick", "--out", str(out), "--work", str(work)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads((out / "ablations.json").read_text(encoding="utf-8"))


def test_every_part_and_again_from_what_is_there(tmp_path: Path) -> None:
    found = run(tmp_path / "out", tmp_path / "work")
    clips, queries = found["moving"]["clip"], found["moving"]["query"]

    single = found["timesteps"]["single"]
    assert [row["timestep"] for row in single] == [250, 750]
    # Of two, each agrees better with the average that it is part of than with the other alone.
    for row in single:
        assert row["with_all"]["spearman"]["mean"] > row["with_others"]["spearman"]["mean"]
        assert len(row["with_all"]["spearman"]["by_query"]) == queries
    assert found["timesteps"]["paper"]["timestep"] == 751

    kinds = found["projections"]["kinds"]
    assert set(kinds) == {"fastfood", "factored", "countsketch", "rademacher"}
    narrow, wide = (row["spearman"]["mean"] for row in kinds["fastfood"])
    assert narrow < wide
    assert wide > 0.5
    assert kinds["fastfood"][0]["clips"] == clips >= kinds["rademacher"][0]["clips"]
    assert found["projections"]["predicted"] == sorted(found["projections"]["predicted"])

    length = found["length"]
    # The factor changes norms, and no cosine by more than rounding.
    assert length["largest_difference"] < 1e-6
    short, long = (length["mean_norm"]["mean over frames"][f] for f in ("9", "17"))
    scaled = length["mean_norm"]["mean over frames, 1/F"]
    assert scaled["9"] == pytest.approx(short / 9, rel=1e-3)
    assert scaled["17"] == pytest.approx(long / 17, rel=1e-3)

    speed = found["magnitude"]["methods"]["motion magnitude"]["mean speed"]
    assert speed["top"]["mean"] > found["magnitude"]["all"]["mean speed"] > speed["bottom"]["mean"]

    matrix = found["overlap"]["top_100"]["matrix"]
    assert all(matrix[i][i] == 1 for i in range(len(matrix)))
    assert all(0 <= share <= 1 for row in matrix for share in row)

    savings = found["savings"]
    whole, *smaller = savings["samplings"]
    assert all(row["latent_cells"] < whole["latent_cells"] for row in smaller)
    # Only the projection is between the product's features and the whole gradients.
    assert whole["spearman"]["mean"] == pytest.approx(wide, abs=0.2)
    every, *some = savings["parameters"]
    assert every["spearman"]["mean"] == every["share_of_gradient"] == 1
    assert all(0 < row["share_of_gradient"] < 1 for row in some)
    blocks = [row for row in some if row["name"].startswith("block ")]
    outside = next(row for row in some if row["name"] == "outside the blocks")
    parts = [*blocks, outside]
    assert sum(row["share_of_numbers"] for row in parts) == pytest.approx(1)
    assert sum(row["share_of_gradient"] for row in parts) == pytest.approx(1)

    page = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    figures = (
        "timesteps",
        "projections",
        "length",
        "magnitude",
        "overlap",
        "savings",
        "parameters",
    )
    for figure in figures:
        assert f"({figure}.png)" in page
        assert (tmp_path / "out" / f"{figure}.png").stat().st_size > 10_000

    before = _times(tmp_path / "work")
    assert run(tmp_path / "out", tmp_path / "work") == found
    assert _times(tmp_path / "work") == before  # nothing was computed again


def _times(work: Path) -> dict[str, int]:
    folders = ("whole", "corpus/clips/clips", "corpus/queries/clips")
    files = [f for folder in folders for f in (work / folder).iterdir()]
    return {str(f): f.stat().st_mtime_ns for f in [*files, work / "seconds.json"]}
