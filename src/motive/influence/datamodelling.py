"""Does a score predict what training does? The linear datamodelling score and its noise ceiling.

The model is trained again from the same start on many random subsets of the corpus, and each query's loss
is measured after every training. A score is good when the sum of its values over a subset tells on which
subsets the query's loss came out lower (Park et al., "TRAK: Attributing Model Behavior at Scale", ICML
2023, after Ilyas et al., "Datamodels", ICML 2022).

Shapes: S subsets, R training seeds, Q queries, N clips.
"""

from collections.abc import Callable, Sequence

import numpy as np
from scipy.stats import rankdata

Statistic = Callable[[np.ndarray, np.ndarray], float]


def rank_correlation(mine_sq: np.ndarray, other_sq: np.ndarray) -> np.ndarray:
    """Spearman's correlation over axis 0 of each column, `(Q,)`; ties have their mean rank.

    A column that does not vary has no correlation: it gives 0.
    """
    mine, other = (_centred_ranks(values) for values in (mine_sq, other_sq))
    scale = np.sqrt((mine**2).sum(0) * (other**2).sum(0))
    product = (mine * other).sum(0)
    return np.divide(product, scale, out=np.zeros_like(product), where=scale > 0)


def predicted_effects(scores_qn: np.ndarray, members_sn: np.ndarray) -> np.ndarray:
    """The summed scores of each subset's clips with each query, `(S, Q)`.

    members_sn: whether clip n is in subset s.
    """
    return members_sn.astype(np.float64) @ scores_qn.T.astype(np.float64)


def linear_datamodelling_scores(
    scores_qn: np.ndarray, losses_sq: np.ndarray, members_sn: np.ndarray
) -> np.ndarray:
    """Of each query, `(Q,)` in −1..1: Spearman over subsets of the summed scores with minus the loss.

    losses_sq: the query's loss after training on the subset, averaged over training seeds.
    """
    return rank_correlation(predicted_effects(scores_qn, members_sn), -losses_sq)


def seed_correlation(losses_rsq: np.ndarray) -> float:
    """Mean over queries, and over pairs of seeds, of the losses' Spearman correlation over subsets.

    What two trainings on the same subset have in common beyond what all subsets have.
    """
    seeds = len(losses_rsq)
    pairs = [(a, b) for a in range(seeds) for b in range(a)]
    return float(np.mean([rank_correlation(losses_rsq[a], losses_rsq[b]).mean() for a, b in pairs]))


def noise_ceiling(losses_rsq: np.ndarray) -> float:
    """What a perfect predictor would score against the losses averaged over the R seeds, 0..1.

    With the correlation r between two seeds, the mean of R of them has the reliability R r / (1 + (R − 1) r)
    (Spearman-Brown); a predictor of the part that is not noise correlates with it by the root of that.
    """
    r, seeds = max(0.0, seed_correlation(losses_rsq)), len(losses_rsq)
    return float(np.sqrt(seeds * r / (1 + (seeds - 1) * r)))


def bootstrap(
    statistic: Statistic,
    subsets: int,
    queries: int,
    *,
    over: str,
    draws: int = 1000,
    seed: int = 0,
) -> np.ndarray:
    """The statistic of `draws` resamples, `(draws,)`.

    statistic: takes indices of subsets and of queries, drawn with replacement.
    over: `subsets`, `queries` or `both`: what is drawn anew; the other is as it is.

    The resamples are a function of the seed, so that statistics of several methods can be compared draw
    by draw.
    """
    rng = np.random.default_rng([seed, 17])
    found = []
    for _ in range(draws):
        s = rng.integers(subsets, size=subsets)
        q = rng.integers(queries, size=queries)
        found.append(
            statistic(
                np.arange(subsets) if over == "queries" else s,
                np.arange(queries) if over == "subsets" else q,
            )
        )
    return np.array(found)


def interval(values: Sequence[float] | np.ndarray) -> tuple[float, float]:
    """The middle 95% of resamples."""
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


def _centred_ranks(values_sq: np.ndarray) -> np.ndarray:
    ranks = rankdata(values_sq, axis=0)
    return ranks - ranks.mean(0)
