"""How far annotators agree beyond chance: Krippendorff's alpha."""

from typing import Literal

import numpy as np

CATEGORIES = 3  # loss, tie, win


def krippendorff_alpha(
    categories_n: np.ndarray,
    items_n: np.ndarray,
    *,
    level: Literal["nominal", "ordinal"] = "ordinal",
) -> float:
    """Alpha = 1 − observed over expected disagreement: 1 is agreement, 0 is chance, below is worse.

    After Krippendorff, "Computing Krippendorff's alpha-reliability" (2011). Items with one judgement say
    nothing of agreement and are left out. NaN where no item has two, or all answers are the same.

    categories_n: 0 loss, 1 tie, 2 win, which are in order: a win against a loss is the greater
        disagreement when `level` is ordinal.
    items_n: numbers of the judged pairs.
    """
    _, item = np.unique(items_n, return_inverse=True)
    counts_uc = np.zeros((int(item.max(initial=-1)) + 1, CATEGORIES))
    np.add.at(counts_uc, (item, categories_n), 1)
    counts_uc = counts_uc[counts_uc.sum(1) > 1]
    if not len(counts_uc):
        return float("nan")
    judged_u = counts_uc.sum(1)
    weighted_uc = counts_uc / (judged_u - 1)[:, None]
    coincidence_cc = weighted_uc.T @ counts_uc - np.diag(weighted_uc.sum(0))
    total_c = coincidence_cc.sum(1)
    total = total_c.sum()
    distance_cc = _distance(total_c, level)
    expected = (np.outer(total_c, total_c) * distance_cc).sum() / (total - 1)
    if expected == 0:
        return float("nan")
    return float(1 - (coincidence_cc * distance_cc).sum() / expected)


def _distance(total_c: np.ndarray, level: str) -> np.ndarray:
    """Squared differences between categories."""
    if level == "nominal":
        return 1 - np.eye(len(total_c))
    # Ordinal: how many answers lie between two categories, each of the two counting half.
    middle_c = np.cumsum(total_c) - total_c / 2
    return np.asarray((middle_c[:, None] - middle_c[None]) ** 2)
