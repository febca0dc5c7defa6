"""Columns of a run's tables, whole, as Arrow holds them: no row becomes a Python object."""

from typing import Any

import pyarrow as pa

from motive.errors import UserError
from motive.runs.remote import RunPath, on_disk
from motive.runs.tables import Table


def read_columns(
    table: Table, columns: list[str], where: str | None = None, most: int | None = None
) -> pa.Table:
    """The columns of a table that exists, in the order in which the rows were written.

    where: an SQL condition; None is all rows. most: rows that are read at most; None is all.

    Raises UserError when the table cannot be read.
    """
    try:
        return dataset_of(table.path).to_table(columns=columns, filter=where, limit=most)
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise UserError(
            f"the table {table.path} cannot be read ({reason}): "
            "remove that folder and run again to make it anew"
        ) from None


def dataset_of(path: RunPath) -> Any:
    """The Lance dataset in `path`."""
    import lance

    return lance.dataset(str(on_disk(path)))


def equals(column: str, text: str) -> str:
    """An SQL condition, whatever the text holds."""
    quoted = text.replace("'", "''")
    return f"{column} = '{quoted}'"


def whole(column: pa.ChunkedArray) -> pa.Array:
    """A column in one piece."""
    if pa.types.is_dictionary(column.type):
        column = column.unify_dictionaries()
    found = column.combine_chunks()
    return found if isinstance(found, pa.Array) else pa.concat_arrays(found.chunks)
