"""A terminal, and a finished run to look at, to copy and to spoil."""

import csv
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from commands import Terminal
from run_files import Finished

from motive.zoo.render import write_mp4

QUERY_ROWS = (1, 2, 6, 7)  # of the rendered clips' metadata.csv


@pytest.fixture(scope="session")
def motive(tmp_path_factory: pytest.TempPathFactory) -> Terminal:
    """Runs `motive` commands in processes of their own, with one thread."""
    os.environ["OMP_NUM_THREADS"] = "1"  # before the server starts, which hands it on
    return Terminal(tmp_path_factory.mktemp("streams"))


@pytest.fixture(scope="session")
def still(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip in which nothing moves and no codec makes it: nine frames of one grey."""
    file = tmp_path_factory.mktemp("still") / "still.mp4"
    write_mp4(file, np.full((9, 32, 32, 3), 128, np.uint8), 16)
    return file


@pytest.fixture(scope="session")
def queries(zoo: Path, still: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A metadata file in a folder of its own: four of the rendered clips, and one without motion."""
    with (zoo / "metadata.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    table = tmp_path_factory.mktemp("queries") / "queries.csv"
    shutil.copy(still, table.parent)
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("file_name", "caption"))
        writer.writerows((found[i]["file_name"], found[i]["caption"]) for i in QUERY_ROWS)
        writer.writerow((still.name, "nothing at all"))
    return table


@pytest.fixture(scope="session")
def finished(
    motive: Terminal,
    small_wan: Path,
    zoo: Path,
    queries: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Finished:
    """Fourteen rendered clips against four of them, half of them selected. Not to be written into."""
    words = ["curate", "--clips", zoo, "--queries", queries, "--media-root", zoo]
    words += ["--model", small_wan, "--fraction", 0.5, "--quiet"]
    path = tmp_path_factory.mktemp("runs") / "finished"
    motive(*words, "--out", path).succeeded()
    return Finished(path, tuple(map(str, words)))


@pytest.fixture
def copied(finished: Finished, tmp_path: Path) -> Path:
    """A copy of the finished run, to be written into."""
    return Path(shutil.copytree(finished.path, tmp_path / "run"))
