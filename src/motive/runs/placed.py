"""Rows that are found by their place, 0 to n − 1: in memory, in an unnamed file, or in a table."""

import tempfile
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa

from motive.errors import UserError

if TYPE_CHECKING:
    from motive.runs.tables import Row, Table

BLOCK = 4096  # rows that are held at once


class Placed(Protocol):
    """Rows by their place."""

    def __len__(self) -> int: ...

    def batches(self, names: list[str]) -> Iterator[pa.RecordBatch]:
        """These columns, in order, in blocks of `BLOCK` rows; the last one may have fewer."""
        ...

    def take(self, places: np.ndarray, names: list[str]) -> pa.Table:
        """These columns at these places, in the order of the places."""
        ...


class Held:
    """Rows in memory."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table.combine_chunks()  # so that its batches are blocks

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def batches(self, names: list[str]) -> Iterator[pa.RecordBatch]:
        yield from self._table.select(names).to_batches(max_chunksize=BLOCK)

    def take(self, places: np.ndarray, names: list[str]) -> pa.Table:
        return self._table.select(names).take(pa.array(places))


class Snapshot:
    """The rows of a table as they are now, whatever is written into it later."""

    def __init__(self, table: "Table") -> None:
        self._table, self._dataset = table, table.open()
        self._count = self._dataset.count_rows()

    def __len__(self) -> int:
        return int(self._count)

    def batches(self, names: list[str]) -> Iterator[pa.RecordBatch]:
        yield from in_blocks(self._table.scan(self._dataset, names, BLOCK))

    def take(self, places: np.ndarray, names: list[str]) -> pa.Table:
        with self._table.watched():
            return self._dataset.take(places.tolist(), columns=names)


class Spool:
    """Rows on their way, in an unnamed file of the system's folder for such, which vanishes with this.

    Written first, by `append`, and then read.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._file = file = tempfile.TemporaryFile()  # noqa: SIM115  (closed with this)
        weakref.finalize(self, _close, file)
        with _room():
            self._writer: Any = pa.ipc.new_file(pa.PythonFile(file, mode="w"), schema)
        self._waiting: list[Row] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def append(self, row: "Row") -> None:
        self._waiting.append(row)
        self._count += 1
        if len(self._waiting) == BLOCK:
            self._write()

    def write(self, batch: pa.RecordBatch) -> None:
        """Rows in a block of `BLOCK`; only the last one may have fewer."""
        assert self._count % BLOCK == 0, "a block in between is not full"
        assert batch.num_rows <= BLOCK, "a block is too large"
        self._put(batch)
        self._count += batch.num_rows

    def batches(self, names: list[str]) -> Iterator[pa.RecordBatch]:
        reader = self._reader(names)
        for number in range(reader.num_record_batches):
            columns = reader.get_batch(number).select(names).columns
            # Copies: a column as it was read keeps the memory of all columns that lie beside it.
            copies = [pa.concat_arrays([column, column.slice(0, 0)]) for column in columns]
            yield pa.RecordBatch.from_arrays(copies, names)

    def take(self, places: np.ndarray, names: list[str]) -> pa.Table:
        reader, parts = self._reader(names), []
        order = np.argsort(places, kind="stable")
        ascending = places[order]
        for number in np.unique(ascending // BLOCK):
            here = ascending[ascending // BLOCK == number] - number * BLOCK
            parts.append(reader.get_batch(int(number)).select(names).take(pa.array(here)))
        fields = [self._schema.field(name) for name in names]
        found = pa.Table.from_batches(parts, pa.schema(fields))
        return found.take(pa.array(np.argsort(order)))

    def _write(self) -> None:
        self._put(pa.RecordBatch.from_pylist(self._waiting, schema=self._schema))
        self._waiting = []

    def _put(self, batch: pa.RecordBatch) -> None:
        assert self._writer is not None, "what is read already takes no more rows"
        with _room():
            self._writer.write_batch(batch)

    def _reader(self, names: list[str]) -> Any:
        if self._writer is not None:
            if self._waiting:
                self._write()
            with _room():
                self._writer.close()
                self._file.flush()
            self._writer = None
        fields = sorted(self._schema.get_field_index(name) for name in names)
        options = pa.ipc.IpcReadOptions(included_fields=fields, use_threads=False)
        return pa.ipc.open_file(pa.PythonFile(self._file, mode="r"), options=options)


@contextmanager
def _room() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"the list of clips cannot be written to {tempfile.gettempdir()} ({error.strerror}): free "
            "some space there, or set TMPDIR to another folder, and run the same command again"
        ) from None


def _close(file: IO[bytes]) -> None:
    with suppress(OSError):  # of what did not fit, which it would try again
        file.close()


def in_blocks(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows in blocks of `BLOCK`; the last one may have fewer."""
    waiting: list[pa.RecordBatch] = []
    missing = BLOCK
    for batch in batches:
        while batch.num_rows:
            waiting.append(batch.slice(0, missing))
            batch = batch.slice(missing)
            missing -= waiting[-1].num_rows
            if not missing:
                yield _joined(waiting)
                waiting, missing = [], BLOCK
    if waiting:
        yield _joined(waiting)


def _joined(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    return batches[0] if len(batches) == 1 else pa.concat_batches(batches)


def gathered(batches: Iterable[pa.RecordBatch], size: int) -> Iterator[pa.Table]:
    """Batches put together to tables of `size` rows or a few more."""
    waiting: list[pa.RecordBatch] = []
    count = 0
    for batch in batches:
        waiting.append(batch)
        count += batch.num_rows
        if count >= size:
            yield pa.Table.from_batches(waiting).combine_chunks()
            waiting, count = [], 0
    if waiting:
        yield pa.Table.from_batches(waiting).combine_chunks()
