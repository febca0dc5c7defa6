"""The account of files: each with what became of it, none twice, none lost."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from motive.runs.members import (
    SCHEMA,
    Facts,
    Member,
    Role,
    ingested,
    load,
    save,
    settle,
    stream,
)
from motive.runs.tables import Row, Table

INGESTED = pa.schema([("clip_id", pa.string()), ("frames", pa.int32()), ("fps", pa.float32())])


def entry(role: Role, name: str, file: str = "", reason: str = "") -> Member:
    return Member(
        role,
        name,
        f"/data/{name}",
        file or f"key of {name}",
        "a caption",
        "cap",
        "{}",
        reason=reason,
    )


def facts(clip_id: str, frames: int = 9) -> Facts:
    return Facts(clip_id, frames, 16.0)


def test_what_ingest_found_is_filled_in() -> None:
    (member,) = settle([entry("clip", "a")], {"key of a": facts("id-a")}, {})
    assert member == replace(entry("clip", "a"), clip_id="id-a", frames=9, fps=16.0)
    assert member.usable
    assert member.feature_key == "id-a:cap"


def test_every_entry_comes_out_once_in_its_place() -> None:
    entries = [
        entry("clip", "a"), entry("clip", "b"), entry("clip", "c"), entry("clip", "d", reason="outside"),
        entry("query", "a"), entry("query", "e"),
    ]  # fmt: skip
    found = {"key of a": facts("1"), "key of c": facts("3")}
    settled = list(settle(entries, found, {"key of b": "the file is empty"}))
    assert [(m.role, m.file_name) for m in settled] == [(m.role, m.file_name) for m in entries]
    assert [m.reason for m in settled] == [
        "",
        "the file is empty",
        "",
        "outside",
        "",
        "it was not ingested",
    ]
    assert [m.usable for m in settled] == [True, False, True, False, True, False]
    assert settled[1].clip_id == settled[3].clip_id == ""


def test_of_files_with_the_same_content_the_first_counts_in_each_role() -> None:
    entries = [entry("clip", n) for n in ("a", "b", "c")] + [entry("query", n) for n in ("b", "d")]
    found = {f"key of {n}": facts("same" if n in "abd" else "other") for n in "abcd"}
    settled = list(settle(entries, found, {}))
    assert [m.reason for m in settled] == [
        "",
        "the same content as a",
        "",
        "",
        "the same content as b",
    ]
    assert {m.clip_id for m in settled} == {"same", "other"}


def test_one_file_may_be_a_clip_and_a_query() -> None:
    entries = [entry("clip", "a"), entry("query", "a")]
    settled = list(settle(entries, {"key of a": facts("1")}, {}))
    assert [m.usable for m in settled] == [True, True]


def test_the_account_survives_its_table(tmp_path: Path) -> None:
    table = Table(tmp_path / "members.lance", SCHEMA)
    assert load(table) == []
    entries = [
        entry("clip", "ü/a.mp4"),
        entry("clip", "b", reason="gone"),
        entry("query", "ü/a.mp4"),
    ]
    members = list(settle(entries, {"key of ü/a.mp4": facts("1")}, {}))
    save(table, members)
    assert load(table) == members


def test_an_unchanged_account_is_not_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = Table(tmp_path / "members.lance", SCHEMA)
    members = list(settle([entry("clip", "a")], {"key of a": Facts("1", 9, 29.97)}, {}))
    # The table keeps 32 bits of a rate; what it gives back must still count as the same.
    members = [
        replace(m, fps=float(r["fps"]))
        for m, r in zip(members, _stored(tmp_path, members), strict=True)
    ]
    save(table, members)
    version = sorted((table.path / "_versions").iterdir())
    save(table, members)
    assert sorted((table.path / "_versions").iterdir()) == version
    save(table, [*members, entry("query", "b", reason="gone")])
    assert len(load(table)) == 2


def _stored(folder: Path, members: list[Member]) -> list[Row]:
    table = Table(folder / "other.lance", SCHEMA)
    save(table, members)
    return list(table.rows())


def test_a_settled_list_may_take_the_place_of_its_entries() -> None:
    entries = [entry("clip", n) for n in "abcb"]
    found = {f"key of {n}": facts(n) for n in "abc"}
    expected = list(settle([*entries], found, {}))
    for place, member in enumerate(settle(entries, found, {})):
        entries[place] = member
    assert entries == expected


def test_more_members_than_are_read_at_once_keep_their_order_and_share_what_is_equal(
    tmp_path: Path,
) -> None:
    table = Table(tmp_path / "members.lance", SCHEMA)
    entries = [entry("clip", f"{i * 7919 % 10_007:05d}") for i in range(10_007)]
    members = list(settle(entries, {e.file: facts(e.file_name) for e in entries}, {}))
    save(table, members)
    read = list(stream(table))
    assert read == load(table) == members
    assert len({id(m.role) for m in read}) < 10
    assert len({id(m.extra) for m in read}) < 10
    version = sorted((table.path / "_versions").iterdir())
    save(table, members)
    assert sorted((table.path / "_versions").iterdir()) == version
    save(table, members[:-1])
    assert load(table) == members[:-1]


def test_only_what_ingest_found_of_these_files_is_read(tmp_path: Path) -> None:
    table = Table(tmp_path / "files.lance", INGESTED)
    rows = [{"key": k, "made_by": "now", **facts(k.upper())._asdict()} for k in "abc"]
    table.append([*rows, {**rows[0], "key": "d", "made_by": "before"}])
    asked = ["".join(["b"]), "d", "x"]
    found = ingested(table, "now", asked)
    assert found == {"b": facts("B")}
    assert next(iter(found)) is asked[0]


def test_a_member_reads_as_it_always_did() -> None:
    # The stamps of finished runs are digests of these texts.
    assert repr(entry("clip", "a", reason="gone")) == (
        "Member(role='clip', file_name='a', path='/data/a', file='key of a', caption='a caption', "
        "caption_id='cap', extra='{}', clip_id='', frames=0, fps=0.0, reason='gone')"
    )
