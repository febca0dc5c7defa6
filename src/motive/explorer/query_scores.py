"""Scores with one query at a time, in the table's order, read from `scores.parquet` when asked for."""

import threading
from collections import OrderedDict
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from motive.influence.selection import percentile_of
from motive.results import open_scores

if TYPE_CHECKING:
    from motive.pipeline import Run

_KEPT_BYTES = 48 << 20


class QueryScores:
    """The scores of a run's ranked clips with each of its queries.

    clip_ids: the clips, in the order in which scores are given.
    query_ids: of the property of this name, when they are known.

    Raises UserError when there are no scores, or of another objective.
    """

    def __init__(self, run: "Run", clip_ids: pa.Array, query_ids: list[str] | None = None) -> None:
        if query_ids is not None:
            self.query_ids = query_ids
        self._run, self._ids, self._file = run, clip_ids, open_scores(run)
        self._kept: OrderedDict[str, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    @cached_property
    def query_ids(self) -> list[str]:
        """In the file's order."""
        return self._file.query_ids

    @cached_property
    def votes(self) -> dict[str, np.ndarray]:
        """By query id, which clips have its vote: a score above τ, packed eight to a byte."""
        return {query: np.packbits(self.votes_of(query)) for query in self.query_ids}

    def threshold(self, query_id: str) -> float:
        """τ of a query: the run's percentile of its scores."""
        scores = self.of(query_id)
        return float(percentile_of(scores, self._run.config.selection.percentile))

    def votes_of(self, query_id: str) -> np.ndarray:
        """Which clips have the query's vote, `(N,)` bool."""
        return self.of(query_id) > np.float32(self.threshold(query_id))

    def of(self, query_id: str) -> np.ndarray:
        """The scores with a query, `(N,)` float32.

        Raises KeyError for a query that is not there.
        """
        with self._lock:
            if query_id in self._kept:
                self._kept.move_to_end(query_id)
                return self._kept[query_id]
            found = self._read(query_id)
            self._kept[query_id] = found
            while len(self._kept) > max(2, _KEPT_BYTES // max(1, found.nbytes)):
                self._kept.popitem(last=False)
            return found

    def at(self, position: int) -> dict[str, float]:
        """The scores of one clip, by query id."""
        return {query: float(self.of(query)[position]) for query in self.query_ids}

    @cached_property
    def _places(self) -> np.ndarray:
        """Where each clip of the table is in a query's scores."""
        found = pc.index_in(self._ids, value_set=self._file.clip_ids.array)
        return found.to_numpy().astype(np.int32)

    def _read(self, query_id: str) -> np.ndarray:
        number = {query: i for i, query in enumerate(self.query_ids)}[query_id]
        count = len(self._file.clip_ids)
        return _rows_of(self._run, number * count, count)[self._places]


def _rows_of(run: "Run", first: int, count: int) -> np.ndarray:
    """The scores from row `first` of the file on, of the row groups that hold them alone."""
    parts: list[np.ndarray] = []
    with pq.ParquetFile(run.path / "scores.parquet") as file:
        start = 0
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            low, high = max(first, start), min(first + count, start + rows)
            if low < high:
                column = file.read_row_group(group, columns=["score"]).column("score")
                parts.append(column.slice(low - start, high - low).to_numpy())
            start += rows
    return np.concatenate(parts)
