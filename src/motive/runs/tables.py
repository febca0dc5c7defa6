"""The run's tables, in Lance: appendable, versioned, each append atomic.

Every row carries `key`, what it is about, and `made_by`, the fingerprint of the stage and settings that
made it. A row counts as done only for its own `made_by`, so that nothing made with other settings is
ever taken for this run's.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from motive.errors import UserError

Row = dict[str, Any]
KEY_COLUMNS = [pa.field("key", pa.string()), pa.field("made_by", pa.string())]
_MANY_FRAGMENTS = 64  # more of them are merged when a stage ends


class Table:
    """One Lance table of a run.

    schema: the columns beside `key` and `made_by`. A column of lists of numbers takes flat arrays.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path = path
        self.schema = pa.schema([*KEY_COLUMNS, *schema])

    def exists(self) -> bool:
        # A first write that was broken off leaves the folder and no version in it.
        return any((self.path / "_versions").glob("*.manifest"))

    def append(self, rows: Sequence[Row]) -> None:
        """Commit `rows` all together or not at all.

        Raises UserError when the disk is full or cannot be written.
        """
        if rows:
            self._write(pa.Table.from_pylist(list(rows), schema=self.schema), "append")

    def replace(self, rows: Sequence[Row]) -> None:
        """Commit `rows` in place of all that was there."""
        self._write(pa.Table.from_pylist(list(rows), schema=self.schema), "overwrite")

    def keys(self, made_by: str) -> set[str]:
        """The keys of the rows made by `made_by`."""
        if not self.exists():
            return set()
        found = self._open().to_table(columns=["key"], filter=_made_by(made_by))
        return set(found.column("key").to_pylist())

    def rows(
        self, made_by: str | None = None, *, columns: list[str] | None = None
    ) -> Iterator[Row]:
        """Rows in the order in which they were written, a batch at a time."""
        if not self.exists():
            return
        wanted = None if made_by is None else _made_by(made_by)
        for batch in self._open().to_batches(columns=columns, filter=wanted, batch_size=64):
            yield from _as_rows(batch)

    def lookup(
        self, keys: Sequence[str], made_by: str, *, columns: list[str] | None = None
    ) -> dict[str, Row]:
        """The rows of `keys` made by `made_by`; keys without a row are left out."""
        if not keys or not self.exists():
            return {}
        wanted = f"{_made_by(made_by)} AND key IN ({_listed(keys)})"
        names = None if columns is None else sorted({"key", *columns})
        found = self._open().to_table(columns=names, filter=wanted)
        return {row["key"]: row for batch in found.to_batches() for row in _as_rows(batch)}

    def count(self) -> int:
        return self._open().count_rows() if self.exists() else 0

    def drop(self, keys: Sequence[str]) -> None:
        """Remove the rows of these keys, whoever made them."""
        if keys and self.exists():
            with _writing(self.path):
                self._open().delete(f"key IN ({_listed(keys)})")

    def tidy(self) -> None:
        """Merge the fragments that many small appends leave behind."""
        if self.exists() and len((dataset := self._open()).get_fragments()) > _MANY_FRAGMENTS:
            with _writing(self.path):
                dataset.optimize.compact_files()

    def _open(self) -> Any:
        import lance

        try:
            dataset = lance.dataset(str(self.path))
        except (ValueError, OSError) as error:
            raise UserError(
                f"the table {self.path} cannot be read ({_first_line(error)}): "
                "remove that folder and run again to make it anew"
            ) from None
        there = {field.name: field.type for field in dataset.schema}
        if any(there.get(field.name) != field.type for field in self.schema):
            raise UserError(
                f"the table {self.path} was written by another version of motive: "
                "remove that folder and run again to make it anew"
            )
        return dataset

    def _write(self, table: pa.Table, mode: str) -> None:
        import lance

        if mode == "append" and self.exists():
            self._open()  # refuses a table of another version
        with _writing(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Asked for an append, Lance warns of a table that is not there yet.
            lance.write_dataset(table, str(self.path), mode=mode if self.exists() else "create")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _listed(keys: Sequence[str]) -> str:
    return ", ".join(_quoted(key) for key in sorted(set(keys)))


def _made_by(made_by: str) -> str:
    return f"made_by = {_quoted(made_by)}"


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"{path} cannot be written ({_first_line(error)}): free space or choose another place, "
            "and run the same command again; what was done is kept"
        ) from None


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return text[:200]


def _as_rows(batch: pa.RecordBatch) -> Iterator[Row]:
    """Rows of Python values, but lists of numbers as numpy arrays that were not copied item by item."""
    columns: list[tuple[str, Any]] = []
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        numeric = pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type)
        columns.append((name, column if numeric else column.to_pylist()))
    for i in range(batch.num_rows):
        yield {
            name: column[i].values.to_numpy(zero_copy_only=False)
            if isinstance(column, pa.Array)
            else column[i]
            for name, column in columns
        }
