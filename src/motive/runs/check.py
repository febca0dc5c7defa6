"""Is what a run keeps whole? Its tables, file by file and row by row, and the files around them.

What the rows mean together is looked at in `motive.integrity`.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from motive.errors import UserError
from motive.runs.checksums import Checksums
from motive.runs.claims import is_over, read_claims
from motive.runs.locks import locked
from motive.runs.remote import RemotePath, RunPath
from motive.runs.tables import READ_AHEAD, Table

Level = Literal["damage", "unfinished", "litter", "remark"]
UNIT_TOLERANCE = 1e-4  # of a feature's length: float32 rounding is a hundredth of it
_END_OF_MANIFEST = b"LANC"
AGAIN = "motive check --mend, and the run's command again"


@dataclass
class Finding:
    """Something that is not as it should be.

    level: `damage` loses or falsifies results until it is mended, `unfinished` and `litter` do not; a
        `remark` is nothing to be mended and leaves a run sound.
    mend: how it is mended.
    mended: what was done about it; empty when nothing was.
    """

    level: Level
    where: str
    what: str
    mend: str
    mended: str = ""

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


def check_table(table: Table, *, mend: bool, alone: bool) -> Iterator[Finding]:
    """Everything about one table that can be said without knowing what its rows mean.

    mend: do what is safe: what was computed can be computed again.
    alone: nobody else works on the run: files that no version names may be removed.
    """
    if not table.exists():
        return
    name = table.path.name
    try:
        dataset = table.open()
    except UserError as error:
        text = str(error)
        finding = Finding("damage", name, text.split(":")[0], text.partition(": ")[2] or AGAIN)
        if mend and "newer version" not in text and isinstance(table.path, Path):
            finding.mended = _drop_last_version(table)
        yield finding
        if not finding.mended:
            return
        dataset = table.open()
    table = Table(table.path, _own_columns(dataset))
    damaged = False
    for finding, fragment in _fragments(table, dataset):
        if mend and fragment is not None:
            table.drop_fragment(fragment)
            finding.mended = "its rows were dropped: the next run makes them again"
        elif mend:
            table.tidy()
            finding.mended = "they could be read, and their checksums were noted"
        damaged = damaged or fragment is not None
        yield finding
    if damaged and not mend:
        return  # what follows reads every row
    yield from _rows(table, mend)
    if isinstance(table.path, Path):
        yield from _orphans(table, mend and alone, alone)


def _own_columns(dataset: Any) -> pa.Schema:
    return pa.schema([field for field in dataset.schema if field.name not in ("key", "made_by")])


def _fragments(table: Table, dataset: Any) -> Iterator[tuple[Finding, int | None]]:
    """Fragments whose files are not what was written, or cannot be read to the end."""
    sums = Checksums(table.path) if isinstance(table.path, Path) else None
    written = sums.read() if sums else {}
    without = 0
    for fragment in dataset.get_fragments():
        files = [file.path for file in fragment.data_files()]
        reason = ""
        for file in files if sums else []:
            try:
                if file not in written:
                    without += 1
                elif sums is not None and sums.of(file) != written[file]:
                    reason = f"{file} is not what was written (its checksum differs)"
            except OSError as error:
                reason = f"{file} cannot be read ({error.strerror})"
        reason = reason or _unreadable(fragment)
        if reason:
            what = f"{fragment.count_rows()} rows are damaged: {reason}"
            yield Finding("damage", table.path.name, what, AGAIN), fragment.fragment_id
    if without:
        yield (
            Finding(
                "remark",
                table.path.name,
                f"{without} files have no checksum: an older version wrote them, or a kill came between",
                "motive check --mend notes them, and so does the next write into the table",
            ),
            None,
        )


def _unreadable(fragment: Any) -> str:
    try:
        # Little is read ahead: by itself Lance would take two gigabytes for it.
        for batch in fragment.to_batches(
            batch_size=16, batch_readahead=1, io_buffer_size=READ_AHEAD
        ):
            batch.validate(full=True)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # Lance's own panics are no Exceptions
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return f"it cannot be read ({lines[0][:120]})"
    return ""


def _rows(table: Table, mend: bool) -> Iterator[Finding]:
    """Rows that are there twice, and features that are none."""
    for (key, made_by), count in _repeated(table).items():
        rows = [row for row in table.rows(made_by) if row["key"] == key]
        equal = all(_same(rows[0], row) for row in rows[1:])
        finding = Finding(
            "damage",
            table.path.name,
            f"{key} is there {count} times, {'with equal rows' if equal else 'with other values'}",
            AGAIN,
        )
        if mend:
            table.drop([key], made_by)
            finding.mended = "both were dropped: the next run makes it again"
            if equal:
                table.append(rows[:1])
                finding.mended = "one was kept"
        yield finding
    if {"feature", "norm", "static"} <= set(table.schema.names):
        yield from _features(table, mend)


def _repeated(table: Table) -> dict[tuple[str, str], int]:
    """The pairs of key and maker that several rows have, and how many; eight bytes a row are held."""
    hashes = np.sort(np.fromiter(map(hash, _pairs(table)), np.int64))
    alike = set(hashes[1:][hashes[1:] == hashes[:-1]].tolist())
    if not alike:
        return {}
    found = Counter(pair for pair in _pairs(table) if hash(pair) in alike)
    return {pair: count for pair, count in found.items() if count > 1}


def _pairs(table: Table) -> Iterator[tuple[str, str]]:
    for batch in table.batches(None, ["key", "made_by"]):
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _features(table: Table, mend: bool) -> Iterator[Finding]:
    for batch in table.batches(None, ["key", "made_by", "feature", "norm", "static"]):
        length_n = _lengths(batch["feature"])
        unit_n = np.abs(length_n - 1) <= UNIT_TOLERANCE
        unit_n |= (length_n == 0) & batch["static"].to_numpy(zero_copy_only=False)
        unit_n &= np.isfinite(batch["norm"].to_numpy())
        for i in np.flatnonzero(~unit_n):
            key, made_by = batch["key"][int(i)].as_py(), batch["made_by"][int(i)].as_py()
            what = f"the feature of {key} has the length {length_n[i]:g} and not 1"
            finding = Finding("damage", table.path.name, what, AGAIN)
            if mend:
                table.drop([key], made_by)
                finding.mended = "it was dropped: the next run makes it again"
            yield finding


def _lengths(features: pa.Array) -> np.ndarray:
    """The lengths of features `(N,)` float64, nan of one that has a number which is none."""
    dims = set(features.value_lengths().to_pylist())
    if len(dims) == 1 and None not in dims:
        features_nd = features.flatten().to_numpy().reshape(len(features), *dims)
        lengths = np.linalg.norm(features_nd.astype(np.float64), axis=1)
    else:
        lengths = np.array(
            [np.linalg.norm(np.array(f or [np.nan], float)) for f in features.to_pylist()]
        )
    return np.where(np.isfinite(lengths), lengths, np.nan)


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    def bits(value: Any) -> Any:
        return (value.dtype.str, value.tobytes()) if isinstance(value, np.ndarray) else repr(value)

    return one.keys() == other.keys() and all(bits(one[n]) == bits(other[n]) for n in one)


def _orphans(table: Table, mend: bool, alone: bool) -> Iterator[Finding]:
    """Files in the table's folder that no version names: what kills leave behind."""
    assert isinstance(table.path, Path)
    orphans = _unnamed(table, table.path)
    if not orphans:
        return
    size = sum(file.stat().st_size for file in orphans) / 2**20
    finding = Finding(
        "litter" if alone else "remark",
        table.path.name,
        f"{len(orphans)} files of {size:.1f} MB belong to no version"
        + ("" if alone else "; a process that is at work may be about to name them"),
        "motive check --mend" if alone else "look again when no process is at work",
    )
    if mend:
        with locked(table.path.with_suffix(".lock")):  # nobody is in the middle of a commit
            for file in _unnamed(table, table.path):
                file.unlink(missing_ok=True)
        finding.mended = "they were removed"
    yield finding


