"""How two rankings of the same clips are compared, and what the answer's interval is.

Shapes: Q queries, N clips.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from motive.influence.datamodelling import interval, rank_correlation

TOP = 0.10  # of the clips


def spearman(mine_qn: np.ndarray, other_qn: np.ndarray) -> np.ndarray:
    """Each query's rank correlation of two scores over the clips, `(Q,)`."""
    return rank_correlation(mine_qn.T, other_qn.T)


def best(scores_n: np.ndarray, count: int) -> np.ndarray:
    """Places of the `count` best clips; of equal scores the first."""
    return np.argsort(-scores_n, kind="stable")[:count]


def top_overlap(mine_qn: np.ndarray, other_qn: np.ndarray) -> np.ndarray:
    """Share of each query's top 10% that is in the top 10% of the other scores too, `(Q,)`."""
    count = max(1, round(TOP * mine_qn.shape[1]))
    pairs = zip(mine_qn, other_qn, strict=True)
    return np.array([len(np.intersect1d(best(m, count), best(o, count))) / count for m, o in pairs])


def precision(
    scores_qn: np.ndarray, query_motions: np.ndarray, clip_motions: np.ndarray
) -> np.ndarray:
    """Share of each query's top 10% that shows its motion, `(Q,)`."""
    count = max(1, round(TOP * len(clip_motions)))
    pairs = zip(scores_qn, query_motions, strict=True)
    return np.array(
        [np.mean(clip_motions[best(scores, count)] == wanted) for scores, wanted in pairs]
    )


def over_queries(values: Sequence[float] | np.ndarray, resamples: int) -> dict[str, Any]:
    """Mean, 95% bootstrap interval over the queries, and the raw numbers.

    values: `(Q,)`, or `(S, Q)` for S seeds, which are drawn anew too.
    """
    found = np.atleast_2d(np.asarray(values, np.float64))
    rng = np.random.default_rng([found.shape[1], 23])
    means = []
    for _ in range(resamples):
        seeds = rng.integers(len(found), size=len(found))
        queries = rng.integers(found.shape[1], size=found.shape[1])
        means.append(found[np.ix_(seeds, queries)].mean())
    low, high = interval(means)
    return {
        "mean": float(found.mean()),
        "low": low,
        "high": high,
        "by_query": np.round(found.mean(0), 4).tolist(),
    }


def correlation_with(values_n: np.ndarray, scores_qn: np.ndarray) -> np.ndarray:
    """Each query's rank correlation over the clips of its scores with a number of the clip, `(Q,)`."""
    return spearman(np.broadcast_to(values_n, scores_qn.shape), scores_qn)
