"""A clip's feature is its own: no other clip, no order and no thread has a part in it."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from commands import Terminal, in_python
from run_files import Finished, clip_ids, features, rows, scores

# Relative. Seen on one machine: order, other clips and failures do not change one bit; two threads
# instead of one change a feature by 9e-9 (matrix products are summed in another order).
TOLERANCE = 1e-5


@pytest.fixture
def rerun(
    motive: Terminal, zoo: Path, small_wan: Path, tmp_path: Path
) -> Callable[[Callable[[list[dict[str, str]]], list[dict[str, str]]]], Path]:
    """Curates the rendered clips with their metadata rearranged; returns the run."""

    def curate(arranged: Callable[[list[dict[str, str]]], list[dict[str, str]]]) -> Path:
        with (zoo / "metadata.csv").open(newline="") as file:
            found = list(csv.DictReader(file))
        table = tmp_path / "clips.csv"
        with table.open("w", newline="") as file:
            writer = csv.DictWriter(file, found[0])
            writer.writeheader()
            writer.writerows(arranged(found))
        words = ("curate", "--clips", table, "--queries", table, "--media-root", zoo)
        run = tmp_path / "run"
        motive(*words, "--model", small_wan, "--out", run, "--quiet").succeeded()
        return run

    return curate


def test_features_do_not_depend_on_the_order_of_clips(
    rerun: Callable[..., Path], finished: Finished
) -> None:
    run = rerun(lambda found: found[::-1])
    assert list(clip_ids(run, "clip")) == list(clip_ids(finished.path, "clip"))[::-1]
    assert_same_features(run, finished.path, count=14)


def test_features_do_not_depend_on_other_clips_in_the_run(
    rerun: Callable[..., Path], finished: Finished
) -> None:
    run = rerun(lambda found: found[3:8])
    assert_same_features(run, finished.path, count=5)
    common = scores(run).keys() & scores(finished.path).keys()
    assert len(common) == 2 * 5  # queries 6 and 7 are in both runs
    assert {pair: scores(run)[pair] for pair in common} == {
        pair: scores(finished.path)[pair] for pair in common
    }


def test_features_do_not_depend_on_a_clip_that_fails(
    rerun: Callable[..., Path], finished: Finished
) -> None:
    missing = {"file_name": "clips/gone.mp4", "caption": "not there"}
    run = rerun(lambda found: [{**found[0], **missing}, *found])
    assert_same_features(run, finished.path, count=14)


def test_features_do_not_depend_on_the_number_of_threads(
    finished: Finished, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    in_python([*finished.words, "--out", run], threads=2).succeeded()
    assert_same_features(run, finished.path, count=15)  # with the query that is no clip


def assert_same_features(run: Path, other: Path, *, count: int) -> None:
    """Features, norms and losses of the clips that both runs have agree to `TOLERANCE`."""
    mine, theirs = features(run), features(other)
    common = sorted(mine.keys() & theirs.keys())
    assert len(common) == count
    for key in common:
        difference = np.linalg.norm(mine[key] - theirs[key])
        assert difference <= TOLERANCE * np.linalg.norm(theirs[key]), key
    numbers = (
        {row["key"]: (row["norm"], row["loss"]) for row in rows(path, "features")}
        for path in (run, other)
    )
    first, second = numbers
    for key in common:
        assert first[key] == pytest.approx(second[key], rel=TOLERANCE)
