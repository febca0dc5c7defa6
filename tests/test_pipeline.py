"""A run from end to end through the Python API."""

import csv
from pathlib import Path

from motive import Run


def test_curate_accounts_for_every_file(small_wan: Path, zoo: Path, tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", clips=str(zoo), queries=str(zoo), model=str(small_wan))
    run.curate()
    ranked = [row["file_name"] for row in run.selection()]
    failed = [name for name, _, _ in run.failures()]
    names = [row["file_name"] for row in csv.DictReader((zoo / "metadata.csv").open())]
    assert sorted(ranked) == sorted(names)
    assert set(failed) <= set(names)
    assert (run.path / "report.html").stat().st_size > 10_000
