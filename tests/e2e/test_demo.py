"""The demo, as `make demo` runs it but on two corpora, one of them in a process beside."""

import json
import os
import subprocess
import sys
from pathlib import Path

METHODS = ["Motive", "Motive without the mask", "motion magnitude", "random"]


def test_demo_ends_with_a_check_against_the_truth(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    done = subprocess.run(
        [sys.executable, "-m", "motive.cli", "demo", "--out", str(out), "--seeds", "2"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    check = json.loads((out / "check.json").read_text())["check"]
    share = {row["method"]: row["precision"] for row in check}
    assert list(share) == METHODS
    assert all(0 <= value <= 1 for value in share.values())
    # One of fourteen kinds is chance; jitter and pans are what moves most, and no query shows them.
    assert share["motion magnitude"] < share["Motive"]
    for method in METHODS:
        assert method in done.stdout
        assert method in (out / "report.html").read_text(encoding="utf-8")
