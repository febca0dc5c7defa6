"""What is asked of every pixel of a pair of frames, compiled by numba: one pass for each question.

All is float32. Each number is what NumPy makes of the same terms, bit for bit: single operations, in
their order. Pixels are counted through a flat view, which numba reads in vectors, as it does not through
three indices.
"""

import numpy as np
from numba import njit

_compiled = njit(nogil=True, cache=True, error_model="numpy")

_HALF, _TENTH = np.float32(0.5), np.float32(0.1)


@_compiled
def doubt(back_hw2, forth_hw2):  # type: ignore[no-untyped-def]
    """(e/s)² of `motive.motion.flow.agreement`, negated, `(H, W)`; forth being taken where back leads."""
    doubt_hw = np.empty(back_hw2.shape[:2], np.float32)
    back, forth, result = back_hw2.reshape(-1), forth_hw2.reshape(-1), doubt_hw.reshape(-1)
    for i in range(len(result)):
        x, y, u, v = back[2 * i], back[2 * i + 1], forth[2 * i], forth[2 * i + 1]
        off_x, off_y = x + u, y + v
        error = np.sqrt(off_x * off_x + off_y * off_y)
        length = np.sqrt(x * x + y * y) + np.sqrt(u * u + v * v)
        ratio = error / (_HALF + _TENTH * length)
        result[i] = -(ratio * ratio)
    return doubt_hw


@_compiled
def inside(back_hw2):  # type: ignore[no-untyped-def]
    """Whether the place that a pixel comes from lies in the frame, `(H, W)` bool."""
    height, width = back_hw2.shape[:2]
    right, bottom = np.float32(width - 1), np.float32(height - 1)
    inside_hw = np.empty((height, width), np.bool_)
    for y in range(height):
        back, result = back_hw2[y].reshape(-1), inside_hw[y]
        for x in range(width):
            from_x, from_y = np.float32(x) + back[2 * x], np.float32(y) + back[2 * x + 1]
            result[x] = (from_x >= 0) & (from_x <= right) & (from_y >= 0) & (from_y <= bottom)
    return inside_hw


@_compiled
def drop_unless_better(moves_hw2, left_hw, unexplained_hw, gain, noise):  # type: ignore[no-untyped-def]
    """Set to zero the moves that do not explain their pixel better than without them, as `compare`."""
    moves, left, unexplained = (
        moves_hw2.reshape(-1),
        left_hw.reshape(-1),
        unexplained_hw.reshape(-1),
    )
    for i in range(len(left)):
        if not unexplained[i] > gain * left[i] + noise:
            moves[2 * i] = 0
            moves[2 * i + 1] = 0


@_compiled
def compare(left_hw, unexplained_hw, gain, noise):  # type: ignore[no-untyped-def]
    """Where less than 1/gain is left of what was unexplained, beyond the noise, and how often it is worse.

    Returns how many pixels of each row, and of each column, are better, and how many are worse, which is
    the same with the two exchanged.
    """
    height, width = left_hw.shape
    rows, columns, worse = np.zeros(height, np.int64), np.zeros(width, np.int64), 0
    for y in range(height):
        left, unexplained = left_hw[y], unexplained_hw[y]
        for x in range(width):
            better = unexplained[x] > gain * left[x] + noise
            rows[y] += better
            columns[x] += better
            worse += left[x] > gain * unexplained[x] + noise
    return rows, columns, worse
