"""What is wrong with a table is found and mended, and nothing else is touched."""

import os
import shutil
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from motive.errors import UserError
from motive.runs import tables
from motive.runs.check import Finding, check_claims, check_parts, check_table
from motive.runs.claims import Claims, read_claims
from motive.runs.tables import Row, Table

SCHEMA = pa.schema(
    [("feature", pa.list_(pa.float32(), 64)), ("norm", pa.float64()), ("static", pa.bool_())]
)


def row(key: str, made_by: str = "me") -> Row:
    feature = np.random.default_rng(int(key)).standard_normal(64)
    unit = (feature / np.linalg.norm(feature)).astype(np.float32)
    return {"key": key, "made_by": made_by, "feature": unit, "norm": 1.0, "static": False}


@pytest.fixture
def table(tmp_path: Path) -> Table:
    """Three fragments of ten rows."""
    made = Table(tmp_path / "tables" / "features.lance", SCHEMA)
    for block in range(3):
        made.append([row(f"{block}{n}") for n in range(10)])
    return made


def check(table: Table, *, mend: bool = False, alone: bool = True) -> list[Finding]:
    return list(check_table(table, mend=mend, alone=alone))


def keys_of(table: Table) -> list[str]:
    return [r["key"] for r in table.rows()]


def second_file(table: Table) -> Path:
    fragment = table.open().get_fragments()[1]
    return Path(str(table.path)) / "data" / fragment.data_files()[0].path


def force(table: Table, rows: list[Row], mode: str = "append") -> None:
    """Write past what keeps keys apart."""
    import lance

    lance.write_dataset(pa.Table.from_pylist(rows, schema=table.schema), str(table.path), mode=mode)


def test_a_sound_table_has_no_findings(table: Table) -> None:
    assert check(table) == []
    assert check(Table(table.path.parent / "none.lance", SCHEMA)) == []


@pytest.mark.parametrize("damage", ["truncated", "flipped", "gone", "zeroed"])
def test_a_damaged_fragment_is_dropped_alone(table: Table, damage: str) -> None:
    file = second_file(table)
    content = bytearray(file.read_bytes())
    if damage == "truncated":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        content[200] ^= 1  # the lowest bit of a number: no reader would complain
        file.write_bytes(content)
    elif damage == "gone":
        file.unlink()
    else:
        file.write_bytes(bytes(len(content)))
    (finding,) = check(table)
    assert finding.level == "damage"
    assert file.name in finding.what
    assert not finding.mended
    assert any(f.mended for f in check(table, mend=True))
    assert keys_of(table) == [f"{block}{n}" for block in (0, 2) for n in range(10)]
    assert [f for f in check(table) if f.level == "damage"] == []
    # The rerun: what is missing, and nothing else, is written again.
    assert table.append([row(f"{block}{n}") for block in range(3) for n in range(10)]) == 10
    assert check(table) == []


def test_a_flipped_bit_is_found_after_fragments_were_merged(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "_MANY_FRAGMENTS", 2)
    table.tidy()
    (fragment,) = table.open().get_fragments()
    file = Path(str(table.path)) / "data" / fragment.data_files()[0].path
    content = bytearray(file.read_bytes())
    content[500] ^= 16
    file.write_bytes(content)
    (finding,) = check(table)
    assert "checksum" in finding.what


def test_equal_rows_become_one_and_others_none(table: Table) -> None:
    other = {**row("11"), "feature": row("12")["feature"]}
    force(table, [row("00"), other, row("01", "another")])
    found = check(table)
    assert sorted(f.what for f in found if "there 2 times" in f.what) == [
        "00 is there 2 times, with equal rows",
        "11 is there 2 times, with other values",
    ]
    check(table, mend=True)
    kept = keys_of(table)
    assert kept.count("00") == 1
    assert kept.count("11") == 0
    assert kept.count("01") == 2  # made by two
    assert check(table) == []


@pytest.mark.parametrize("wrong", ["longer", "not a number", "zero but it moves"])
def test_a_feature_that_is_none_is_dropped(table: Table, wrong: str) -> None:
    feature = row("99")["feature"]
    spoilt = {"longer": feature * 1.01, "not a number": feature * np.nan}.get(wrong, feature * 0)
    static = {**row("98"), "feature": feature * 0, "static": True}
    table.append([{**row("99"), "feature": spoilt}, static])
    (finding,) = check(table)
    assert "99" in finding.what
    check(table, mend=True)
    assert "99" not in keys_of(table)
    assert "98" in keys_of(table)
    assert check(table) == []


