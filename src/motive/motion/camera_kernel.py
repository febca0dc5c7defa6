"""The camera fit's loops over points, compiled by numba; `motive.motion.camera` says what they are for.

A similarity is four numbers (a, b, c, d): the point (x, y) goes to (a x − b y + c, b x + a y + d), so
(a, b) is scale and turn and (c, d) the shift. Points are kept as `(2, N)`, x before y, so that each
coordinate is read in a row, or as `(N, 2)`, as NumPy takes them.
"""

import numpy as np
from numba import njit

_BLOCK = 64  # points between two looks at whether a map can still win
_MARGIN = np.float32(1 + 1e-5)  # far more than the order of a sum changes in it

# Each operation is taken as it stands, in its order, so that the numbers are those of NumPy.
_exact = njit(nogil=True, cache=True, error_model="numpy")
# Sums may be taken in vectors; nothing is assumed of infinities, and no result depends on the threads.
_compiled = njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz"})


@_exact
def choose(trust_hw, moves_hw2, sign, most):  # type: ignore[no-untyped-def]
    """Pixels in equal steps of cumulated trust: a confident one is taken as often as its trust says.

    Returns of those that are taken, each once, the points and moves, `(N, 2)`, and the trust; then the sum
    of all trust; and how many pixels have any. All float64, moves times `sign`.
    """
    trust_n, moves_m = trust_hw.reshape(-1), moves_hw2.reshape(-1)
    blocks = (len(trust_n) + _BLOCK - 1) // _BLOCK
    before = np.empty(blocks + 1)
    total, trusted = 0.0, 0
    for b in range(blocks):
        before[b] = total
        for i in range(b * _BLOCK, min((b + 1) * _BLOCK, len(trust_n))):
            total += trust_n[i]
            trusted += trust_n[i] > 0
    before[blocks] = np.inf
    points, moves, trust = np.empty((most, 2)), np.empty((most, 2)), np.empty(most)
    width = trust_hw.shape[1]
    row, end = 0, width
    count, b, i, cumulated = 0, 0, -1, 0.0
    for s in range(most):
        step = (s + 0.5) / most * total
        if i >= 0 and cumulated >= step:
            continue  # the pixel that was taken last is worth more than a step
        if before[b + 1] < step:
            while before[b + 1] < step:
                b += 1
            i, cumulated = b * _BLOCK - 1, before[b]
        while i < len(trust_n) - 1:
            i += 1
            cumulated += trust_n[i]
            if cumulated >= step:
                break
        b = i // _BLOCK
        while i >= end:
            row, end = row + 1, end + width
        points[count, 0], points[count, 1] = i - (end - width), row
        moves[count, 0], moves[count, 1] = sign * moves_m[2 * i], sign * moves_m[2 * i + 1]
        trust[count] = trust_n[i]
        count += 1
    return points[:count], moves[:count], trust[:count], total, trusted


@_exact
def compare(places_n2, shift_2, there_n2, per_tolerance_n):  # type: ignore[no-untyped-def]
    """How far shifted places are off, squared, in tolerances, 1 at most; and whether they agree, 1 or 0.

    All float64.
    """
    right, down = shift_2
    places, there = places_n2.reshape(-1), there_n2.reshape(-1)
    off_n, agrees_n = np.empty_like(per_tolerance_n), np.empty_like(per_tolerance_n)
    for i in range(len(per_tolerance_n)):
        x, y = places[2 * i] + right - there[2 * i], places[2 * i + 1] + down - there[2 * i + 1]
        off = (x * x + y * y) * per_tolerance_n[i]
        off_n[i] = off if off < 1 else 1.0
        agrees_n[i] = 1.0 if off < 1 else 0.0
    return off_n, agrees_n


@_exact
def single(points_n2, moves_n2, per_tolerance_n, trust_n):  # type: ignore[no-untyped-def]
    """What `cheapest` takes after the maps, from float64 and `(N, 2)`."""
    points, moves = points_n2.reshape(-1), moves_n2.reshape(-1)
    points_2n = np.empty((2, len(trust_n)), np.float32)
    moves_2n = np.empty_like(points_2n)
    for axis in range(2):
        point_n, move_n = points_2n[axis], moves_2n[axis]
        for i in range(len(trust_n)):
            point_n[i], move_n[i] = points[2 * i + axis], moves[2 * i + axis]
    return points_2n, moves_2n, per_tolerance_n.astype(np.float32), trust_n.astype(np.float32)


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
        if h > 0:
            p, q, r, s = maps_h4[winner]
            if a == p and b == q and c == r and d == s:
                continue
            if _exceeds(
                least * _MARGIN, (a, b, c, d), points_2n, moves_2n, per_tolerance_n, trust_n
            ):
                continue
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
def _exceeds(limit, map_4, points_2n, moves_2n, per_tolerance_n, trust_n):  # type: ignore[no-untyped-def]
    """Whether a map costs more than the limit; float32, and the sums in whatever order is fastest.

    Rows and unsigned indices, since numba lets no other be read in vectors: several times as fast as the
    sum that decides, whose order is kept, as two maps may cost the same but for their rounding.
    """
    a, b, c, d = map_4
    x_n, y_n, move_x_n, move_y_n = points_2n[0], points_2n[1], moves_2n[0], moves_2n[1]
    cost = np.float32(0)
    for start in range(0, len(trust_n), 2 * _BLOCK):
        for i in range(np.uint64(start), np.uint64(min(start + 2 * _BLOCK, len(trust_n)))):
            u = a * x_n[i] - b * y_n[i] + c - move_x_n[i]
            v = b * x_n[i] + a * y_n[i] + d - move_y_n[i]
            off = (u * u + v * v) * per_tolerance_n[i]
            cost += trust_n[i] * (off if off < np.float32(1) else np.float32(1))
        if cost > limit:
            return True
    return False


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
