"""Features read from a run's table, a few thousand at a time."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from motive.errors import UserError
from motive.runs.tables import Table, made_by_is

_BATCH = (
    4096  # 8 MB of features of 512 numbers: fewer cost more to ask for, more are slow to allocate
)
_READ_AHEAD = 16 << 20  # bytes; Lance's own choice of 2 GB would hold a whole table in memory


def stored_features(table: Table, made_by: str, dim: int) -> Iterator[tuple[pa.Array, np.ndarray]]:
    """Keys and features `(n, dim)`, float32 or float16, in the order in which they were written.

    The features lie where Lance put them, read-only, and are not copied.

    Raises UserError when the table cannot be read, or a feature has another length.
    """
    if not table.exists():
        return
    try:
        batches = table.open().to_batches(
            columns=["key", "feature"],
            filter=made_by_is(made_by),
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
        raise _unreadable(table, error) from None


def stored_lengths(table: Table, made_by: str) -> tuple[pa.Array, np.ndarray]:
    """Keys, and the lengths that their features had before they were made unit vectors, float64.

    Raises UserError when the table cannot be read.
    """
    try:
        found = table.open().to_table(columns=["key", "norm", "made_by"])
    except (OSError, ValueError) as error:
        raise _unreadable(table, error) from None
    found = found.filter(pc.equal(found["made_by"], made_by))
    return found["key"].combine_chunks(), found["norm"].to_numpy()


def features_of(
    table: Table, made_by: str, keys: pa.Array, dim: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Features `(n, dim)` and lengths `(n,)` of these keys, in their order, some at a time.

    Raises UserError when the table cannot be read, a feature has another length, or a key has none.
    """
    try:
        dataset = table.open()
        there = dataset.to_table(columns=["key", "made_by"])
        mine = np.flatnonzero(pc.equal(there["made_by"], made_by).to_numpy())[::-1]
        last_first = there["key"].take(pa.array(mine))
        found = pc.index_in(keys, value_set=last_first)
        if found.null_count:
            raise ValueError("a clip's feature is gone")
        rows = mine[found.to_numpy()]
        for start in range(0, len(rows), _BATCH):
            some = rows[start : start + _BATCH]
            taken = dataset.take(some.tolist(), columns=["key", "feature", "norm"])
            if taken["key"].to_pylist() != keys[start : start + _BATCH].to_pylist():
                raise ValueError("its rows are not where they were")
            features = taken["feature"].combine_chunks()
            yield _matrix(features, dim, table), taken["norm"].to_numpy()
    except (OSError, ValueError) as error:
        raise _unreadable(table, error) from None


def _unreadable(table: Table, error: Exception) -> UserError:
    return UserError(
        f"the table {table.path} cannot be read ({error}): "
        "remove that folder and run again to make it anew"
    )


def _matrix(column: pa.Array, dim: int, table: Table) -> np.ndarray:
    """A column of lists of any kind, all of `dim` numbers, as `(n, dim)`."""
    lengths = column.value_lengths()
    if column.null_count or (lengths.to_numpy() != dim).any():
        raise UserError(
            f"a feature in {table.path} has not the {dim} numbers of the queries': "
            "remove that folder and run again to make it anew"
        )
    return column.flatten().to_numpy().reshape(-1, dim)
