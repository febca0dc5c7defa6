"""A Bradley–Terry ranking of more than two arms."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from motive.study.clustered import (
    LEVEL,
    believed_variances,
    cluster_degrees,
    independent_covariance,
    two_way_covariance,
)

_STEPS, _CLOSE = 100, 1e-12


@dataclass(frozen=True)
class Strength:
    """An arm's place.

    strength: log odds; the strengths of all arms sum to 0, and arm i is preferred to arm j with
        probability 1 / (1 + exp(strength_j − strength_i)).
    low, high: 95% interval of the strength, with annotators and videos as clusters.
    """

    arm: str
    strength: float
    low: float
    high: float
    rank: int


def bradley_terry(
    arms: Sequence[str],
    first_n: np.ndarray,
    second_n: np.ndarray,
    values_n: np.ndarray,
    annotators_n: np.ndarray,
    videos_n: np.ndarray,
) -> tuple[list[Strength], str]:
    """Strengths, best first, and why there are none (empty when there are).

    Bradley and Terry (Biometrika 1952). A tie is half a win for each side. The maximum of the likelihood
    is found by Newton's method; intervals are those of the sandwich with two-way clusters
    (`two_way_covariance`) and Student's quantiles. It exists only if each arm has, perhaps by way of
    others, won against each other one (Ford 1957); otherwise there is none, and nothing is made up.

    first_n, second_n: indices into `arms`.
    values_n: 1 where the first won, 1/2 for a tie, 0 where the second won.
    """
    apart = _unbeaten(arms, first_n, second_n, values_n)
    if apart:
        return [], apart
    design_nk = np.zeros((len(values_n), len(arms)))
    rows = np.arange(len(values_n))
    design_nk[rows, first_n], design_nk[rows, second_n] = 1, -1
    strength_k, chance_n = _maximum(design_nk, values_n)
    # The information is singular along equal strengths, which the sum of zero takes out.
    bread_kk = np.linalg.pinv((design_nk * (chance_n * (1 - chance_n))[:, None]).T @ design_nk)
    scores_nk = design_nk * (values_n - chance_n)[:, None]
    variances_k = believed_variances(
        bread_kk @ two_way_covariance(scores_nk, annotators_n, videos_n) @ bread_kk,
        bread_kk @ independent_covariance(scores_nk) @ bread_kk,
    )
    half_k = _quantile(cluster_degrees(annotators_n, videos_n)) * np.sqrt(variances_k)
    order = sorted(range(len(arms)), key=lambda k: (-strength_k[k], arms[k]))
    return [
        Strength(
            arms[k],
            float(strength_k[k]),
            float(strength_k[k] - half_k[k]),
            float(strength_k[k] + half_k[k]),
            rank,
        )
        for rank, k in enumerate(order, start=1)
    ], ""


def _maximum(design_nk: np.ndarray, values_n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Strengths that sum to zero, and each judgement's chance that the first wins."""
    strength_k = np.zeros(design_nk.shape[1])
    chance_n = np.full(len(values_n), 0.5)
    for _ in range(_STEPS):
        slope_k = design_nk.T @ (values_n - chance_n)
        curve_kk = (design_nk * (chance_n * (1 - chance_n))[:, None]).T @ design_nk
        step_k = np.linalg.pinv(curve_kk) @ slope_k
        strength_k = strength_k + step_k / max(1.0, float(np.abs(step_k).max()))
        chance_n = 1 / (1 + np.exp(-(design_nk @ strength_k)))
        if np.abs(step_k).max() < _CLOSE:
            break
    return strength_k, chance_n


def _unbeaten(
    arms: Sequence[str], first_n: np.ndarray, second_n: np.ndarray, values_n: np.ndarray
) -> str:
    """Why the likelihood has no maximum: a group of arms that never lost to the rest; else empty."""
    from scipy.sparse.csgraph import connected_components

    beat_kk = np.zeros((len(arms), len(arms)))
    np.add.at(beat_kk, (first_n, second_n), values_n)
    np.add.at(beat_kk, (second_n, first_n), 1 - values_n)
    count, part_k = connected_components(beat_kk, directed=True, connection="strong")
    if count == 1:
        return ""
    for part in range(count):
        inside = part_k == part
        if not beat_kk[np.ix_(~inside, inside)].any():
            names = " and ".join(arm for arm, isin in zip(arms, inside, strict=True) if isin)
            return f"{names} never lost to the others, so that no finite strength fits"
    raise AssertionError("one strong component is always a source")


def _quantile(degrees: int) -> float:
    from scipy import stats

    return float(stats.t.ppf((1 + LEVEL) / 2, degrees)) if degrees > 0 else float("nan")
