"""The study of Table 1: its truth about videos, and a short version of the whole."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from motion_classifier import object_identity  # noqa: E402

from motive.zoo.motions import KINDS, PAPER_MOTIONS  # noqa: E402
from motive.zoo.scene import draw_scene, render_frames  # noqa: E402


def rendered(kind: str, index: int) -> np.ndarray:
    return render_frames(draw_scene(kind, 17, seed=9, index=index, camera="none"))


def test_rendered_objects_stay_themselves_and_others_do_not() -> None:
    clips = [rendered(kind, i) for i, kind in enumerate(PAPER_MOTIONS)]
    whole = [object_identity(clip) for clip in clips]
    assert min(whole) > 0.95
    # Every frame from another clip: the object changes all the time.
    mixed = np.stack([clips[f % len(clips)][f] for f in range(17)])
    assert object_identity(mixed) < 0.45
    # It leaves after half of the clip.
    gone = clips[6].copy()
    gone[9:] = 60
    assert object_identity(gone) == pytest.approx(9 / 17 * object_identity(clips[6][:9]), abs=0.02)
    assert object_identity(np.full((17, 64, 64, 3), 60, np.uint8)) == 0


def test_the_short_study_runs(tmp_path: Path) -> None:
    command = [
        *(sys.executable, ROOT / "scripts" / "table1.py", "--quick"),
        *("--out", tmp_path / "out", "--work", tmp_path / "work"),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out" / "table1.json").read_text())
    arms = ["base", "full", "random", "magnitude", "motion-statistics", "no-mask", "motive"]
    arms += ["motion-effect"]
    assert list(found["arms"]) == arms
    assert {"asked_motion", "object_identity", "jerk", "motion_loss"} <= set(
        found["arms"]["motive"]["dimensions"]
    )
    assert {"dynamic_degree", "motion_smoothness"} <= set(found["missing"])
    assert found["chosen"]["full"]["share_of_motions"] == pytest.approx(0.4)
    assert len(found["chosen"]["full"]["kinds"]) == len(KINDS)
    with (tmp_path / "out" / "table1.csv").open(newline="") as file:
        assert {row["arm"] for row in csv.DictReader(file)} == set(arms)
    page = (tmp_path / "out" / "README.md").read_text()
    assert "V-JEPA 2, which are not here" in page
    assert (tmp_path / "out" / "table1.png").stat().st_size > 10_000
