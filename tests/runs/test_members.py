"""The account of files: each with what became of it, none twice, none lost."""

import tracemalloc
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motive.runs import placed, settling
from motive.runs.members import SCHEMA, ByClipId, Member, Members, Role, as_row, save
from motive.runs.placed import BLOCK, Placed, Snapshot, Spool
from motive.runs.tables import Table

INGESTED = pa.schema([("clip_id", pa.string()), ("frames", pa.int32()), ("fps", pa.float32())])
Facts = tuple[str, int, float]


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
    return clip_id, frames, 16.0


@pytest.fixture
def ingest(tmp_path: Path) -> Table:
    (tmp_path / "run" / "tables").mkdir(parents=True)
    return Table(tmp_path / "run" / "tables" / "files.lance", INGESTED)


def settle(
    ingest: Table,
    entries: Sequence[Member],
    found: Mapping[str, Facts],
    failed: Mapping[str, str] | None = None,
) -> list[Member]:
    names = ("clip_id", "frames", "fps")
    rows = [
        {"key": key, "made_by": "now", **dict(zip(names, facts, strict=True))}
        for key, facts in found.items()
    ]
    ingest.append(rows)
    return list(settling.settle(Members.of(entries), ingest, "now", failed or {}))


def test_what_ingest_found_is_filled_in(ingest: Table) -> None:
    (member,) = settle(ingest, [entry("clip", "a")], {"key of a": facts("id-a")})
    assert member == replace(entry("clip", "a"), clip_id="id-a", frames=9, fps=16.0)
    assert member.usable
    assert member.feature_key == "id-a:cap"


def test_every_entry_comes_out_once_in_its_place(ingest: Table) -> None:
    entries = [
        entry("clip", "a"), entry("clip", "b"), entry("clip", "c"), entry("clip", "d", reason="outside"),
        entry("query", "a"), entry("query", "e"),
    ]  # fmt: skip
    found = {"key of a": facts("1"), "key of c": facts("3"), "key of d": facts("4")}
    settled = settle(ingest, entries, found, {"key of b": "the file is empty"})
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


def test_of_files_with_the_same_content_the_first_counts_in_each_role(ingest: Table) -> None:
    entries = [entry("clip", n) for n in ("a", "b", "c", "e")]
    entries += [entry("query", n) for n in ("b", "d")]
    found = {f"key of {n}": facts("same" if n in "abde" else "other") for n in "abcde"}
    settled = settle(ingest, entries, found)
    assert [m.reason for m in settled] == [
        "",
        "the same content as a",
        "",
        "the same content as a",
        "",
        "the same content as b",
    ]
    assert {m.clip_id for m in settled} == {"same", "other"}


def test_one_file_may_be_a_clip_and_a_query(ingest: Table) -> None:
    entries = [entry("clip", "a"), entry("query", "a")]
    assert [m.usable for m in settle(ingest, entries, {"key of a": facts("1")})] == [True, True]


