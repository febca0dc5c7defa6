"""The tables: what is appended comes back, for its own settings only, and all or nothing."""

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from motive.errors import UserError
from motive.runs import tables
from motive.runs.tables import Row, Table

SCHEMA = pa.schema(
    [
        ("numbers", pa.list_(pa.float32())),
        ("count", pa.int32()),
        ("text", pa.string()),
        ("yes", pa.bool_()),
    ]
)


@pytest.fixture
def table(tmp_path: Path) -> Table:
    return Table(tmp_path / "tables" / "a.lance", SCHEMA)


def row(key: str, made_by: str = "me", numbers: tuple[float, ...] = (1, 2), text: str = "t") -> Row:
    array = np.array(numbers, np.float32)
    return {
        "key": key,
        "made_by": made_by,
        "numbers": array,
        "count": len(numbers),
        "text": text,
        "yes": True,
    }


def keys_of(table: Table, made_by: str | None = None) -> list[str]:
    return [r["key"] for r in table.rows(made_by)]


def test_a_table_that_is_not_there_is_empty(table: Table) -> None:
    assert not table.exists()
    assert list(table.rows()) == []
    assert table.keys("me") == set()
    assert table.lookup(["a"], "me") == {}
    assert table.count() == 0
    table.tidy()
    table.append([])
    assert not table.path.exists()


def test_rows_come_back_in_order_with_arrays(table: Table) -> None:
    numbers = (0.1, -1e30, float("inf"), 2.0**-140)
    table.append([row("b", numbers=numbers), row("a", numbers=())])
    table.append([row("c", text="ü\n'")])
    found = list(table.rows())
    assert [r["key"] for r in found] == ["b", "a", "c"]
    assert found[0]["numbers"].dtype == np.float32
    assert np.array_equal(found[0]["numbers"], np.array(numbers, np.float32))
    assert len(found[1]["numbers"]) == 0
    assert (found[2]["text"], found[2]["yes"], found[2]["count"]) == ("ü\n'", True, 2)
    assert table.count() == 3
    # Another object sees the same; nothing lives in memory.
    assert keys_of(Table(table.path, SCHEMA)) == ["b", "a", "c"]


def test_many_rows_keep_their_order(table: Table) -> None:
    wanted = [f"{i * 7919 % 1000:04d}" for i in range(300)]
    for start in range(0, 300, 50):
        table.append([row(k) for k in wanted[start : start + 50]])
    assert keys_of(table) == wanted
    assert keys_of(table, "me") == wanted


def test_rows_of_other_settings_are_not_there(table: Table) -> None:
    table.append([row("a", "one", (1,)), row("b", "one"), row("a", "two", (2,))])
    assert table.keys("one") == {"a", "b"}
    assert table.keys("two") == {"a"}
    assert table.keys("three") == set()
    assert keys_of(table, "two") == ["a"]
    assert table.lookup(["a", "b"], "two").keys() == {"a"}
    assert table.lookup(["a"], "one")["a"]["numbers"].tolist() == [1]
    assert table.lookup(["a"], "two")["a"]["numbers"].tolist() == [2]
    assert list(table.rows("on")) == []


awkward = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    [
        "'",
        "''",
        "' OR '1'='1",
        "a\\",
        '"',
        "%",
        "NULL",
        "日本",
        "a\x00b",
        '{"fps": null}',
        "--",
        "\n",
    ]
)


@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(awkward, awkward), min_size=1, max_size=6, unique=True))
def test_any_text_is_a_key(tmp_path: Path, names: list[tuple[str, str]]) -> None:
    table = Table(tmp_path / f"{len(list(tmp_path.iterdir()))}.lance", SCHEMA)
    table.append([row(k, m, (float(i),)) for i, (k, m) in enumerate(names)])
    for i, (key, made_by) in enumerate(names):
        assert table.keys(made_by) == {k for k, m in names if m == made_by}
        assert table.lookup([key], made_by)[key]["numbers"].tolist() == [i]
        assert keys_of(table, made_by) == [k for k, m in names if m == made_by]


def test_lookup_takes_many_keys_and_few_columns(table: Table) -> None:
    table.append([row(f"{i}", numbers=(float(i),)) for i in range(200)])
    found = table.lookup([f"{i}" for i in range(0, 400, 2)] * 2, "me", columns=["numbers"])
    assert found.keys() == {f"{i}" for i in range(0, 200, 2)}
    assert all(r.keys() == {"key", "numbers"} for r in found.values())
    assert all(float(k) == r["numbers"][0] for k, r in found.items())
    assert table.lookup([], "me") == {}
    assert next(table.rows(columns=["key", "yes"])).keys() == {"key", "yes"}


