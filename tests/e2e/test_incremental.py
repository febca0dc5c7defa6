"""Adding a clip or a query to a run computes that one and nothing else."""

import csv
import shutil
from pathlib import Path

import pytest
from commands import Terminal
from run_files import done, failures, rows, scores, selection, snapshot, versions

STAGES = ("ingest", "track", "encode", "encode text", "gradients")


class Dataset:
    """A folder of clips and a folder of queries with sidecar captions, both to be added to."""

    def __init__(self, zoo: Path, folder: Path, model: Path) -> None:
        self.zoo, self.folder = zoo, folder
        with (zoo / "metadata.csv").open(newline="") as file:
            self.zoo_rows = list(csv.DictReader(file))
        words = ("curate", "--clips", folder / "clips", "--queries", folder / "queries")
        self.words = (*words, "--model", model, "--quiet", "--out", folder / "run")

    def add(self, role: str, row: int, caption: str | None = None) -> str:
        """Adds a rendered clip, by its row; returns its name."""
        source = self.zoo / self.zoo_rows[row]["file_name"]
        target = self.folder / role / source.name
        target.parent.mkdir(exist_ok=True)
        shutil.copy2(source, target)
        text = self.zoo_rows[row]["caption"] if caption is None else caption
        target.with_suffix(".txt").write_text(text)
        return target.name


@pytest.fixture
def dataset(zoo: Path, small_wan: Path, tmp_path: Path, motive: Terminal) -> Dataset:
    made = Dataset(zoo, tmp_path, small_wan)
    for row in (0, 1, 2, 3):
        made.add("clips", row)
    made.add("queries", 6)
    motive(*made.words).succeeded()
    return made


def test_nothing_new_computes_nothing(dataset: Dataset, motive: Terminal) -> None:
    run = dataset.folder / "run"
    files, before = snapshot(run), (done(run), versions(run))
    motive(*dataset.words).succeeded()
    assert (done(run), versions(run)) == before
    after = snapshot(run)
    assert files is not None
    assert after is not None
    changed = {name for name in files | after if files.get(name) != after.get(name)}
    assert changed <= {"stages.json", "run.yaml"}


def test_a_new_clip_is_the_only_one_computed(dataset: Dataset, motive: Terminal) -> None:
    run = dataset.folder / "run"
    before, old = done(run), scores(run)
    name = dataset.add("clips", 4)
    motive(*dataset.words).succeeded()
    assert new_rows(before, done(run)) == dict.fromkeys(STAGES, 1)
    assert {row["file_name"] for row in selection(run)} >= {name}
    assert len(selection(run)) == 5
    new = scores(run)
    assert old.items() <= new.items()  # bit for bit: the others' scores do not know of the new one
    assert len(new) == 5


def test_a_new_query_is_the_only_one_computed(dataset: Dataset, motive: Terminal) -> None:
    run = dataset.folder / "run"
    before, old = done(run), scores(run)
    dataset.add("queries", 7)
    motive(*dataset.words).succeeded()
    assert new_rows(before, done(run)) == dict.fromkeys(STAGES, 1)
    assert old.items() <= scores(run).items()
    assert len(scores(run)) == 2 * 4


def test_a_clip_that_becomes_a_query_is_read_but_not_computed_again(
    dataset: Dataset, motive: Terminal
) -> None:
    before = done(dataset.folder / "run")
    dataset.add("queries", 1)  # the same content and the same caption
    motive(*dataset.words).succeeded()
    computed = dict.fromkeys(STAGES, 0) | {"ingest": 1}
    assert new_rows(before, done(dataset.folder / "run")) == computed


def test_a_new_caption_is_a_new_gradient_of_the_same_clip(
    dataset: Dataset, motive: Terminal
) -> None:
    run = dataset.folder / "run"
    before = done(run)
    name = dataset.add("clips", 2, caption="another caption")
    motive(*dataset.words).succeeded()
    computed = dict.fromkeys(STAGES, 0) | {"encode text": 1, "gradients": 1}
    assert new_rows(before, done(run)) == computed
    (row,) = (row for row in selection(run) if row["file_name"] == name)
    assert row["caption"] == "another caption"