@settings(deadline=None)
@given(data=st.data())
def test_settling_in_parts_is_settling_one_by_one(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Against a loop with a dictionary, whatever fits into memory at once."""
    folder = tmp_path_factory.mktemp("settling")
    (folder / "run" / "tables").mkdir(parents=True)
    ingest = Table(folder / "run" / "tables" / "files.lance", INGESTED)
    names = data.draw(st.lists(st.sampled_from("abcdefgh"), max_size=12))
    roles = data.draw(st.lists(st.sampled_from(["clip", "query"]), min_size=12, max_size=12))
    faults = data.draw(st.lists(st.sampled_from(["", "", "outside"]), min_size=12, max_size=12))
    files = data.draw(st.dictionaries(st.sampled_from("abcdefgh"), st.sampled_from("xyz")))
    failed = data.draw(st.dictionaries(st.sampled_from("abcdefgh"), st.just("broken")))
    entries = [
        entry(role, f"{i}-{name}", f"key of {name}", fault)
        for i, (name, role, fault) in enumerate(zip(names, roles, faults, strict=False))
    ]
    found = {f"key of {name}": facts(content) for name, content in files.items()}
    reasons = {f"key of {name}": reason for name, reason in failed.items()}
    expected, first = [], dict[tuple[str, str], str]()
    for one in entries:
        if not one.reason and one.file in found:
            clip_id, frames, fps = found[one.file]
            same = first.setdefault((one.role, clip_id), one.file_name)
            reason = "" if same == one.file_name else f"the same content as {same}"
            one = replace(one, clip_id=clip_id, frames=frames, fps=fps, reason=reason)
        elif not one.reason:
            one = replace(one, reason=reasons.get(one.file, "it was not ingested"))
        expected.append(one)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settling, "_TOGETHER", data.draw(st.integers(1, 5)))
        assert settle(ingest, entries, found, reasons) == expected


def test_the_account_survives_its_table(ingest: Table) -> None:
    table = Table(ingest.path.with_name("members.lance"), SCHEMA)
    assert list(Members.stored(table)) == []
    entries = [
        entry("clip", "ü/a.mp4"),
        entry("clip", "b", reason="gone"),
        entry("query", "ü/a.mp4"),
    ]
    members = settle(ingest, entries, {"key of ü/a.mp4": facts("1")})
    save(table, Members.of(members))
    assert list(Members.stored(table)) == members
    assert [row["key"] for row in table.rows()] == ["clip:ü/a.mp4", "clip:b", "query:ü/a.mp4"]


def test_an_unchanged_account_is_not_written_again(ingest: Table) -> None:
    table = Table(ingest.path.with_name("members.lance"), SCHEMA)
    # The table keeps 32 bits of a rate; what it gives back must still count as the same.
    members = settle(ingest, [entry("clip", "a")], {"key of a": ("1", 9, 29.97)})
    save(table, Members.of(members))
    version = sorted((table.path / "_versions").iterdir())
    save(table, Members.of(members))
    assert sorted((table.path / "_versions").iterdir()) == version
    save(table, Members.of([*members, entry("query", "b", reason="gone")]))
    assert len(Members.stored(table)) == 2
    save(table, Members.of(members))
    assert list(Members.stored(table)) == members


def many(count: int) -> list[Member]:
    return [
        replace(
            entry("query" if i % 7 == 0 else "clip", f"{i * 7919 % 10_007:05d}"),
            clip_id=f"{i * 31 % 10_007:05d}",
            reason="gone" if i % 5 == 0 else "",
        )
        for i in range(count)
    ]


@pytest.mark.parametrize("where", ["memory", "file", "table"])
def test_members_are_the_same_wherever_they_lie(ingest: Table, where: str) -> None:
    expected = many(BLOCK * 2 + 17)
    rows: Placed = placed.Held(pa.Table.from_pylist(list(map(as_row, expected)), schema=SCHEMA))
    if where == "file":
        rows = spool = Spool(SCHEMA)
        for member in expected:
            spool.append(as_row(member))
    elif where == "table":
        table = Table(ingest.path.with_name("members.lance"), SCHEMA)
        save(table, Members.of(expected))
        rows = Snapshot(table)
    members = Members(rows)
    assert len(members) == len(expected)
    assert list(members) == expected
    assert members[5000] == expected[5000]
    assert members[-1] == expected[-1]
    assert list(members[4000:9000:13]) == expected[4000:9000:13]
    usable = [m for m in expected if m.usable and m.role == "clip"]
    assert list(members.usable("clip")) == usable
    assert list(members.of_role("query")) == [m for m in expected if m.role == "query"]
    backwards = members.usable().take(np.arange(len(members.usable()))[::-1])
    assert list(backwards) == [m for m in expected if m.usable][::-1]
    assert backwards.column("feature_key").to_pylist() == [m.feature_key for m in backwards]
    few = members.take(np.array([8000, 3, 4096, 3]))
    assert few.column("path").to_pylist() == [expected[i].path for i in (8000, 3, 4096, 3)]
    assert list(few.sorted_by("clip_id")) == sorted(
        {m.clip_id: m for m in few}.values(), key=lambda m: m.clip_id
    )
    clips = ByClipId(members.usable("clip"))
    assert list(clips) == [m.clip_id for m in usable]
    assert clips[usable[70].clip_id] == usable[70]
    assert "no such id" not in clips
    with pytest.raises(KeyError, match="no such id"):
        clips["no such id"]
    asked = [usable[i].clip_id for i in (900, 2, 30)]
    assert list(clips.those(asked)) == [usable[i] for i in (900, 2, 30)]
    with pytest.raises(KeyError, match="no such id"):
        clips.those([*asked, "no such id"])


def test_blocks_are_full_whatever_they_are_made_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placed, "BLOCK", 4)
    for sizes in ([], [0, 3], [4, 4], [1, 1, 1, 1, 1], [9, 0, 2], [3, 6, 4]):
        numbers = iter(range(100))
        batches = [pa.record_batch({"n": [next(numbers) for _ in range(size)]}) for size in sizes]
        blocks = [block["n"].to_pylist() for block in placed.in_blocks(batches)]
        assert list(chain(*blocks)) == list(range(sum(sizes)))
        assert all(len(block) == 4 for block in blocks[:-1])
        assert all(0 < len(block) <= 4 for block in blocks)


def test_a_snapshot_does_not_change(ingest: Table) -> None:
    table = Table(ingest.path.with_name("members.lance"), SCHEMA)
    save(table, Members.of(many(5000)))
    before = Members.stored(table)
    save(table, Members.of(many(10)))
    assert list(before) == many(5000)
    assert list(Members.stored(table)) == many(10)


def test_members_that_stream_share_what_is_equal(ingest: Table) -> None:
    read = list(Members.of(many(3000)))
    assert len({id(m.role) for m in read}) < 10
    assert len({id(m.extra) for m in read}) < 10


def test_a_member_reads_as_it_always_did() -> None:
    # The stamps of finished runs are digests of these texts.
    assert repr(entry("clip", "a", reason="gone")) == (
        "Member(role='clip', file_name='a', path='/data/a', file='key of a', caption='a caption', "
        "caption_id='cap', extra='{}', clip_id='', frames=0, fps=0.0, reason='gone')"
    )


def test_memory_does_not_hold_what_is_known_of_many_members(ingest: Table) -> None:
    """With texts of 2 KB a member: what more members take is ids and places."""
    tracemalloc.start()
    try:
        few, many = _held(ingest, 30_000), _held(ingest, 60_000)
    finally:
        tracemalloc.stop()
    assert few > 30e6  # blocks of members: what does not grow was measured too
    assert (many - few) / 30_000 < 300


def _held(ingest: Table, count: int) -> int:
    """The most bytes, of Python and of Arrow, while an account is settled, saved, read and put in order."""
    caption, spool = "w" * 2000, Spool(SCHEMA)
    for i in range(count):
        one = replace(entry("clip", f"{i:06d}.mp4"), caption=caption, clip_id=f"{i:020x}")
        spool.append(as_row(one))
    table = Table(ingest.path.with_name(f"members-{count}.lance"), SCHEMA)
    tracemalloc.reset_peak()
    save(table, settling.settle(Members(spool), ingest, "now", {}))
    members = Members.stored(table)
    ids = members.column("clip_id")
    backwards = ByClipId(members).those(ids.take(pa.array(np.arange(count)[::-1])))
    for i, member in enumerate(backwards):
        assert member.file_name == f"{count - 1 - i:06d}.mp4"
        assert member.caption == caption
    # Arrow's own peak is since the start, and so not less than this one's.
    return tracemalloc.get_traced_memory()[1] + int(pa.default_memory_pool().max_memory())
