"""From scores to a selection: votes over the queries, then the best K (paper, section 3.5)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Ranking:
    """All clips, judged against all queries.

    order: indices of the clips, best first.
    votes: votes of each clip, in the clips' own order, 0..Q.
    mean_score: mean over the queries, float64.
    best_query: index of the query that the clip scores highest with.
    thresholds: τ of each query.
    selected: whether the clip is among the best K of those that may be selected.
    """

    order: np.ndarray
    votes: np.ndarray
    mean_score: np.ndarray
    best_query: np.ndarray
    thresholds: np.ndarray
    selected: np.ndarray


def rank_clips(
    scores_qn: np.ndarray,
    clip_ids: Sequence[str],
    *,
    fraction: float,
    percentile: float,
    eligible: np.ndarray | None = None,
) -> Ranking:
    """Rank clips by votes; ties go to the higher mean score, then to the smaller clip id.

    A clip has the vote of query q when its score exceeds τ_q, the `percentile` of that query's scores.

    fraction: share of all clips to select, in (0, 1]; at least one clip is selected.
    eligible: which clips may be selected, in the clips' own order; None is all. The others are ranked
        all the same, and their places in the selection go to the next best; when too few are
        eligible, fewer are selected, perhaps none.
    """
    thresholds = np.percentile(scores_qn, percentile, axis=1).astype(scores_qn.dtype)
    votes = (scores_qn > thresholds[:, None]).sum(0)
    mean_score = scores_qn.mean(0, dtype=np.float64)
    order = np.lexsort((np.asarray(clip_ids), -mean_score, -votes))
    count = max(1, round(fraction * len(clip_ids)))
    selected = np.zeros(len(clip_ids), bool)
    candidates = order if eligible is None else order[eligible[order]]
    selected[candidates[:count]] = True
    return Ranking(order, votes, mean_score, scores_qn.argmax(0), thresholds, selected)
