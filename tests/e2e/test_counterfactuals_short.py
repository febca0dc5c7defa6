"""The counterfactual studies as a user runs them, in their short version."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


def run(script: str, out: Path, work: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(SCRIPTS / script), "--quick", "--out", str(out), "--work", str(work)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (file,) = out.glob("*.json")
    return json.loads(file.read_text())


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("counterfactuals")


def test_counterfactuals_and_then_estimators_on_the_same_trainings(work: Path) -> None:
    found = run("counterfactuals.py", work / "out", work / "work")
    (corpus,) = found["corpora"]
    losses = np.array(corpus["raw"]["losses"])  # seeds, subsets, queries, kinds
    assert losses.shape == (2, 4, corpus["queries"], 2)
    assert (losses > 0).all()
    # Trainings on other subsets, and of other seeds, end elsewhere; the masked loss is a part of the plain.
    assert len({round(float(x), 9) for x in losses[:, :, 0, 1].ravel()}) == 8
    assert (losses[..., 0] < losses[..., 1]).all()
    assert all(len(row) == 4 for row in corpus["raw"]["members"])
    for method in corpus["methods"].values():
        assert -1 <= method["masked"]["lds"] <= 1
        assert len(method["plain"]["by_query"]) == corpus["queries"]
    assert corpus["methods"]["same motion label (oracle)"]["precision"]["mean"] > 0.5
    assert corpus["over_paper"]["Motive (paper)"]["masked"] == [0, 0, 0]
    assert set(corpus["removal"]) >= {"random", "effect", "Motive (paper)"}
    page = (work / "out" / "README.md").read_text(encoding="utf-8")
    assert "| motion-effect |" in page
    assert (work / "out" / "counterfactuals.png").stat().st_size > 10_000

    trainings = {f: f.stat().st_mtime_ns for f in (work / "work" / "41" / "retraining").iterdir()}
    found = run("estimators.py", work / "estimators", work / "work")
    (other,) = found["corpora"]
    mine = other["dims"]["512"]
    assert mine["Motive (paper)"]["masked"]["lds"] == pytest.approx(
        corpus["methods"]["Motive (paper)"]["masked"]["lds"]
    )
    assert mine["no metric, dot"]["masked"] != mine["effect"]["masked"]
    after = {f: f.stat().st_mtime_ns for f in (work / "work" / "41" / "retraining").iterdir()}
    assert after == trainings  # nothing was trained again
