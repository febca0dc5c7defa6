"""Votes and ranking against the rule, clip by clip."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from motive.influence.selection import percentile_of, rank_clips

# Few different scores, so that ties of every kind occur.
scores_qn = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.integers(1, 25)),
    elements=st.sampled_from([-1.0, -0.25, 0.0, 0.1, 0.1000001, 0.5, 1.0]),
)


def plain_ranking(
    scores: np.ndarray, clip_ids: list[str], fraction: float, percentile: float
) -> tuple[np.ndarray, ...]:
    """The whole matrix at once, by NumPy's own percentile and sort of all three keys."""
    thresholds = np.percentile(scores, percentile, axis=1).astype(scores.dtype)
    votes = (scores > thresholds[:, None]).sum(0)
    mean_score = scores.mean(0, dtype=np.float64)
    order = np.lexsort((np.asarray(clip_ids), -mean_score, -votes))
    selected = np.zeros(len(clip_ids), bool)
    selected[order[: max(1, round(fraction * len(clip_ids)))]] = True
    return order, votes, mean_score, scores.argmax(0), thresholds, selected


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


@settings(deadline=None, max_examples=200)
@given(
    scores_qn
    | hnp.arrays(
        np.float32,
        st.tuples(st.integers(1, 5), st.integers(1, 60)),
        elements=st.floats(-1, 1, width=32),
    ),
    st.floats(0, 100),
    st.sampled_from([1, 3]),
    st.integers(0, 10**6),
)
def test_row_by_row_it_is_the_plain_ranking_bit_for_bit(
    scores: np.ndarray, percentile: float, threads: int, seed: int
) -> None:
    ids = names(scores.shape[1], seed)
    ranking = rank_clips(
        (row.copy() for row in scores), ids, fraction=0.3, percentile=percentile, threads=threads
    )
    order, votes, mean_score, best_query, thresholds, selected = plain_ranking(
        scores, ids, 0.3, percentile
    )
    assert ranking.thresholds.dtype == thresholds.dtype
    assert ranking.thresholds.tolist() == thresholds.tolist()
    assert ranking.votes.tolist() == votes.tolist()
    # A sum of float32 in float64 may lose its last bit where NumPy adds a column in another order.
    assert np.allclose(ranking.mean_score, mean_score, rtol=1e-15, atol=1e-16)
    assert ranking.best_query.tolist() == best_query.tolist()
    if np.array_equal(ranking.mean_score, mean_score):
        assert ranking.order.tolist() == order.tolist()
        assert ranking.selected.tolist() == selected.tolist()


@settings(deadline=None)
@given(scores_qn, st.data(), st.sampled_from([0.0, 50.0, 90.0]))
def test_unwanted_queries_count_against(
    scores: np.ndarray, data: st.DataObject, percentile: float
) -> None:
    count, ids = scores.shape[1], names(scores.shape[1])
    unwanted = np.array(data.draw(st.lists(st.booleans(), min_size=5, max_size=5))[: len(scores)])
    ranking = rank_clips(
        scores, ids, fraction=0.3, percentile=percentile, unwanted=unwanted.tolist()
    )
    votes = scores > ranking.thresholds[:, None]
    sign = np.where(unwanted, -1, 1)
    mean = (sign[:, None] * scores.astype(float)).mean(0)
    assert ranking.votes.tolist() == (sign @ votes).tolist()
    assert ranking.votes_against.tolist() == votes[unwanted].sum(0).tolist()
    assert np.allclose(ranking.mean_score, mean)
    expected = sorted(
        range(count), key=lambda n: (-ranking.votes[n], -ranking.mean_score[n], ids[n])
    )
    assert ranking.order.tolist() == expected
    for n in range(count):
        wanted = scores[~unwanted, n]
        best = ranking.best_query[n]
        assert best == -1 if unwanted.all() else scores[best, n] == wanted.max()
        assert best == -1 or not unwanted[best]


def test_the_plain_ranking_of_many_clips() -> None:
    random = np.random.default_rng(0)
    scores = random.normal(size=(50, 5000)).astype(np.float32)
    scores[:, random.permutation(5000)[:500]] = 0  # clips without motion, all alike
    ids = names(5000)
    ranking = rank_clips(scores, ids, fraction=0.1, percentile=90.0, threads=2)
    expected = plain_ranking(scores, ids, 0.1, 90.0)
    found = (
        ranking.order,
        ranking.votes,
        ranking.mean_score,
        ranking.best_query,
        ranking.thresholds,
        ranking.selected,
    )
    for mine, theirs in zip(found, expected, strict=True):
        assert np.array_equal(mine, theirs)


@settings(deadline=None, max_examples=300)
@given(
    hnp.arrays(np.float32, st.integers(1, 300), elements=st.floats(-1, 1, width=32)),
    st.floats(0, 100),
)
def test_percentile_is_numpys(scores: np.ndarray, percentile: float) -> None:
    before = scores.copy()
    assert percentile_of(scores, percentile) == np.float32(np.percentile(scores, percentile))
    assert np.array_equal(scores, before)


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