def test_a_clip_that_is_taken_away_is_no_longer_ranked(dataset: Dataset, motive: Terminal) -> None:
    run = dataset.folder / "run"
    before = done(run)
    (dataset.folder / "clips" / "000002.mp4").unlink()
    motive(*dataset.words).succeeded()
    assert new_rows(before, done(run)) == dict.fromkeys(STAGES, 0)
    assert sorted(row["file_name"] for row in selection(run)) == [
        "000000.mp4",
        "000001.mp4",
        "000003.mp4",
    ]


def test_a_clip_that_comes_back_is_not_computed_again(dataset: Dataset, motive: Terminal) -> None:
    run, clip = dataset.folder / "run", dataset.folder / "clips" / "000002.mp4"
    before, old = done(run), scores(run)
    away = clip.rename(dataset.folder / clip.name)
    motive(*dataset.words).succeeded()
    assert len(selection(run)) == 3
    away.rename(clip)  # the same file, with its time
    motive(*dataset.words).succeeded()
    assert new_rows(before, done(run)) == dict.fromkeys(STAGES, 0)
    assert scores(run) == old
    # As a copy it is read to be recognised, and no more.
    copy = clip.read_bytes()
    clip.unlink()
    clip.write_bytes(copy)
    motive(*dataset.words).succeeded()
    assert new_rows(before, done(run)) == dict.fromkeys(STAGES, 0) | {"ingest": 1}
    assert scores(run) == old


def test_a_caption_that_was_changed_and_changed_back(dataset: Dataset, motive: Terminal) -> None:
    run, caption = dataset.folder / "run", dataset.folder / "clips" / "000002.txt"
    before, old, text = done(run), scores(run), caption.read_text()
    caption.write_text("another caption")
    motive(*dataset.words).succeeded()
    computed = dict.fromkeys(STAGES, 0) | {"encode text": 1, "gradients": 1}
    assert new_rows(before, done(run)) == computed
    changed = scores(run)
    assert changed.keys() == old.keys()
    assert {clip for (_, clip), score in changed.items() if score != old[_, clip]} == {
        row["clip_id"] for row in selection(run) if row["file_name"] == "000002.mp4"
    }
    caption.write_text(text)
    motive(*dataset.words).succeeded()
    assert new_rows(before, done(run)) == computed
    assert scores(run) == old


def test_a_file_with_new_content_is_another_clip(dataset: Dataset, motive: Terminal) -> None:
    run = dataset.folder / "run"
    counted = done(run)
    before = {row["file_name"]: row["clip_id"] for row in selection(run)}
    shutil.copy(dataset.zoo / dataset.zoo_rows[5]["file_name"], dataset.folder / "clips/000002.mp4")
    motive(*dataset.words).succeeded()
    after = {row["file_name"]: row["clip_id"] for row in selection(run)}
    assert after.keys() == before.keys()
    assert {name for name in after if after[name] != before[name]} == {"000002.mp4"}
    # Its caption is the one that was there.
    assert new_rows(counted, done(run)) == dict.fromkeys(STAGES, 1) | {"encode text": 0}


def test_a_file_under_two_names_is_ranked_once(dataset: Dataset, motive: Terminal) -> None:
    run, before = dataset.folder / "run", done(dataset.folder / "run")
    shutil.copy(dataset.folder / "clips/000001.mp4", dataset.folder / "clips/twin.mp4")
    motive(*dataset.words).succeeded()
    assert len(selection(run)) == 4
    assert failures(run) == [
        {
            "file_name": "twin.mp4",
            "stage": "ingest",
            "reason": "the same content as 000001.mp4",
        }
    ]
    assert new_rows(before, done(run)) == dict.fromkeys(STAGES, 0) | {"ingest": 1}
    assert len({row["key"] for row in rows(run, "features")}) == 5


def new_rows(
    before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]
) -> dict[str, int]:
    """Rows worked on by each of the stages that compute, failed ones too."""
    return {stage: sum(after[stage]) - sum(before[stage]) for stage in STAGES}