def _unnamed(table: Table, path: Path) -> list[Path]:
    named = {row["path"] for row in table.open().tracked_files().read_all().to_pylist()}
    return [
        file
        for folder in ("data", "_deletions")
        for file in sorted((path / folder).glob("**/*"))
        if file.is_file() and str(file.relative_to(path)) not in named
    ]


def _drop_last_version(table: Table) -> str:
    """Remove the newest versions' lists, if they are cut off, until one can be read.

    Any other reason, such as a disk that does not answer for a moment, is no reason to remove a thing.
    """
    assert isinstance(table.path, Path)
    dropped = 0
    manifests = sorted((table.path / "_versions").glob("*.manifest"), key=_age)
    for manifest in manifests[:-1]:
        if manifest.read_bytes().endswith(_END_OF_MANIFEST):
            return ""
        manifest.unlink()
        dropped += 1
        try:
            table.open()
        except UserError:
            continue
        return f"the last {dropped} versions were dropped: the next run makes their rows again"
    return ""


def _age(manifest: Path) -> int:
    """Small for new ones: names count down from the largest number of 64 bits, older ones up."""
    number = int(manifest.stem)
    return number if number > 2**63 else 2**63 - number


def check_claims(run: RunPath, *, mend: bool) -> tuple[list[Finding], int]:
    """Claims of processes that are dead, and how many are at work."""
    findings: list[Finding] = []
    living = 0
    if isinstance(run, RemotePath) or not any(run.glob("claims/*/*.json")):
        return findings, living
    with locked(run / "claims" / "claims.lock"):
        for folder in sorted((run / "claims").glob("*/")):
            now = _clock(folder)
            for claim in read_claims(folder):
                if not is_over(claim, now):
                    living += 1
                    continue
                finding = Finding(
                    "litter",
                    f"claims/{folder.name}",
                    f"process {claim.process.pid} claimed {len(claim.keys)} and is dead",
                    "the next run takes them over",
                )
                if mend:
                    claim.file.unlink(missing_ok=True)
                    finding.mended = "the claim was removed"
                findings.append(finding)
    return findings, living


def _clock(folder: Path) -> float:
    """The time now, by the clock of the disk."""
    probe = folder / ".clock"
    probe.touch()
    try:
        return probe.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def check_parts(folder: RunPath, *, mend: bool, alone: bool) -> Iterator[Finding]:
    """Files that processes left half-written."""
    if isinstance(folder, RemotePath):
        yield Finding(
            "remark",
            "tables",
            "on an object store, which checks its objects itself, checksums and files that no version "
            "names are not looked at",
            f"to look at them, copy the run to a disk (aws s3 sync {folder} {folder.name}) and check that",
        )
        return
    parts = [*folder.glob(".*.part"), *folder.glob("claims/*/.*.part")]
    for part in parts if alone else []:
        finding = Finding("litter", part.name, "was never finished", "motive check --mend")
        if mend:
            part.unlink(missing_ok=True)
            finding.mended = "it was removed"
        yield finding


def stored_tables(folder: RunPath) -> list[Table]:
    """Every table of the run, whoever made it."""
    tables = folder / "tables"
    found = tables.children() if isinstance(tables, RemotePath) else sorted(tables.glob("*"))
    return [Table(path, pa.schema([])) for path in found if path.name.endswith(".lance")]
