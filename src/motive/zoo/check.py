"""Judging a ranking where the truth is known: does the query's top 10% show the query's motion?"""

import math
from collections.abc import Sequence

import numpy as np


def precision_at_top(
    scores_qn: np.ndarray,
    query_motions: Sequence[str],
    clip_motions: Sequence[str],
    clip_ids: Sequence[str],
    *,
    fraction: float = 0.10,
) -> np.ndarray:
    """Share of each query's best clips that show its motion, `(Q,)` in 0..1.

    The best `fraction` of the clips by that query's score, ties broken by clip id.
    """
    motions = np.asarray(clip_motions)
    count = max(1, round(fraction * len(motions)))
    shares = []
    for scores, wanted in zip(scores_qn, query_motions, strict=True):
        best = np.lexsort((np.asarray(clip_ids), -scores))[:count]
        shares.append(np.mean(motions[best] == wanted))
    return np.array(shares)


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and 95% interval of independent values: Student's t over their standard error.

    With one value there is no interval: low and high are the mean.
    """
    mean = float(np.mean(values))
    if len(values) < 2:
        return mean, mean, mean
    from scipy.stats import t

    half = float(t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values)))
    return mean, mean - half, mean + half