def test_files_that_no_version_names_are_removed_when_nobody_works(table: Table) -> None:
    orphan = Path(str(table.path)) / "data" / "half-written.lance"
    orphan.write_bytes(b"\x00" * 100)
    before = keys_of(table)
    (finding,) = check(table, mend=True, alone=False)
    assert finding.level == "remark"
    assert orphan.exists()
    (finding,) = check(table)
    assert finding.level == "litter"
    assert orphan.exists()
    check(table, mend=True)
    assert not orphan.exists()
    assert keys_of(table) == before
    assert check(table) == []


def test_a_version_that_cannot_be_read_is_dropped(table: Table) -> None:
    manifests = sorted((Path(str(table.path)) / "_versions").glob("*.manifest"))
    manifests[0].write_bytes(b"garbage")  # the newest: their numbers count down
    (finding,) = check(table)
    assert finding.level == "damage"
    check(table, mend=True)
    assert keys_of(table) == [f"{block}{n}" for block in (0, 1) for n in range(10)]
    assert check(table) == []


def test_a_table_that_cannot_be_read_for_another_reason_is_left_alone(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    import lance

    def away(*words: object, **options: object) -> None:
        raise OSError("the server does not answer")

    before = sorted((Path(str(table.path)) / "_versions").iterdir())
    with monkeypatch.context() as patched:
        patched.setattr(lance, "dataset", away)
        (finding,) = check(table, mend=True)
    assert (finding.level, finding.mended) == ("damage", "")
    assert sorted((Path(str(table.path)) / "_versions").iterdir()) == before
    assert check(table) == []


def test_an_old_table_without_checksums_is_sound_and_gets_them(table: Table) -> None:
    sums = Path(str(table.path)).with_suffix(".sums")
    sums.unlink()
    old = Table(table.path, SCHEMA)
    (remark,) = check(old)
    assert remark.level == "remark"
    check(old, mend=True)
    assert len(sums.read_text().splitlines()) == 3
    assert check(old) == []


def test_a_list_of_checksums_that_was_broken_off_goes_on(table: Table) -> None:
    sums = Path(str(table.path)).with_suffix(".sums")
    text = sums.read_text()
    sums.write_text(text[:-10])
    Table(table.path, SCHEMA).append([row("90")])
    assert check(table) == []


def test_the_dead_are_found_and_buried(tmp_path: Path) -> None:
    with Claims(tmp_path, "track", "x") as claims:
        claims.take(lambda others: {"a"})
        assert check_claims(tmp_path, mend=False) == ([], 1)
        (claim,) = read_claims(next(tmp_path.glob("claims/track-*")))
        os.utime(claim.file, (1, 1))
        findings, living = check_claims(tmp_path, mend=True)
        assert (len(findings), living) == (1, 0)
        assert not claim.file.exists()


def test_half_written_files(tmp_path: Path) -> None:
    part = tmp_path / ".run.yaml.1-000000000000.part"
    part.touch()
    assert list(check_parts(tmp_path, mend=True, alone=False)) == []
    assert len(list(check_parts(tmp_path, mend=False, alone=True))) == 1
    assert part.exists()
    list(check_parts(tmp_path, mend=True, alone=True))
    assert not part.exists()


def test_a_copied_table_is_as_sound_as_the_first(table: Table, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(table.path.parent, tmp_path / "copy")) / "features.lance"
    assert check(Table(copy, SCHEMA)) == []


def of_a_newer_lance(table: Table) -> None:
    """Set a flag in the newest version that no Lance knows yet (a field of its protobuf message)."""
    manifest = min((Path(str(table.path)) / "_versions").glob("*.manifest"))
    content = manifest.read_bytes()
    start = struct.unpack("<Q", content[-16:-8])[0]
    end = start + 4 + struct.unpack("<I", content[start : start + 4])[0]
    reader_flags = b"\x48\x80\x80\x80\x80\x01"
    message = content[start + 4 : end] + reader_flags
    new = content[:start] + struct.pack("<I", len(message)) + message + content[end:]
    manifest.write_bytes(new)


def test_a_table_of_a_newer_lance_is_named_and_left_alone(table: Table) -> None:
    of_a_newer_lance(table)
    before = {f: f.read_bytes() for f in Path(str(table.path)).rglob("*") if f.is_file()}
    for use in (lambda: keys_of(table), lambda: table.append([row("90")])):
        with pytest.raises(UserError, match=r"written by a newer version .*: update them"):
            use()
    (finding,) = check(table, mend=True)
    assert (finding.level, finding.mended) == ("damage", "")
    assert "newer version" in finding.what
    assert {f: f.read_bytes() for f in Path(str(table.path)).rglob("*") if f.is_file()} == before


def test_a_table_of_a_newer_motive_is_not_written_into(table: Table) -> None:
    old = Table(table.path, pa.schema(list(SCHEMA)[:-1]))
    without = {name: value for name, value in row("90").items() if name != "static"}
    with pytest.raises(UserError, match="another version of motive"):
        old.append([without])
    assert len(keys_of(Table(table.path, pa.schema([])))) == 30
