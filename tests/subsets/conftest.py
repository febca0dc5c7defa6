"""A run to choose from: fourteen rendered clips, four queries, one file that does not play."""

import csv
import shutil
from pathlib import Path

import pytest

from motive import Run

QUERY_ROWS = (1, 2, 6, 7)  # of the rendered clips' metadata.csv


@pytest.fixture(scope="session")
def finished_run(zoo: Path, small_wan: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a curated run, a quarter of its clips selected. Not to be written into."""
    folder = tmp_path_factory.mktemp("subsets")
    data = Path(shutil.copytree(zoo, folder / "clips"))
    with (zoo / "metadata.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    (data / "broken.mp4").write_bytes(b"no video")
    for name, chosen in (("metadata.csv", range(len(rows))), ("queries.csv", QUERY_ROWS)):
        with (data / name).open("w", newline="") as file:
            writer = csv.DictWriter(file, ("file_name", "caption", "motion"), extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows[i] for i in chosen)
            if name == "metadata.csv":
                writer.writerow({"file_name": "broken.mp4", "caption": "nothing", "motion": ""})
    run = Run.create(
        folder / "run",
        clips=str(data / "metadata.csv"),
        queries=str(data / "queries.csv"),
        model=str(small_wan),
        selection__fraction=0.25,
    )
    run.curate(report=False)
    return run.path


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Run:
    """A copy of it, to be written into."""
    return Run.open(shutil.copytree(finished_run, tmp_path / "run"))
