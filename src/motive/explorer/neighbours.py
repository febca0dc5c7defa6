"""Clips with like gradients: Lance's vector search, and groups of near-duplicates.

Two clips are near-duplicates when the cosine of their gradient features reaches a bound: they would teach
the model the same thing. The search is exact unless the features' table has a vector index; `Neighbours`
says which it was.
"""

import threading
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from motive.errors import UserError
from motive.explorer.stored import dataset_of, equals
from motive.influence.stored import stored_features
from motive.runs.tables import Table

if TYPE_CHECKING:
    from motive.pipeline import Run

GROUPED = 20_000  # clips that are compared with each other; more would take minutes
_TILE = 1024


@dataclass(frozen=True)
class Found:
    """The clips that are most like one clip, the most alike first.

    similarity: cosine of the gradient features, -1..1. exact: False if the table has an index.
    """

    clip_ids: list[str]
    similarity: list[float]
    exact: bool


class Neighbours:
    """Searches the gradient features of a run.

    clip_ids: the ranked clips, best first; of others nothing is found.
    """

    def __init__(self, run: "Run", clip_ids: pa.Array) -> None:
        self._run, self._clip_ids = run, clip_ids
        self._groups: dict[float, np.ndarray] = {}
        self._lock = threading.Lock()

    def similar(self, feature_key: str, count: int) -> Found:
        """The clips whose features are nearest to a member's own.

        Raises UserError when the member has no feature, or one of zero (a clip without motion).
        """
        dataset, mine = self._dataset, equals("made_by", self._run.objective.id)
        rows = dataset.to_table(
            columns=["feature"], filter=f"{mine} and {equals('key', feature_key)}"
        )
        if len(rows) == 0:
            if self._run.objective != self._run.plan.objective_of("query"):
                raise UserError(
                    "this is a query, or it failed: the run's estimator differentiates queries in "
                    "another way than clips, so that only clips are like each other"
                )
            raise UserError("this clip has no gradient feature: see failures.csv of the run")
        vector = np.asarray(rows["feature"][0].as_py(), np.float32)
        if not vector.any():
            raise UserError("this clip shows no motion, so its gradient is zero and like no other")
        # As many more as may be left out: the clip itself, and queries, which share the table.
        wanted = count + 1 + self._others
        answer = dataset.to_table(
            columns=["key", "_distance"],
            filter=mine,
            prefilter=True,
            nearest={"column": "feature", "q": vector, "k": wanted, "metric": "cosine"},
        )
        keys = pa.array([key.partition(":")[0] for key in answer["key"].to_pylist()], pa.string())
        own = feature_key.partition(":")[0]
        known = pc.is_in(keys, value_set=self._clip_ids).to_pylist()
        near: dict[str, float] = {}
        distances = answer["_distance"].to_pylist()
        for key, there, distance in zip(keys.to_pylist(), known, distances, strict=True):
            if there and key != own:
                near.setdefault(key, 1 - distance)
        ids = list(near)[:count]
        return Found(ids, [near[i] for i in ids], exact=not self._dataset.has_index)

    def groups(self, similarity: float) -> np.ndarray:
        """The group of near-duplicates of each clip, `(N,)` int32; -1 for a clip that is like no other.

        Clips are of one group when a chain of near-duplicates joins them. Exact, over the best
        `GROUPED` clips; those ranked below belong to no group.
        """
        with self._lock:
            if similarity not in self._groups:
                self._groups[similarity] = self._group(similarity)
            return self._groups[similarity]

    def _group(self, similarity: float) -> np.ndarray:
        features = self.features_of_best(min(GROUPED, len(self._clip_ids)))
        whole = np.full(len(self._clip_ids), -1, np.int32)
        whole[: len(features)] = group_alike(features, similarity)
        return whole

    def features_of_best(self, count: int) -> np.ndarray:
        """The features of the best `count` clips, `(count, dim)` float32; zero where there is none."""
        dim = self._run.objective.dim
        features = np.zeros((count, dim), np.float32)
        best = self._clip_ids.slice(0, count)
        for keys, batch in stored_features(self._table, self._run.objective.id, dim):
            ids = pc.list_element(pc.split_pattern(keys, ":"), 0)
            place = pc.index_in(ids, value_set=best)
            have = pc.is_valid(place).to_numpy(zero_copy_only=False)
            features[place.drop_null().to_numpy()] = batch[have]
        return features

    @cached_property
    def _table(self) -> Table:
        return self._run.store.table(self._run.objective.feature_table, pa.schema([]))

    @cached_property
    def _dataset(self) -> Any:
        if not self._table.exists():
            raise UserError(
                f"{self._run.path} has no gradient features: run motive gradients on it"
            )
        return dataset_of(self._table.path)

    @cached_property
    def _others(self) -> int:
        """How many rows of the objective are no ranked clip's."""
        mine = equals("made_by", self._run.objective.id)
        return max(0, self._dataset.count_rows(mine) - len(self._clip_ids))


def group_alike(features_nd: np.ndarray, similarity: float) -> np.ndarray:
    """Groups of unit vectors that chains of cosines of at least `similarity` join, `(N,)` int32.

    A vector that is like no other is in no group: -1; so is a zero vector. Groups are numbered in the
    order of their first vectors.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = len(features_nd)
    pairs: list[np.ndarray] = []
    for start in range(0, count, _TILE):
        cosines = features_nd[start : start + _TILE] @ features_nd[start:].T
        first, second = np.nonzero(cosines >= similarity)
        apart = first < second
        pairs.append(np.stack([first[apart] + start, second[apart] + start]))
    first, second = np.concatenate(pairs, axis=1) if pairs else np.zeros((2, 0), np.int64)
    graph = coo_array((np.ones(len(first), bool), (first, second)), shape=(count, count))
    if count == 0:
        return np.zeros(0, np.int32)
    _, label = connected_components(graph, directed=False)
    large = np.bincount(label)[label] > 1
    found = np.full(count, -1, np.int32)
    _, index, inverse = np.unique(label[large], return_index=True, return_inverse=True)
    found[large] = np.argsort(np.argsort(index))[inverse]
    return found