def test_replace_leaves_only_the_new_rows(table: Table) -> None:
    table.append([row("a"), row("b")])
    table.replace([row("c")])
    assert keys_of(table) == ["c"]
    table.replace([])
    assert keys_of(table) == []
    assert table.exists()
    table.append([row("d")])
    assert keys_of(table) == ["d"]


def test_replace_makes_the_table(table: Table) -> None:
    table.replace([row("a")])
    assert keys_of(table) == ["a"]


def test_drop_removes_keys_whoever_made_them(table: Table) -> None:
    table.drop(["a"])
    assert not table.exists()
    table.append([row("a", "one"), row("it's", "one"), row("c", "one"), row("a", "two")])
    table.drop(["a", "it's", "never there"])
    assert [(r["key"], r["made_by"]) for r in table.rows()] == [("c", "one")]
    table.drop([])
    assert table.count() == 1


def test_an_append_is_all_or_nothing(table: Table) -> None:
    table.append([row("a")])
    bad = row("c") | {"count": "many"}
    with pytest.raises((pa.ArrowInvalid, pa.ArrowTypeError)):
        table.append([row("b"), bad])
    assert keys_of(table) == ["a"]


def test_an_append_that_was_cut_off_is_not_seen(table: Table) -> None:
    table.append([row("a")])
    # Data that a killed process left behind without a commit.
    (table.path / "data" / "half-written.lance").write_bytes(b"\x00" * 100)
    assert keys_of(table) == ["a"]
    table.append([row("b")])
    assert keys_of(table) == ["a", "b"]


def test_many_small_appends_are_merged_without_a_change(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "_MANY_FRAGMENTS", 3)
    for i in range(6):
        table.append([row(f"{i}", numbers=(float(i),))])
    before = [(r["key"], r["numbers"].tolist()) for r in table.rows()]
    table.tidy()
    assert [(r["key"], r["numbers"].tolist()) for r in table.rows()] == before
    import lance

    assert len(lance.dataset(str(table.path)).get_fragments()) == 1


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere"
)
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(UserError, match="cannot be written"):
        Table(tmp_path / "locked/a.lance", SCHEMA).append([row("a")])


def test_a_place_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "tables").write_text("in the way")
    table = Table(tmp_path / "tables" / "a.lance", SCHEMA)
    with pytest.raises(UserError) as error:
        table.append([row("a")])
    assert "cannot be written" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_damaged_table_says_what_to_do(table: Table) -> None:
    table.append([row("a")])
    for manifest in (table.path / "_versions").iterdir():
        manifest.write_bytes(b"garbage")
    with pytest.raises(UserError, match=r"cannot be read .*: remove that folder and run again"):
        table.keys("me")


def test_a_table_of_another_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    old = Table(tmp_path / "t.lance", pa.schema([("shape", pa.list_(pa.int32()))]))
    old.append([{"key": "a", "made_by": "m", "shape": [1]}])
    new = Table(tmp_path / "t.lance", pa.schema([("shapes", pa.list_(pa.int32()))]))
    for use in (
        lambda: new.keys("m"),
        lambda: list(new.rows()),
        lambda: new.append([{"key": "b", "made_by": "m", "shapes": [1]}]),
    ):
        with pytest.raises(UserError, match="written by another version of motive"):
            use()
    assert [row["key"] for row in old.rows()] == ["a"]


def test_what_a_table_lacks_of_some_keys(table: Table) -> None:
    assert table.without(pa.array(["a"]), "me").to_pylist() == ["a"]
    table.append([row("a"), row("b"), row("c", made_by="other")])
    assert table.without(pa.array(["a", "d", "c", "d"]), "me").to_pylist() == ["d", "c", "d"]
    assert table.has(pa.array(["a", "d", "b"]), "me").tolist() == [True, False, True]
    assert len(table.without(pa.array([], pa.string()), "me")) == 0


def test_keys_are_compared_in_parts(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("motive.runs.tables.COMPARED", 3)
    for i in range(0, 20, 2):
        table.append([row(f"{i:02d}"), row(f"{i:02d}", made_by="other")])
    keys = pa.array([f"{i:02d}" for i in range(25)])
    assert table.has(keys, "me").tolist() == [i < 20 and i % 2 == 0 for i in range(25)]


def test_dropping_what_is_not_there_writes_nothing(table: Table) -> None:
    table.append([row("a")])
    version = table.open().version
    table.drop([f"k{i}" for i in range(200_000)])
    table.drop(["a"], "other")
    assert table.open().version == version
    table.drop([*(f"k{i}" for i in range(200_000)), "a"])
    assert table.count() == 0
