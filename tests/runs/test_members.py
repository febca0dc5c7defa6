"""The account of files: each with what became of it, none twice, none lost."""

from dataclasses import replace
from pathlib import Path

import pytest

from motive.runs.members import SCHEMA, Member, Role, load, save, settle
from motive.runs.tables import Row, Table


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


def ingested(clip_id: str, frames: int = 9) -> Row:
    return {"clip_id": clip_id, "frames": frames, "fps": 16.0}


def test_what_ingest_found_is_filled_in() -> None:
    (member,) = settle([entry("clip", "a")], {"key of a": ingested("id-a")}, {})
    assert member == replace(entry("clip", "a"), clip_id="id-a", frames=9, fps=16.0)
    assert member.usable
    assert member.feature_key == "id-a:cap"


def test_every_entry_comes_out_once_in_its_place() -> None:
    entries = [
        entry("clip", "a"), entry("clip", "b"), entry("clip", "c"), entry("clip", "d", reason="outside"),
        entry("query", "a"), entry("query", "e"),
    ]  # fmt: skip
    found = {"key of a": ingested("1"), "key of c": ingested("3")}
    settled = settle(entries, found, {"key of b": "the file is empty"})
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
    found = {f"key of {n}": ingested("same" if n in "abd" else "other") for n in "abcd"}
    settled = settle(entries, found, {})
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
    settled = settle(entries, {"key of a": ingested("1")}, {})
    assert [m.usable for m in settled] == [True, True]


def test_the_account_survives_its_table(tmp_path: Path) -> None:
    table = Table(tmp_path / "members.lance", SCHEMA)
    assert load(table) == []
    members = settle(
        [entry("clip", "ü/a.mp4"), entry("clip", "b", reason="gone"), entry("query", "ü/a.mp4")],
        {"key of ü/a.mp4": ingested("1")},
        {},
    )
    save(table, members)
    assert load(table) == members


def test_an_unchanged_account_is_not_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = Table(tmp_path / "members.lance", SCHEMA)
    members = settle([entry("clip", "a")], {"key of a": {**ingested("1"), "fps": 29.97}}, {})
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
