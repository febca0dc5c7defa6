"""From scores to a selection: votes over the queries, then the best K (paper, section 3.5)."""

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Ranking:
    """All clips, judged against all queries.

    order: indices of the clips, best first.
    votes: votes of each clip, in the clips' own order: those of the queries whose motion is wanted
        minus those of the unwanted ones, so 0..Q where all are wanted.
    votes_against: votes of the unwanted queries alone.
    mean_score: mean over the queries, an unwanted one's score with the opposite sign, float64.
    best_query: index of the wanted query that the clip scores highest with; -1 where none is wanted.
    thresholds: τ of each query.
    selected: whether the clip is among the best K of those that may be selected.
    """

    order: np.ndarray
    votes: np.ndarray
    votes_against: np.ndarray
    mean_score: np.ndarray
    best_query: np.ndarray
    thresholds: np.ndarray
    selected: np.ndarray


def rank_clips(
    scores_qn: Iterable[np.ndarray],
    clip_ids: Sequence[str],
    *,
    fraction: float,
    percentile: float,
    eligible: np.ndarray | None = None,
    unwanted: Sequence[bool] | None = None,
    threads: int = 1,
) -> Ranking:
    """Rank clips by votes; ties go to the higher mean score, then to the smaller clip id.

    A clip has the vote of query q when its score exceeds τ_q, the `percentile` of that query's scores.
    The vote of an unwanted query counts against the clip, and so does its score.

    scores_qn: the scores of all clips with one query after another, each `(N,)` float32: an array, or
        rows read from a file as they are asked for. Of them `threads + 1` are held at a time, so that
        memory grows with N alone.
    fraction: share of all clips to select, in (0, 1]; at least one clip is selected.
    eligible: which clips may be selected, in the clips' own order; None is all. The others are ranked
        all the same, and their places in the selection go to the next best; when too few are
        eligible, fewer are selected, perhaps none.
    unwanted: of each query, whether it shows what the model should not learn; None is no query.
    threads: that look for thresholds; their number changes nothing.
    """
    count = len(clip_ids)
    votes, against = np.zeros(count, np.int32), np.zeros(count, np.int32)
    total = np.zeros(count)
    best = np.full(count, -np.inf, np.float32)
    best_query = np.full(count, -1, np.int32)
    thresholds = []
    for query, (scores, threshold) in enumerate(_thresholds(scores_qn, percentile, threads)):
        thresholds.append(threshold)
        if unwanted is not None and unwanted[query]:
            against += scores > threshold
            total -= scores
            continue
        votes += scores > threshold
        total += scores
        # Of equal scores the first query's counts.
        np.copyto(best_query, query, where=scores > best)
        np.maximum(best, scores, out=best)
    votes -= against
    mean_score = total / len(thresholds)
    order = _best_first(votes, mean_score, clip_ids)
    wanted = max(1, round(fraction * count))
    selected = np.zeros(count, bool)
    candidates = order if eligible is None else order[eligible[order]]
    selected[candidates[:wanted]] = True
    return Ranking(order, votes, against, mean_score, best_query, np.array(thresholds), selected)


def percentile_of(scores_n: np.ndarray, percentile: float) -> np.float32:
    """`np.percentile` of float32 scores to the last bit, tens of times faster.

    NumPy's own partitions around four places at once, which its vectorised selection cannot do; two
    neighbours in the sorted order are all that linear interpolation needs. Position and weight are
    float64, as in NumPy 2.4.
    """
    place = (len(scores_n) - 1) * (percentile / 100)
    below = math.floor(place)
    if below >= len(scores_n) - 1:
        return np.float32(scores_n.max())
    parted = np.partition(scores_n, below)
    lower, upper = parted[below], parted[below + 1 :].min()
    weight, gap = place - below, upper - lower
    return np.float32(lower + gap * weight if weight < 0.5 else upper - gap * (1 - weight))


def _thresholds(
    scores_qn: Iterable[np.ndarray], percentile: float, threads: int
) -> Iterator[tuple[np.ndarray, np.float32]]:
    """Each query's scores with their threshold, in order; the next are at work meanwhile."""
    if threads == 1:
        for scores in scores_qn:
            yield scores, percentile_of(scores, percentile)
        return
    waiting: deque[tuple[np.ndarray, Future[np.float32]]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="motive-threshold") as pool:
        for scores in scores_qn:
            waiting.append((scores, pool.submit(percentile_of, scores, percentile)))
            if len(waiting) > threads:
                scores, found = waiting.popleft()
                yield scores, found.result()
        for scores, found in waiting:
            yield scores, found.result()


def _best_first(votes: np.ndarray, mean_score: np.ndarray, clip_ids: Sequence[str]) -> np.ndarray:
    """`np.lexsort((clip_ids, -mean_score, -votes))`, comparing ids only where all else is equal."""
    by_mean = np.argsort(-mean_score)
    fewer = votes.max(initial=0) - votes[by_mean]
    # NumPy sorts 16-bit integers in linear time.
    small = fewer.astype(np.uint16) if fewer.max(initial=0) < 2**16 else fewer
    order = by_mean[np.argsort(small, kind="stable")]
    same = (votes[order[1:]] == votes[order[:-1]]) & (
        mean_score[order[1:]] == mean_score[order[:-1]]
    )
    if same.any():
        group = np.concatenate(([0], np.cumsum(~same)))
        tied = np.flatnonzero(np.concatenate(([False], same)) | np.concatenate((same, [False])))
        clips = np.sort(
            order[tied]
        )  # so that equal ids, which there should not be, keep their order
        group_of = np.empty(len(order), np.int64)
        group_of[order] = group
        ids = np.array([clip_ids[i] for i in clips])
        order[tied] = clips[np.lexsort((ids, group_of[clips]))]
    return order
