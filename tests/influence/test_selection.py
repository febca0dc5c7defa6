"""Votes and ranking against the rule, clip by clip."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from motive.influence.selection import rank_clips

# Few different scores, so that ties of every kind occur.
scores_qn = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.integers(1, 25)),
    elements=st.sampled_from([-1.0, -0.25, 0.0, 0.1, 0.1000001, 0.5, 1.0]),
)


def names(count: int, seed: int = 0) -> list[str]:
    order = np.random.default_rng(seed).permutation(count)
    return [f"{i:020x}" for i in order]


@settings(deadline=None)
@given(scores_qn, st.sampled_from([0.05, 0.1, 0.5, 1.0]), st.sampled_from([0.0, 50.0, 90.0, 99.0]))
def test_the_ranking_is_by_votes_then_mean_then_id(
    scores: np.ndarray, fraction: float, percentile: float
) -> None:
    ids = names(scores.shape[1])
    ranking = rank_clips(scores, ids, fraction=fraction, percentile=percentile)
    votes = [
        sum(bool(scores[q, n] > ranking.thresholds[q]) for q in range(len(scores)))
        for n in range(len(ids))
    ]
    assert ranking.votes.tolist() == votes
    assert np.allclose(ranking.mean_score, scores.astype(float).mean(0))
    expected = sorted(range(len(ids)), key=lambda n: (-votes[n], -ranking.mean_score[n], ids[n]))
    assert ranking.order.tolist() == expected
    count = max(1, round(fraction * len(ids)))
    assert ranking.selected.sum() == count
    assert set(np.flatnonzero(ranking.selected)) == set(expected[:count])
    for n in range(len(ids)):
        assert scores[ranking.best_query[n], n] == scores[:, n].max()


@settings(deadline=None)
@given(scores_qn, st.integers(0, 10**6))
def test_the_ranking_does_not_depend_on_the_order_of_the_clips(
    scores: np.ndarray, seed: int
) -> None:
    ids = names(scores.shape[1])
    ranking = rank_clips(scores, ids, fraction=0.3, percentile=80)
    order = np.random.default_rng(seed).permutation(len(ids))
    other = rank_clips(scores[:, order], [ids[i] for i in order], fraction=0.3, percentile=80)
    assert [ids[order[i]] for i in other.order] == [ids[i] for i in ranking.order]


def test_a_vote_needs_more_than_the_percentile() -> None:
    scores = np.arange(11, dtype=np.float32)[None] / 10
    ranking = rank_clips(scores, names(11), fraction=0.1, percentile=80)
    assert ranking.thresholds.tolist() == [np.float32(0.8)]
    assert ranking.votes.tolist() == [0] * 9 + [1, 1]  # the clip at 0.8 itself has no vote
    # Where all score the same nobody stands out.
    same = rank_clips(np.full((2, 5), 0.3, np.float32), names(5), fraction=0.2, percentile=90)
    assert same.votes.tolist() == [0] * 5


def test_votes_come_before_scores() -> None:
    scores = np.array([[0.9, 0.8, 0.1, 0.0, 0.0], [-1.0, 0.8, 0.1, 0.0, 0.0]], np.float32)
    ids = ["a", "b", "c", "d", "e"]
    ranking = rank_clips(scores, ids, fraction=0.2, percentile=60)
    assert ranking.votes.tolist() == [1, 2, 1, 0, 0]
    # c has the better mean of the two with one vote; d and e differ in their ids alone.
    assert [ids[i] for i in ranking.order] == ["b", "c", "a", "d", "e"]
    assert [ids[i] for i in np.flatnonzero(ranking.selected)] == ["b"]
    assert ranking.best_query.tolist() == [0, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("count", "fraction", "selected"),
    [(1, 0.1, 1), (4, 0.1, 1), (80, 0.1, 8), (86, 0.1, 9), (10, 1.0, 10), (10, 0.04, 1)],
)
def test_how_many_are_selected(count: int, fraction: float, selected: int) -> None:
    scores = np.random.default_rng(0).normal(size=(3, count)).astype(np.float32)
    ranking = rank_clips(scores, names(count), fraction=fraction, percentile=90)
    assert ranking.selected.sum() == selected
    assert sorted(ranking.order.tolist()) == list(range(count))


def test_clips_that_are_held_back_are_ranked_and_never_selected() -> None:
    scores = np.linspace(1, 0, 10, dtype=np.float32)[None]
    ids = names(10)
    free = rank_clips(scores, ids, fraction=0.3, percentile=50)
    eligible = np.ones(10, bool)
    eligible[[0, 2]] = False
    ranking = rank_clips(scores, ids, fraction=0.3, percentile=50, eligible=eligible)
    assert ranking.order.tolist() == free.order.tolist() == list(range(10))
    assert ranking.votes.tolist() == free.votes.tolist()
    # Their places go to the next best.
    assert np.flatnonzero(ranking.selected).tolist() == [1, 3, 4]
    none = rank_clips(scores, ids, fraction=0.3, percentile=50, eligible=np.zeros(10, bool))
    assert not none.selected.any()
