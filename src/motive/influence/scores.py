"""Influence: I(v_n, q) = g̃(q)ᵀ g̃(v_n) (paper, section 3.4)."""

import numpy as np


def influence(queries_qd: np.ndarray, clips_nd: np.ndarray) -> np.ndarray:
    """Cosine scores `(Q, N)` float32 of unit features; a zero feature scores 0 with everything.

    Summed in float64, so that a score does not depend on how many clips are scored at once.
    """
    return (queries_qd.astype(np.float64) @ clips_nd.astype(np.float64).T).astype(np.float32)
