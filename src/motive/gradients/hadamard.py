"""The Walsh-Hadamard transform, compiled: Fastfood's whole cost, once for each gradient."""

import numpy as np
import numpy.typing as npt
from numba import njit


def walsh_hadamard(x: npt.NDArray[np.float64]) -> None:
    """Multiply x in place by the Walsh-Hadamard matrix of +-1 in natural (Sylvester) order.

    Args:
        x: (n,), n a power of two. H_ij = (-1)^popcount(i & j), so H H^T = n I.
    """
    _transform(x)


@njit(nogil=True, cache=True)
def _transform(x):  # type: ignore[no-untyped-def]
    """log2 n rounds of sums and differences of neighbours at distance 1, 2, 4, ..."""
    half = 1
    if x.size >= 8:
        # The first three rounds in registers: steps of 1, 2 and 4 do not fill a vector.
        for i in range(0, x.size, 8):
            a0, a1 = x[i] + x[i + 1], x[i] - x[i + 1]
            a2, a3 = x[i + 2] + x[i + 3], x[i + 2] - x[i + 3]
            a4, a5 = x[i + 4] + x[i + 5], x[i + 4] - x[i + 5]
            a6, a7 = x[i + 6] + x[i + 7], x[i + 6] - x[i + 7]
            b0, b2, b1, b3 = a0 + a2, a0 - a2, a1 + a3, a1 - a3
            b4, b6, b5, b7 = a4 + a6, a4 - a6, a5 + a7, a5 - a7
            x[i], x[i + 4], x[i + 1], x[i + 5] = b0 + b4, b0 - b4, b1 + b5, b1 - b5
            x[i + 2], x[i + 6], x[i + 3], x[i + 7] = b2 + b6, b2 - b6, b3 + b7, b3 - b7
        half = 8
    while 2 * half < x.size:  # two rounds for one reading and writing of the numbers
        for start in range(0, x.size, 4 * half):
            for j in range(start, start + half):
                a0, a1 = x[j] + x[j + half], x[j] - x[j + half]
                k = j + 2 * half
                a2, a3 = x[k] + x[k + half], x[k] - x[k + half]
                x[j], x[k] = a0 + a2, a0 - a2
                x[j + half], x[k + half] = a1 + a3, a1 - a3
        half *= 4
    if half < x.size:
        for j in range(half):
            a, b = x[j], x[j + half]
            x[j], x[j + half] = a + b, a - b
