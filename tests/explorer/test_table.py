import csv
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from motive.errors import UserError
from motive.explorer.ordering import number_order, text_order
from motive.explorer.query_scores import QueryScores
from motive.explorer.session import Session
from motive.explorer.table import ClipTable, read_table
from motive.explorer.table_file import keep_table, open_table
from motive.pipeline import Run

FLOATS = st.sampled_from([0.0, -0.0, 1.5, -2.0, float("nan"), float("inf")]) | st.floats(
    -5, 5, width=32
)


@settings(deadline=None)
@given(hnp.arrays(np.float32, st.integers(0, 40), elements=FLOATS))
def test_numbers_are_sorted_stably_with_nan_last(values: np.ndarray) -> None:
    expected = np.argsort(values, kind="stable")
    assert number_order(values).tolist() == expected.tolist()


@settings(deadline=None)
@given(hnp.arrays(np.int32, st.integers(1, 40), elements=st.integers(-(2**30), 2**30)))
def test_integers_are_sorted_stably(values: np.ndarray) -> None:
    assert number_order(values).tolist() == np.argsort(values, kind="stable").tolist()


@settings(deadline=None)
@given(st.lists(st.sampled_from(["b", "a", "", "ä", "B", "水"]), max_size=30), st.booleans())
def test_texts_are_sorted_stably_also_when_few(texts: list[str], descending: bool) -> None:
    places = sorted(range(len(texts)), key=lambda i: texts[i].encode(), reverse=descending)
    if descending:
        places = sorted(range(len(texts)), key=lambda i: [-b for b in texts[i].encode()] + [1])
    plain = pa.array(texts, pa.string())
    assert text_order(plain, descending).tolist() == places
    assert text_order(plain.dictionary_encode(), descending).tolist() == places


@settings(deadline=None)
@given(
    st.lists(st.text("ab水 É.*[(", max_size=8), min_size=1, max_size=30),
    st.text("aB水é .*[(", max_size=4),
)
def test_a_search_finds_every_word_in_caption_or_name(captions: list[str], text: str) -> None:
    names = [f"{'A' if i % 2 else 'x'}{i}.mp4" for i in range(len(captions))]
    table = _table(captions, names)
    found = table.containing(text)
    for here, caption, name in zip(found, captions, names, strict=True):
        words = text.lower().split()
        assert here == all(w in caption.lower() or w in name.lower() for w in words)


def _table(captions: list[str], names: list[str]) -> ClipTable:
    count = len(captions)
    ids = pa.array([f"{i:020x}" for i in range(count)])
    texts = {"caption": pa.array(captions, pa.string()), "file_name": pa.array(names)}
    numbers = {"rank": np.arange(1, count + 1, dtype=np.int32)}
    return ClipTable(ids, numbers, texts, np.zeros(count, bool), lambda query: np.zeros(count))


def test_the_table_says_what_the_runs_own_files_say(run: Run) -> None:
    with (run.path / "selection.csv").open(newline="") as file:
        expected = list(csv.DictReader(file))
    motion = run.motion(columns=["key", "mean_speed", "camera_share"])
    table = read_table(run, lambda query: np.zeros(0))
    assert len(table) == len(expected) == 15
    for position, row in enumerate(expected):
        found = table.row(position)
        assert found["clip_id"] == row["clip_id"]
        assert (found["caption"], found["file_name"]) == (row["caption"], row["file_name"])
        assert (found["rank"], found["votes"]) == (int(row["rank"]), int(row["votes"]))
        assert found["mean_score"] == pytest.approx(float(row["mean_score"]), rel=1e-6)
        assert found["selected"] == (row["selected"] == "true")
        assert found["mean_speed"] == pytest.approx(motion[row["clip_id"]]["mean_speed"])
        assert table.position(row["clip_id"]) == position


def test_a_kept_table_is_the_same_and_is_not_used_for_another_selection(run: Run) -> None:
    score_of = lambda query: np.zeros(0)  # noqa: E731
    first, kept = open_table(run, score_of)
    assert not kept
    keep_table(run, first)
    again, kept = open_table(run, score_of)
    assert kept
    assert [again.row(p) for p in range(15)] == [first.row(p) for p in range(15)]
    for name in ("votes", "jerk", "caption", "best_query"):
        for descending in (False, True):
            expected = first.order(name, descending=descending).tolist()
            assert again.order(name, descending=descending).tolist() == expected
    before = [first.row(p) for p in range(15)]
    first.move_to(again)
    assert [first.row(p) for p in range(15)] == before
    with (run.path / "selection.csv").open("a") as file:
        file.write("16,x,x.mp4,one more,0,0.0,q,false\n")
    other, kept = open_table(run, score_of)
    assert (len(other), kept) == (16, False)


def test_a_torn_file_is_made_anew(run: Run) -> None:
    table, _ = open_table(run, lambda query: np.zeros(0))
    keep_table(run, table)
    file = run.path / "explorer" / "table.arrow"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    again, kept = open_table(run, lambda query: np.zeros(0))
    assert (len(again), kept) == (15, False)


def test_scores_of_a_query_are_the_files(run: Run, session: Session) -> None:
    from motive.results import open_scores

    file = open_scores(run)
    by_query = dict(zip(file.query_ids, file.rows(), strict=True))
    scores = QueryScores(run, session.table.clip_ids)
    assert scores.query_ids == file.query_ids
    place = {clip_id: i for i, clip_id in enumerate(file.clip_ids)}
    ids = session.table.clip_ids.to_pylist()
    votes = np.zeros(len(ids), int)
    for query, values in by_query.items():
        assert scores.of(query).tolist() == [values[place[i]] for i in ids]
        votes += scores.votes_of(query)
    assert votes.tolist() == session.table.numbers["votes"].tolist()
    with pytest.raises(KeyError):
        scores.of("nothing")


def test_a_run_without_a_selection_is_refused(run: Run) -> None:
    (run.path / "selection.csv").unlink()
    with pytest.raises(UserError, match="motive select"):
        Session(run)


def test_a_selection_that_is_none_is_refused(run: Run) -> None:
    Path(run.path / "selection.csv").write_text("rank,clip_id\n1,x\n")
    with pytest.raises(UserError, match=r"selection\.csv cannot be read"):
        Session(run)
