"""Locks in a folder that is moved or removed, as a run's may be while it is worked on."""

import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from motive.errors import UserError
from motive.runs.locks import locked
from motive.runs.tables import Table

SCHEMA = pa.schema([("value", pa.int64())])
GONE = "moved or removed meanwhile; put it back and run the same command again"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    made = tmp_path / "run"
    made.mkdir()
    return made


def test_a_folder_that_goes_while_the_lock_is_held_is_said(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=GONE), locked(run / "claims" / "a.lock"):
        run.rename(tmp_path / "away")
    assert not run.exists()


def test_it_is_the_reason_of_whatever_failed_then(run: Path, tmp_path: Path) -> None:
    def write() -> None:
        run.rename(tmp_path / "away")
        (run / "claims").mkdir(parents=True)  # as a library may that writes there
        raise OSError("Unable to rename file")

    with pytest.raises(UserError, match=GONE), locked(run / "claims" / "a.lock"):
        write()


def test_another_failure_stays_what_it_is(run: Path) -> None:
    with pytest.raises(OSError, match="no space"), locked(run / "claims" / "a.lock"):
        raise OSError("no space")


def test_a_run_that_is_gone_is_not_begun_anew(run: Path, tmp_path: Path) -> None:
    table = Table(run / "tables" / "a.lance", SCHEMA)
    row = {"key": "a", "made_by": "me", "value": 1}
    assert table.append([row]) == 1
    run.rename(tmp_path / "away")
    reads = (
        lambda: table.keys("me"),
        lambda: table.follow("me"),
        lambda: list(table.rows("me")),
        lambda: table.columns("me", ["key"]),
        lambda: table.lookup(["a"], "me"),
        lambda: table.append([row]),
    )
    for use in reads:
        with pytest.raises(UserError, match=GONE):
            use()
    assert not run.exists()
    (tmp_path / "away").rename(run)
    assert table.keys("me") == {"a"}


WARNED = """
import sys, motive.runs.tables, lance, pyarrow
lance.write_dataset(pyarrow.table({"a": [1]}), sys.argv[1], mode="append")
"""


def test_lance_prints_no_lines_of_its_own(tmp_path: Path) -> None:
    """Asked to append to what is not there it warns, as when the folder goes in the middle of a commit."""
    words = [sys.executable, "-c", WARNED, str(tmp_path / "a.lance")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
