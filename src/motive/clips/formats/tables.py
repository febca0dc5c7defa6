"""Metadata tables: CSV, JSON lists, JSON lines and Parquet, one row per clip."""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from motive.clips.formats.documents import (
    opened_text,
    read_json,
    require_readable,
    unique_keys,
)
from motive.clips.formats.entries import Entries
from motive.clips.formats.source import Source
from motive.errors import UserError

TABLE_SUFFIXES = frozenset({".csv", ".json", ".jsonl", ".parquet"})
#: Metadata that governs the folder in which it lies.
METADATA_NAMES = ("metadata.csv", "metadata.json", "metadata.jsonl", "metadata.parquet")
#: Where a caption is looked for when the format does not fix the column.
CAPTION_COLUMNS = ("caption", "text", "prompt")
_PARQUET_ROWS, _PARQUET_BYTES = 256, 2**28  # of one batch; the most that it may be in memory


@dataclass(frozen=True, slots=True)
class Row:
    """where: for messages. fault: why the row cannot be used, although it could be read."""

    where: str
    values: dict[str, object]
    fault: str | None = None


@dataclass(frozen=True)
class Table:
    """columns: all columns that any row has, in order of appearance.

    rows: to be read once, some of them as they are asked for.
    """

    path: Path
    columns: tuple[str, ...]
    rows: Iterator[Row]


def read_table(path: Path) -> Table:
    """A table, whose rows are read from the file as they are asked for where a header names the columns.

    Raises UserError, with the line, when it cannot be parsed, at the latest when its rows are read.
    """
    if path.suffix.lower() in (".csv", ".parquet"):
        return Table(path, tuple(dict.fromkeys(_header(path))), _rows(path))
    rows = list(_rows(path))
    columns = tuple(dict.fromkeys(column for row in rows for column in row.values))
    return Table(path, columns, iter(rows))


def columns_of(path: Path) -> tuple[str, ...]:
    """The columns of a table's header or first row; empty when the file is no table."""
    suffix = path.suffix.lower()
    if suffix in (".csv", ".parquet"):
        return _header(path)
    if suffix in (".json", ".jsonl"):
        return next((tuple(row.values) for row in _rows(path)), ())
    return ()


def is_table(path: Path) -> bool:
    """Whether a file is meant as a table: by its suffix, but JSON may hold anything else."""
    suffix = path.suffix.lower()
    return suffix in TABLE_SUFFIXES and (suffix != ".json" or bool(columns_of(path)))


def find_table(source: Source, column: str) -> Path | None:
    """The table with this column that the source is, or that governs the source's folder.

    A folder is governed by a `metadata` file, else by the one `.jsonl` file in it that has the
    column. Raises UserError when the choice is not clear.
    """
    if not source.is_folder:
        return source.path if column in columns_of(source.path) else None
    found = [path for path in source.top(*METADATA_NAMES) if column in columns_of(path)]
    if not found:
        found = [
            path
            for path in sorted(source.folder.glob("*.jsonl"))
            if path.name not in METADATA_NAMES and column in _columns_or_none(path)
        ]
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise UserError(f"{source.path} holds {names}: pass the one that you mean.")
    return found[0] if found else None


def add_table(
    entries: Entries,
    path: Path,
    column: str,
    *,
    captions: tuple[str, ...] = CAPTION_COLUMNS,
    extra: dict[str, object] | None = None,
) -> None:
    """Adds every row of a table: the file that `column` names, its caption, its other columns.

    The caption column is the first of `captions` that the table has; names are relative to the
    table's folder.
    """
    table = read_table(path)
    if column not in table.columns:
        have = ", ".join(table.columns) or "none"
        raise UserError(f"{path} has no column {column!r} (it has {have}): rename the right one.")
    caption = next((name for name in captions if name in table.columns), None)
    for row in table.rows:
        others = {k: v for k, v in row.values.items() if k not in (column, caption)}
        entries.add(
            row.values.get(column),
            where=row.where,
            folder=path.parent,
            caption=row.values.get(caption) if caption else "",
            extra={**others, **(extra or {})},
            fault=row.fault,
        )


