"""The camera fit's two loops over points, compiled by numba; `motive.motion.camera` says what they are for.

A similarity is four numbers (a, b, c, d): the point (x, y) goes to (a x − b y + c, b x + a y + d), so
(a, b) is scale and turn and (c, d) the shift. Points are kept as `(2, N)`, x before y, so that each
coordinate is read in a row.
"""

import numpy as np
from numba import njit

_BLOCK = 64  # points between two looks at whether a map can still win

# Sums may be taken in vectors; nothing is assumed of infinities, and no result depends on the threads.
_compiled = njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"})


@_compiled
def cheapest(maps_h4, points_2n, moves_2n, per_tolerance_n, trust_n):  # type: ignore[no-untyped-def]
    """Which of the maps costs least; the first of equals. All float32.

    maps_h4: with 1 taken from `a`, since float32 keeps more of a small number.
    moves_2n: from each point to where its content is.
    per_tolerance_n: 1 over the squared error beyond which a point does not agree.
    trust_n: what a point that does not agree costs.
    """
    winner, least = 0, np.float32(np.inf)
    for h in range(len(maps_h4)):
        a, b, c, d = maps_h4[h]
        cost = np.float32(0)
        for start in range(0, len(trust_n), _BLOCK):
            part = np.float32(0)
            for i in range(start, min(start + _BLOCK, len(trust_n))):
                x, y = points_2n[0, i], points_2n[1, i]
                u = a * x - b * y + c - moves_2n[0, i]
                v = b * x + a * y + d - moves_2n[1, i]
                off = (u * u + v * v) * per_tolerance_n[i]
                part += trust_n[i] * (off if off < np.float32(1) else np.float32(1))
            cost += part
            if cost >= least:
                break
        if cost < least:
            winner, least = h, cost
    return winner


@_compiled
def refine(map_4, points_2n, there_2n, per_tolerance_n, trust_n, turns, rounds):  # type: ignore[no-untyped-def]
    """A better map by reweighted least squares with Geman-McClure weights. All float64.

    turns: whether (a, b) may be other than (1, 0).
    rounds: at most; it ends before where the points do not determine a map.
    """
    a, b, c, d = map_4
    for _ in range(rounds):
        total = sx = sy = su = sv = 0.0
        sxx = same = across = 0.0
        for i in range(len(trust_n)):
            x, y, u, v = points_2n[0, i], points_2n[1, i], there_2n[0, i], there_2n[1, i]
            du, dv = a * x - b * y + c - u, b * x + a * y + d - v
            root = 1 + (du * du + dv * dv) * per_tolerance_n[i]
            w = trust_n[i] / (root * root)
            total += w
            sx += w * x
            sy += w * y
            su += w * u
            sv += w * v
            sxx += w * (x * x + y * y)
            same += w * (x * u + y * v)
            across += w * (x * v - y * u)
        if not total > 0:
            break
        p, q = 1.0, 0.0
        if turns:
            # About the weighted centres, where turn and shift separate.
            spread = sxx - (sx * sx + sy * sy) / total
            if not spread > 1e-9 * sxx:
                break
            p = (same - (sx * su + sy * sv) / total) / spread
            q = (across - (sx * sv - sy * su) / total) / spread
            if not 1e-6 < p * p + q * q < np.inf:
                break
        a, b = p, q
        c, d = (su - p * sx + q * sy) / total, (sv - q * sx - p * sy) / total
    return a, b, c, d
