"""Shares with intervals and tests when judgements of one annotator, and of one video, go together.

850 judgements of 17 people on 50 videos are not 850 independent ones. The variance of a mean is estimated
with clusters in two ways (Cameron, Gelbach and Miller, "Robust inference with multiway clustering", Journal
of Business and Economic Statistics 2011): that of the annotators' sums, plus that of the videos' sums, minus
that of what one annotator said of one video, which both contain. Each has its small-sample factor
G/(G − 1), and quantiles are Student's with one less than the smaller number of clusters.

The usual two-way cluster bootstrap, which draws annotators and videos independently with replacement
(`pigeonhole_interval`; Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 2007), counts the
variance of single judgements three times and is too wide where it dominates, as it does for yes-or-no
answers. It is reported beside, and docs/study.md has the measured coverage of both.
"""

from dataclasses import dataclass

import numpy as np

LEVEL = 0.95
_FLOOR = 0.5


@dataclass(frozen=True)
class Share:
    """A share of judgements, 0 to 1, with its interval.

    standard_error: with two-way clusters.
    degrees: of freedom.
    design_effect: variance over that of as many independent judgements; NaN where all answers are equal.
    """

    value: float
    low: float
    high: float
    standard_error: float
    degrees: float
    design_effect: float


def two_way_covariance(
    scores_nk: np.ndarray, annotators_n: np.ndarray, videos_n: np.ndarray
) -> np.ndarray:
    """Covariance of the sum of `scores_nk`, `(k, k)`, with annotators and videos as clusters.

    scores_nk: deviations of each judgement that sum to about zero, `(n, k)`.
    annotators_n, videos_n: cluster numbers from 0.
    """
    return (
        _clustered(scores_nk, annotators_n)
        + _clustered(scores_nk, videos_n)
        - _clustered(scores_nk, _cells(annotators_n, videos_n))
    )


def independent_covariance(scores_nk: np.ndarray) -> np.ndarray:
    """The same if all judgements were independent."""
    return _clustered(scores_nk, np.arange(len(scores_nk)))


def believed_variances(two_way_kk: np.ndarray, independent_kk: np.ndarray) -> np.ndarray:
    """The variances of a two-way covariance, none below half of what independence would give.

    The two-way estimate is a difference, which by chance may come out far too small, or negative.
    """
    return np.maximum(np.diag(two_way_kk), _FLOOR * np.diag(independent_kk))


def cluster_degrees(annotators_n: np.ndarray, videos_n: np.ndarray) -> int:
    """Degrees of freedom: the smaller number of clusters, less one; 0 where one cluster has it all."""
    return min(len(np.unique(annotators_n)), len(np.unique(videos_n))) - 1


def share_of(values_n: np.ndarray, annotators_n: np.ndarray, videos_n: np.ndarray) -> Share:
    """Mean of values in [0, 1] with its 95% interval.

    The interval is Wilson's with the number of independent judgements that would have the variance found
    (Dean and Pagano, Survey Methodology 2015), so that it stays within [0, 1] and is right near its ends.
    Where every answer is the same, nothing shows the variance: the smaller number of clusters takes the
    place of that number. With a single annotator or video there is no interval (NaN).
    """
    mean, count = float(values_n.mean()), len(values_n)
    degrees = cluster_degrees(annotators_n, videos_n)
    if degrees < 1:
        return Share(mean, np.nan, np.nan, np.nan, degrees, np.nan)
    if np.ptp(values_n) == 0:
        low, high = _wilson(mean, degrees + 1, degrees)
        return Share(mean, low, high, 0.0, degrees, np.nan)
    residuals_n1 = (values_n - mean)[:, None]
    independent = independent_covariance(residuals_n1)
    two_way = two_way_covariance(residuals_n1, annotators_n, videos_n)
    variance = float(believed_variances(two_way, independent)[0]) / count**2
    low, high = _wilson(mean, mean * (1 - mean) / variance, degrees)
    effect = variance * count**2 / float(independent[0, 0])
    return Share(mean, low, high, variance**0.5, degrees, effect)


def test_against_half(share: Share) -> float:
    """Two-sided p of the t-test of a share against 1/2; NaN without a standard error.

    Of the share of arm a with ties as halves this tests whether wins and losses are equally frequent:
    ties count for neither side, but they do count among the judgements.
    """
    from scipy import stats

    if not share.standard_error > 0:
        return float("nan")
    return float(2 * stats.t.sf(abs(share.value - 0.5) / share.standard_error, share.degrees))


test_against_half.__test__ = False  # type: ignore[attr-defined]  # not one of pytest's


def pigeonhole_interval(
    values_n: np.ndarray,
    annotators_n: np.ndarray,
    videos_n: np.ndarray,
    *,
    draws: int = 2000,
    seed: int = 0,
) -> tuple[float, float]:
    """The 95% percentile interval of the two-way cluster bootstrap (Owen 2007)."""
    rng = np.random.default_rng(
        abs(seed)
    )  # studies made before it was refused may have one below 0
    _, person = np.unique(annotators_n, return_inverse=True)
    _, video = np.unique(videos_n, return_inverse=True)
    shape = (int(person.max()) + 1, int(video.max()) + 1)
    sums_pv, counts_pv = np.zeros(shape), np.zeros(shape)
    np.add.at(sums_pv, (person, video), values_n)
    np.add.at(counts_pv, (person, video), 1)
    # How often each was drawn.
    people_dp, videos_dv = (
        rng.multinomial(size, np.full(size, 1 / size), draws).astype(float) for size in shape
    )
    totals_d = ((people_dp @ sums_pv) * videos_dv).sum(1)
    weights_d = ((people_dp @ counts_pv) * videos_dv).sum(1)
    drawn = weights_d > 0  # of a sparse design nothing may be drawn
    means = totals_d[drawn] / weights_d[drawn]
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def holm(p_values: list[float]) -> list[float]:
    """Holm's step-down adjustment for several tests; NaN stay NaN and count for nothing."""
    order = sorted((i for i, p in enumerate(p_values) if p == p), key=lambda i: p_values[i])
    adjusted, least = [float("nan")] * len(p_values), 0.0
    for rank, i in enumerate(order):
        least = max(least, min(1.0, (len(order) - rank) * p_values[i]))
        adjusted[i] = least
    return adjusted


def _clustered(scores_nk: np.ndarray, clusters_n: np.ndarray) -> np.ndarray:
    """Covariance of the sum when only judgements of one cluster go together, times G/(G − 1)."""
    _, number = np.unique(clusters_n, return_inverse=True)
    count = int(number.max()) + 1
    if count < 2:
        return np.full((scores_nk.shape[1],) * 2, np.nan)
    sums_gk = np.zeros((count, scores_nk.shape[1]))
    np.add.at(sums_gk, number, scores_nk)
    return sums_gk.T @ sums_gk * (count / (count - 1))


def _cells(annotators_n: np.ndarray, videos_n: np.ndarray) -> np.ndarray:
    """Cluster numbers of what one annotator said of one video."""
    pairs_n2 = np.column_stack([annotators_n, videos_n])
    return np.asarray(np.unique(pairs_n2, axis=0, return_inverse=True)[1]).ravel()


def _wilson(share: float, count: float, degrees: float) -> tuple[float, float]:
    from scipy import stats

    t = float(stats.t.ppf((1 + LEVEL) / 2, degrees))
    centre = (share + t * t / (2 * count)) / (1 + t * t / count)
    half = t / (1 + t * t / count) * (share * (1 - share) / count + t * t / (4 * count**2)) ** 0.5
    return max(0.0, centre - half), min(1.0, centre + half)
