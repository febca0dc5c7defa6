"""Lists of clips: read back as they were written, and every fault named."""

import csv
from pathlib import Path

import pytest

from motive import Run, UserError
from motive.subsets import Subset, choose_subset, write_subset


def test_a_written_subset_reads_back(run: Run, tmp_path: Path) -> None:
    subset = choose_subset(run, "random", seed=3, fraction=0.5)
    write_subset(run, subset, tmp_path / "random.csv")
    again = choose_subset(run, str(tmp_path / "random.csv"))
    assert again.clip_ids == subset.clip_ids
    with (tmp_path / "random.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["rank"] for row in rows] == [str(i) for i in range(1, 8)]
    assert {row["selected"] for row in rows} == {"true"}
    members = run.usable("clip")
    assert [row["file_name"] for row in rows] == [members[c].file_name for c in subset.clip_ids]


def test_of_a_selection_csv_the_selected_count(run: Run) -> None:
    chosen = choose_subset(run, str(run.path / "selection.csv"))
    assert chosen.clip_ids == choose_subset(run, "selection").clip_ids


def test_a_text_names_files_or_clips(run: Run, tmp_path: Path) -> None:
    first, second = list(run.usable("clip").values())[:2]
    (tmp_path / "list.txt").write_text(f"\n{second.clip_id}\n  {first.file_name}\r\n")
    assert choose_subset(run, str(tmp_path / "list.txt")).clip_ids == (
        second.clip_id,
        first.clip_id,
    )


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.txt", "clips/000000.mp4\nnowhere.mp4\n", "'nowhere.mp4', which is no clip of"),
        ("a.txt", "broken.mp4\n", "'broken.mp4', which the run could not use"),
        ("a.txt", "clips/000000.mp4\nclips/000000.mp4\n", "'clips/000000.mp4' more than once"),
        ("a.txt", "\n \n", "lists no clip"),
        ("a.csv", "name\nclips/000000.mp4\n", "has no column clip_id or file_name"),
        ("a.csv", "file_name,selected\nclips/000000.mp4,yes\n", "line 2, has 'yes' for selected"),
        ("a.csv", "file_name,selected\nclips/000000.mp4,false\n", "lists no clip"),
    ],
)
def test_faults_are_named(run: Run, tmp_path: Path, name: str, content: str, words: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=words):
        choose_subset(run, str(tmp_path / name))


def test_more_refusals(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(UserError, match="it is not UTF-8"):
        choose_subset(run, str(tmp_path / "a.txt"))
    (tmp_path / "b.txt").write_text("clips/000000.mp4\n")
    with pytest.raises(UserError, match="leave the fraction out"):
        choose_subset(run, str(tmp_path / "b.txt"), fraction=0.5)
    subset = Subset("mine", (next(iter(run.usable("clip"))),), "")
    for out in (tmp_path, tmp_path / "nowhere" / "a.csv"):
        with pytest.raises(UserError, match="choose another --out"):
            write_subset(run, subset, out)
