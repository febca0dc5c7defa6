"""What a stage is asked for: keys, and how rows are made of them."""

from collections.abc import Callable, Iterable, Mapping

import pyarrow as pa

from motive.runs.tables import Row
from motive.runs.texts import Texts


class Wanted:
    """Keys, each once and ascending, and the rows that a stage takes for them.

    rows: makes the rows of some of the keys, in the order of those keys, one after the other.
    """

    def __init__(self, keys: pa.Array, rows: Callable[[list[str]], Iterable[Row]]) -> None:
        self.keys, self.rows = Texts(keys), rows

    @staticmethod
    def of(rows: Mapping[str, Row]) -> "Wanted":
        """Rows that are there already, by key."""
        return Wanted(pa.array(sorted(rows), pa.string()), lambda keys: (rows[k] for k in keys))

    def __len__(self) -> int:
        return len(self.keys)
