"""Features read from a run's table, a few thousand at a time."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from motive.errors import UserError
from motive.runs.tables import Table

_BATCH = 1024
_READ_AHEAD = 16 << 20  # bytes; Lance's own choice of 2 GB would hold a whole table in memory


def stored_features(table: Table, made_by: str, dim: int) -> Iterator[tuple[pa.Array, np.ndarray]]:
    """Keys and features `(n, dim)`, float32 or float16, in the order in which they were written.

    The features lie where Lance put them, read-only, and are not copied.

    Raises UserError when the table cannot be read, or a feature has another length.
    """
    if not table.exists():
        return
    try:
        quoted = made_by.replace("'", "''")
        batches = _open(table).to_batches(
            columns=["key", "feature"],
            filter=f"made_by = '{quoted}'",
            batch_size=_BATCH,
            io_buffer_size=_READ_AHEAD,
            batch_readahead=1,
        )
        for batch in batches:
            key = batch.column("key")
            # A copy: who kept the key as it came would keep the batch's features with it.
            key = pa.concat_arrays([key, key.slice(0, 0)])
            yield key, _matrix(batch.column("feature"), dim, table)
    except (OSError, ValueError) as error:
        raise UserError(
            f"the table {table.path} cannot be read ({error}): "
            "remove that folder and run again to make it anew"
        ) from None


def _open(table: Table) -> Any:
    import lance

    return lance.dataset(str(table.path))


def _matrix(column: pa.Array, dim: int, table: Table) -> np.ndarray:
    """A column of lists of any kind, all of `dim` numbers, as `(n, dim)`."""
    lengths = column.value_lengths()
    if column.null_count or (lengths.to_numpy() != dim).any():
        raise UserError(
            f"a feature in {table.path} has not the {dim} numbers of the queries': "
            "remove that folder and run again to make it anew"
        )
    return column.flatten().to_numpy().reshape(-1, dim)
