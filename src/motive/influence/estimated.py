"""Scores of every estimator (`motive.influence.estimators`) over a table of features, tile by tile.

A table holds unit vectors and their lengths, and `motive.influence.scores` gives cosines with them. What the
other geometries need besides is a number or two for each clip, or another vector for each query:

- `dot`: a cosine times both lengths.
- `centred_cosine`: with μ the clips' mean unit feature, the cosine of q − μ and c − μ is
  (d·c − d·μ) / |c − μ|, d being the direction of q − μ, and |c − μ|² = 1 − 2 c·μ + |μ|².
- `ridge`: the dot product with q (ΦᵀΦ/N + λI)⁻¹.

Sums over clips are in the order of their keys: a score does not depend on the order in which they were
computed.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from motive.errors import UserError
from motive.influence.estimators import (
    RIDGE,
    Estimator,
    centred_cosine,
    cosine,
    dot,
    normalised,
    ridge,
)
from motive.influence.features import Features
from motive.influence.scores import Scores, score_table
from motive.influence.stored import features_of, stored_lengths
from motive.runs.tables import Table
from motive.runs.texts import as_array, ascending

RIDGE_DIM = 8192  # of the largest matrix that is inverted: 0.5 GB, and some minutes
_SAME = 1e-6  # a squared distance from the mean below it is rounding, and the clip is the mean

Finish = Callable[[Iterator[np.ndarray], np.ndarray], Iterator[np.ndarray]]


class EstimatedScores:
    """Scores of an estimator, made from cosines when they are read; as `Scores`, to be closed.

    lengths: keys of the features with the lengths that they had, in any order.
    finish: is given the rows of cosines and the clips' lengths `(N,)`, and gives the estimator's rows.
    """

    def __init__(
        self, cosines: Scores, lengths: tuple[pa.Array, np.ndarray], finish: Finish
    ) -> None:
        self._cosines, self._lengths, self._finish = cosines, lengths, finish

    @property
    def keys(self) -> pa.ChunkedArray:
        return self._cosines.keys

    def rows(self, keys: Sequence[str] | None = None) -> Iterator[np.ndarray]:
        """As `Scores.rows`."""
        named, length = self._lengths
        wanted = self.keys if keys is None else as_array(keys)
        last_first = named.take(np.arange(len(named))[::-1])
        place = len(named) - 1 - pc.index_in(wanted, value_set=last_first).to_numpy()
        for row in self._finish(self._cosines.rows(keys), length[place.astype(np.int64)]):
            yield row.astype(np.float32)

    def close(self) -> None:
        self._cosines.close()

    def __enter__(self) -> "EstimatedScores":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def estimated_scores(
    estimator: Estimator,
    table: Table,
    made_by: str,
    queries: Features,
    clip_keys: Callable[[], pa.Array],
    *,
    folder: Path | None = None,
    threads: int | None = None,
) -> Scores | EstimatedScores:
    """The scores of every feature in `table` that `made_by` made, with these queries.

    clip_keys: gives the keys of the clips that are ranked; means over clips are over these.
    folder, threads: as of `score_table`.

    Raises UserError as `score_table`, and for features too long for a ridge.
    """

    def score(vectors_qd: np.ndarray) -> Scores:
        vectors_qd = vectors_qd.astype(np.float32, copy=False)
        return score_table(table, made_by, vectors_qd, folder=folder, threads=threads)

    units_qd = queries.features_nd
    if estimator.geometry is cosine:
        return score(units_qd)
    lengths = stored_lengths(table, made_by)
    query_lengths = queries.norms
    if estimator.geometry is dot:
        return EstimatedScores(score(units_qd), lengths, partial(_dots, query_lengths))
    dim = units_qd.shape[1]
    clips = features_of(table, made_by, ascending(clip_keys())[0], dim)
    if estimator.geometry is centred_cosine:
        mean = _mean_unit(features for features, _ in clips)
        units = normalised(units_qd.astype(np.float64))
        directions = normalised(units - mean) * units.any(axis=1, keepdims=True)
        # The mean comes first: its cosines give the distances that the others are divided by.
        cosines = score(np.concatenate([normalised(mean)[None], directions]))
        return EstimatedScores(cosines, lengths, partial(_centred, mean, directions @ mean))
    assert estimator.geometry is ridge
    require_ridge_dim(dim)
    raw_qd = units_qd.astype(np.float64) * query_lengths[:, None]
    damped = _damped(raw_qd, (f.astype(np.float64) * n[:, None] for f, n in clips))
    damped_lengths = np.linalg.norm(damped, axis=1)
    return EstimatedScores(score(normalised(damped)), lengths, partial(_dots, damped_lengths))


def require_ridge_dim(dim: int | None) -> None:
    """Raise UserError unless a ridge can be had of features of so many numbers; None is all of them."""
    if dim is None or dim > RIDGE_DIM:
        raise UserError(
            "the estimator ridge inverts a matrix of dim by dim numbers: use a projection with "
            f"--dim {RIDGE_DIM} or less"
        )


def _dots(
    query_lengths: np.ndarray, rows: Iterator[np.ndarray], lengths: np.ndarray
) -> Iterator[np.ndarray]:
    for length, row in zip(query_lengths, rows, strict=True):
        yield length * lengths * row


def _centred(
    mean: np.ndarray, offsets: np.ndarray, rows: Iterator[np.ndarray], lengths: np.ndarray
) -> Iterator[np.ndarray]:
    length = np.linalg.norm(mean)
    squared = 1 - 2 * length * next(rows).astype(np.float64) + length**2
    there = (lengths > 0) & (squared > _SAME)
    distance = np.sqrt(np.where(there, squared, 1))
    for offset, row in zip(offsets, rows, strict=True):
        yield np.where(there, (row - offset) / distance, 0)


def _mean_unit(batches: Iterator[np.ndarray]) -> np.ndarray:
    """Of the features that are not zero, `(dim,)`."""
    total, count = np.zeros(()), 0
    for features in batches:
        units = normalised(features.astype(np.float64))
        total, count = total + units.sum(0), count + int(units.any(axis=1).sum())
    return total / max(1, count)


def _damped(queries_qd: np.ndarray, batches: Iterator[np.ndarray]) -> np.ndarray:
    """queries (ΦᵀΦ/N + λI)⁻¹ with λ as `estimators.ridge` has it; zero where Φ is."""
    dim = queries_qd.shape[1]
    gram, count = np.zeros((dim, dim)), 0
    for clips_nd in batches:
        gram += clips_nd.T @ clips_nd
        count += len(clips_nd)
    gram /= max(1, count)
    strength = RIDGE * np.trace(gram) / min(max(1, count), dim)
    if strength <= 0:
        return np.zeros_like(queries_qd)
    gram[np.diag_indices(dim)] += strength
    return np.linalg.solve(gram, queries_qd.T).T
