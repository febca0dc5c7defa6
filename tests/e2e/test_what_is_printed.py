"""What commands print about a run, whatever its folder is called."""

import csv
import shutil
from pathlib import Path

import pytest
from commands import Terminal
from run_files import Finished

NAME = "mine [/b] [red]ü  run"  # would be markup, and an end of markup that was not begun


@pytest.fixture
def oddly_named(finished: Finished, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished.path, tmp_path / NAME))


def test_a_folder_whose_name_looks_like_markup(
    motive: Terminal, finished: Finished, oddly_named: Path
) -> None:
    info = motive("info", oddly_named).succeeded().out
    assert info.startswith(f"{oddly_named}: 14 clips (")
    assert "5 queries, 1 failure\n" in info
    curated = motive(*finished.words, "--out", oddly_named).succeeded().out
    assert f"1 file could not be used: {oddly_named}/failures.csv" in curated
    assert curated.splitlines()[-1] == f"report: {oddly_named}/report.html"


@pytest.mark.parametrize(
    ("stage", "file"),
    [("score", "scores.parquet"), ("select", "selection.csv"), ("report", "report.html")],
)
def test_a_stage_says_where_its_outcome_is(
    motive: Terminal, oddly_named: Path, stage: str, file: str
) -> None:
    said = motive(stage, oddly_named, "--quiet").succeeded().out
    assert said == f"{stage}: {oddly_named / file}\n"


def test_the_report_counts_what_stages_did_as_info_does(finished: Finished) -> None:
    """Scores are pairs and embedded texts captions: not clips."""
    page = (finished.path / "report.html").read_text()
    assert "Done</th>" in page
    assert "Clips</th>" not in page


def test_clips_without_a_caption_are_counted(
    motive: Terminal, finished: Finished, copied: Path, zoo: Path, tmp_path: Path
) -> None:
    """Captions that were put where no reader looks for them would else be missing in silence."""
    table = tmp_path / "metadata.csv"
    with (zoo / "metadata.csv").open(newline="") as file:
        found = list(csv.DictReader(file))
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("file_name", "caption"))
        writer.writerows(
            (row["file_name"], row["caption"] if i > 2 else "") for i, row in enumerate(found)
        )
    words = list(finished.words)
    words[words.index("--clips") + 1] = str(table)
    said = motive(*words, "--out", copied).succeeded().out
    assert "3 of 14 clips have no caption" in said
    assert "no caption" not in motive(*finished.words, "--out", copied).succeeded().out


def test_a_subset_for_a_folder_that_is_not_there_costs_no_gradient(
    motive: Terminal, copied: Path, tmp_path: Path
) -> None:
    out = tmp_path / "nowhere" / "subset.csv"
    said = motive("subset", copied, "no-mask", "--out", out)
    assert said.complaint == f"{out.parent} is not there: make it, or choose another --out"
