import csv
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from motive.cli import main
from motive.errors import UserError
from motive.explorer import table_file
from motive.explorer.clip_files import ClipFiles
from motive.explorer.ordering import number_order, text_order
from motive.explorer.query_scores import QueryScores
from motive.explorer.session import Session
from motive.explorer.table import ClipTable, read_table
from motive.explorer.table_file import keep_table, open_table, prepare_table
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
    return ClipTable(ids, numbers, texts, np.zeros(count, bool))


def test_the_table_says_what_the_runs_own_files_say(run: Run) -> None:
    with (run.path / "selection.csv").open(newline="") as file:
        expected = list(csv.DictReader(file))
    motion = run.motion(columns=["key", "mean_speed", "camera_share"])
    table = read_table(run)
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
    first = open_table(run)
    assert not first.was_kept
    keep_table(run, first.table, first.files)
    again = open_table(run)
    assert again.was_kept
    assert [again.table.row(p) for p in range(15)] == [first.table.row(p) for p in range(15)]
    assert again.files.queries == ClipFiles(run).queries
    assert again.files.columns == ClipFiles(run).columns != []
    for name in ("votes", "jerk", "caption", "best_query"):
        for descending in (False, True):
            expected = first.table.order(name, descending=descending).tolist()
            assert again.table.order(name, descending=descending).tolist() == expected
    before = [first.table.row(p) for p in range(15)]
    first.table.move_to(again.table)
    assert [first.table.row(p) for p in range(15)] == before
    with (run.path / "selection.csv").open("a") as file:
        file.write("16,x,x.mp4,one more,0,0.0,q,false\n")
    other = open_table(run)
    assert (len(other.table), other.was_kept) == (16, False)


def test_another_dataset_makes_the_kept_table_stale(run: Run) -> None:
    opened = open_table(run)
    keep_table(run, opened.table, opened.files)
    run.store.members.replace([*run.store.members.rows()])
    assert not open_table(run).was_kept


def test_a_large_run_is_prepared_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    file = run.path / "explorer" / "table.arrow"
    assert not prepare_table(run)  # fifteen clips open at once
    assert not file.exists()
    monkeypatch.setattr(table_file, "_LARGE", 10)
    assert prepare_table(run)
    before = file.stat()
    assert not prepare_table(run)
    assert file.stat() == before
    assert open_table(run).was_kept


@pytest.mark.parametrize("command", ["curate", "select"])
def test_the_commands_prepare_a_large_run(
    run: Run, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr(table_file, "_LARGE", 10)
    words = {"select": ["select", str(run.path)], "curate": ["run", str(run.path / "run.yaml")]}
    with pytest.raises(SystemExit) as ended:
        main([*words[command], "--quiet"])
    assert ended.value.code == 0
    assert open_table(run).was_kept


def test_a_table_that_cannot_be_kept_ends_no_command(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(table_file, "_LARGE", 10)
    (run.path / "explorer").write_text("a file in the way")
    with pytest.raises(SystemExit) as ended:
        main(["select", str(run.path)])
    assert ended.value.code == 0
    assert "its table is not kept" in capsys.readouterr().err


def test_a_torn_file_is_made_anew(run: Run) -> None:
    opened = open_table(run)
    keep_table(run, opened.table, opened.files)
    file = run.path / "explorer" / "table.arrow"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    again = open_table(run)
    assert (len(again.table), again.was_kept) == (15, False)


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
