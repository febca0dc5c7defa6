"""The linear datamodelling score against scipy, and its ceiling against a known truth."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from motive.influence.datamodelling import (
    bootstrap,
    interval,
    linear_datamodelling_scores,
    noise_ceiling,
    predicted_effects,
    rank_correlation,
    seed_correlation,
)


def members_of(rng: np.random.Generator, subsets: int, clips: int) -> np.ndarray:
    members = np.zeros((subsets, clips), bool)
    for row in members:
        row[rng.choice(clips, clips // 4, replace=False)] = True
    return members


def test_score_is_scipys_rank_correlation_of_summed_scores() -> None:
    rng = np.random.default_rng(0)
    members, scores = members_of(rng, 30, 40), rng.standard_normal((5, 40))
    losses = rng.standard_normal((30, 5)).round(1)  # with ties
    found = linear_datamodelling_scores(scores, losses, members)
    for q in range(5):
        sums = [scores[q, np.flatnonzero(row)].sum() for row in members]
        assert found[q] == pytest.approx(spearmanr(sums, -losses[:, q]).statistic, abs=1e-12)


def test_a_column_that_does_not_vary_correlates_with_nothing() -> None:
    rng = np.random.default_rng(1)
    values = rng.standard_normal((10, 2))
    values[:, 1] = 3
    assert rank_correlation(values, rng.standard_normal((10, 2)))[1] == 0


def test_ceiling_is_what_the_truth_scores() -> None:
    """Losses are a truth plus independent noise of the same variance; the truth itself is the predictor."""
    rng = np.random.default_rng(2)
    members, scores = members_of(rng, 400, 40), rng.standard_normal((60, 40))
    truth = -predicted_effects(scores, members)
    for seeds in (2, 3):
        noise = rng.standard_normal((seeds, *truth.shape)) * truth.std(0)
        losses = truth + noise
        assert seed_correlation(losses) == pytest.approx(0.5, abs=0.04)
        reached = linear_datamodelling_scores(scores, losses.mean(0), members).mean()
        assert noise_ceiling(losses) == pytest.approx(reached, abs=0.03)


def test_ceiling_of_noise_alone_is_near_zero() -> None:
    losses = np.random.default_rng(3).standard_normal((2, 300, 50))
    assert noise_ceiling(losses) < 0.2


@pytest.mark.parametrize("over", ["subsets", "queries", "both"])
def test_bootstrap_draws_anew_what_it_says(over: str) -> None:
    seen = []

    def statistic(subsets: np.ndarray, queries: np.ndarray) -> float:
        seen.append((subsets.tolist(), queries.tolist()))
        return float(subsets.mean())

    values = bootstrap(statistic, 12, 7, over=over, draws=20)
    assert len(values) == 20
    assert (values == bootstrap(statistic, 12, 7, over=over, draws=20)).all()
    fixed = [s == list(range(12)) for s, _ in seen], [q == list(range(7)) for _, q in seen]
    assert all(fixed[0]) == (over == "queries")
    assert all(fixed[1]) == (over == "subsets")


def test_interval_of_a_mean_covers_it() -> None:
    values = np.random.default_rng(4).standard_normal(200)
    means = bootstrap(lambda s, q: float(values[s].mean()), 200, 1, over="subsets", draws=400)
    low, high = interval(means)
    assert low < values.mean() < high
    assert high - low == pytest.approx(4 * values.std() / np.sqrt(200), rel=0.2)