def _columns_or_none(path: Path) -> tuple[str, ...]:
    """Columns of a file that merely lies there and may be anything, such as a log."""
    try:
        return columns_of(path)
    except UserError:
        return ()


def _header(path: Path) -> tuple[str, ...]:
    if path.suffix.lower() == ".csv":
        try:
            with opened_text(path) as file:
                header = next((row for row in csv.reader(file, strict=True) if row), [])
        except csv.Error as error:
            raise UserError(f"{path} is not valid CSV ({error}): correct its header.") from error
        if len(set(header)) != len(header):
            raise UserError(f"{path} has two columns of one name: rename one of them.")
        return tuple(header)
    return tuple(_parquet(path).schema_arrow.names)


def _rows(path: Path) -> Iterator[Row]:
    suffix = path.suffix.lower()
    if suffix == ".csv":
        yield from _csv_rows(path)
    elif suffix == ".jsonl":
        yield from _jsonl_rows(path)
    elif suffix == ".json":
        value = read_json(path)
        for index, item in enumerate(value if isinstance(value, list) else [], start=1):
            if isinstance(item, dict):
                yield Row(f"{path.name}, item {index}", item)
            else:
                raise UserError(f"{path} holds an item that is no object ({index}): remove it.")
    else:
        yield from _parquet_rows(path)


def _csv_rows(path: Path) -> Iterator[Row]:
    header = _header(path)
    with opened_text(path) as file:
        reader = csv.reader(file, strict=True)
        try:
            next((row for row in reader if row), [])
            for cells in reader:
                if not cells:
                    continue
                fault = None
                # The usual cause is a comma in a caption without quotes: keeping what stands before
                # it would train on a caption that nobody wrote.
                if len(cells) > len(header):
                    fault = (
                        f"has {len(cells)} fields in {path.name}, line {reader.line_num}, where the "
                        f"header has {len(header)}: put quotes around a text with commas"
                    )
                values: dict[str, object] = dict(zip(header, cells, strict=False))
                yield Row(f"{path.name}, line {reader.line_num}", values, fault)
        except csv.Error as error:
            raise UserError(
                f"{path} is not valid CSV (line {reader.line_num}: {error}): correct that line."
            ) from error


def _jsonl_rows(path: Path) -> Iterator[Row]:
    # Split at line feeds alone: U+2028 and its like may stand unescaped in a JSON string.
    with opened_text(path, newline="\n") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                item = json.loads(line, object_pairs_hook=unique_keys)
            except (ValueError, RecursionError) as error:
                raise UserError(
                    f"{path} is not valid JSON lines (line {number}: {error}): correct that line."
                ) from error
            if not isinstance(item, dict):
                raise UserError(f"{path} holds no object in line {number}: correct that line.")
            yield Row(f"{path.name}, line {number}", item)


def _parquet_rows(path: Path) -> Iterator[Row]:
    import pyarrow

    file = _parquet(path)
    number = 0
    try:
        # Small batches: a page of a kilobyte may stand for gigabytes of one text again and again.
        for batch in file.iter_batches(_PARQUET_ROWS):
            if batch.nbytes > _PARQUET_BYTES:
                raise UserError(
                    f"{path} has {_PARQUET_ROWS} rows of {batch.nbytes:,} bytes: its texts are too long."
                )
            for item in batch.to_pylist():
                number += 1
                yield Row(f"{path.name}, row {number}", item)
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _bad_parquet(path, error) from error


def _parquet(path: Path):  # type: ignore[no-untyped-def]
    """The open `pyarrow.parquet.ParquetFile`, whose package has no types."""
    import pyarrow
    from pyarrow import parquet

    require_readable(path)
    try:
        return parquet.ParquetFile(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise _bad_parquet(path, error) from error


def _bad_parquet(path: Path, error: Exception) -> UserError:
    reason = " ".join(str(error).split())
    return UserError(f"{path} cannot be read as Parquet ({reason}): write it again.")
