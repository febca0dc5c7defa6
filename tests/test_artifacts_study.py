"""The study of artifacts: its detectors, its measures of a ranking, and a short version of the whole."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

from artifact_detectors import fix_detectors, measures  # noqa: E402
from artifact_retrieval import _Task  # noqa: E402

from motive.zoo.artifacts import ARTIFACTS, HOSTS, faulty_clip  # noqa: E402
from motive.zoo.motions import KINDS  # noqa: E402
from motive.zoo.scene import draw_scene, render_frames  # noqa: E402


def labelled(seed: int) -> list[tuple[str, str, dict[str, float]]]:
    good = [
        ("", kind, measures(render_frames(draw_scene(kind, 17, seed=seed, index=i))))
        for i, kind in enumerate((*KINDS, *HOSTS.values()))
    ]
    bad = [
        (a, HOSTS[a], measures(faulty_clip(a, 17, seed=seed, index=i).frames()))
        for a in ARTIFACTS
        for i in range(3)
    ]
    return good + bad


def test_detectors_tell_bad_clips_from_good_ones_that_they_have_not_seen() -> None:
    detectors = fix_detectors(labelled(21), labelled(22))
    for artifact in ARTIFACTS:
        assert detectors.errors[artifact]["missed"] <= 0.34
        assert detectors.errors[artifact]["false_in_all"] <= 0.06
    grey = measures(np.full((17, 64, 64, 3), 90, np.uint8))
    assert not any(detectors.sees(artifact, grey) for artifact in ARTIFACTS)


def test_area_and_precision_of_a_ranking() -> None:
    found = np.array([1, 1, 0, 0, 0], bool)
    task = _Task(found, ~found)
    assert task.auc(np.array([5.0, 4, 3, 2, 1])) == 1
    assert task.auc(np.array([5.0, 1, 4, 3, 2])) == pytest.approx(0.5)
    assert task.auc(np.zeros(5)) == 0.5
    assert task.precision(np.array([5.0, 1, 4, 3, 2])) == 0.5
    assert task.precision(np.zeros(5)) == pytest.approx(2 / 5)
    only_some = _Task(found, np.array([0, 0, 1, 0, 0], bool))
    assert only_some.precision(np.array([5.0, 4, 3, 9, 9])) == 1


def test_the_short_study_runs(tmp_path: Path) -> None:
    command = [
        *(sys.executable, ROOT / "scripts" / "artifacts.py", "--quick"),
        *("--out", tmp_path / "out", "--work", tmp_path / "work"),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out" / "artifacts.json").read_text())
    arms = ["base", "all", "found removed", "random removed", "planted removed"]
    assert list(found["rates"]) == arms
    assert found["retrieval"].keys() == {"base", "tuned"}
    rendered = found["retrieval"]["tuned"]["rendered"]
    assert {"motive", "no-mask", "motion-statistics"} <= rendered.keys()
    assert rendered["motive"].keys() >= {"all", "teleport"}
    assert 0 <= rendered["motive"]["all"]["auc"][0] <= 1
    assert 1 <= len(found["dropped"]["clips"]) <= 4
    page = (tmp_path / "out" / "README.md").read_text()
    assert "| planted removed |" in page
    for figure in ("artifacts.png", "examples.png"):
        assert (tmp_path / "out" / figure).stat().st_size > 10_000
