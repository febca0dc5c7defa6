"""A terminal, and a finished run to look at, to copy and to spoil."""

import os
import shutil
from pathlib import Path

import pytest
from commands import Terminal
from run_files import Finished

# One file of queries for the rendered clips: these rows of its metadata.csv, of which 10 is static.
QUERY_ROWS = (1, 2, 6, 7, 10)


@pytest.fixture(scope="session")
def motive() -> Terminal:
    """Runs `motive` commands in processes of their own, with one thread."""
    os.environ["OMP_NUM_THREADS"] = "1"  # before the server starts, which hands it on
    return Terminal()


@pytest.fixture(scope="session")
def queries(zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A metadata file in a folder of its own that names five of the rendered clips."""
    lines = (zoo / "metadata.csv").read_text().splitlines()
    file = tmp_path_factory.mktemp("queries") / "queries.csv"
    file.write_text("\n".join([lines[0], *(lines[1 + row] for row in QUERY_ROWS)]) + "\n")
    return file


@pytest.fixture(scope="session")
def finished(
    motive: Terminal,
    small_wan: Path,
    zoo: Path,
    queries: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Finished:
    """Fourteen rendered clips against five of them, half of them selected. Not to be written into."""
    words = ["curate", "--clips", zoo, "--queries", queries, "--media-root", zoo]
    words += ["--model", small_wan, "--fraction", 0.5, "--quiet"]
    path = tmp_path_factory.mktemp("runs") / "finished"
    motive(*words, "--out", path).succeeded()
    return Finished(path, tuple(map(str, words)))


@pytest.fixture
def copied(finished: Finished, tmp_path: Path) -> Path:
    """A copy of the finished run, to be written into."""
    return Path(shutil.copytree(finished.path, tmp_path / "run"))
