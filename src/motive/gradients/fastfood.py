"""The Fastfood transform (paper, Method 5; Le, Sarlos and Smola, "Fastfood", ICML 2013).

    P = 1/(xi sqrt(D')) . S H G Pi H B,        xi = sqrt(n),        first D' rows

with, from right to left: B a diagonal of independent fair signs; H the n x n Walsh-Hadamard matrix
of +1 and -1 (not normalised, n a power of two); Pi a permutation; G a diagonal of standard normal
numbers; H again; S a diagonal with S_ii = r_i / ||G||, r_i ~ chi(n) independent.

Unbiased, exactly, for every n and D'. Write m_i for row i of M = H G Pi H B, and ||G|| for the
2-norm of G's diagonal. P's rows are r_i m_i / (||G|| sqrt(n D')).
  1. Given everything but B, M_ij M_ik carries the factor B_j B_k, whose mean is 0 for j != k. So
     E[(m_i . x)(m_i . y)] has no cross terms: it is sum_j E[M_ij^2 ...] x_j y_j.
  2. M_ij = B_j sum_k H_ik g_k H_pi(k),j. The direction g/||G|| is uniform on the sphere, hence
     E[g_k g_l]/||G||^2 is 1/n for k = l and 0 otherwise; with entries of H that are +-1,
     E[M_ij^2 / ||G||^2] = n . 1/n = 1.
  3. r_i is independent of M and E[r_i^2] = n, so row i gives E = n <x, y> / (n D') = <x, y> / D'.
     D' rows add up to E[<Px, Py>] = <x, y>.

Variance. Given the direction of the row, r_i makes its length that of a row of n independent normal
numbers, and for n >> D' the rows behave like rows of a dense Gaussian matrix with entries
N(0, 1/D'): Var <Px, Py> = (|x|^2 |y|^2 + <x, y>^2) / D' = |x|^2 |y|^2 (1 + rho^2) / D', rho the
cosine, up to a term of order 1/n (Le, Sarlos and Smola, theorem 10). The tests measure it.
"""

import math

import numpy as np
import numpy.typing as npt

from motive.gradients.counter import hash64, key, normal, permutation, signs, uniform
from motive.gradients.hadamard import walsh_hadamard

Float64Array = npt.NDArray[np.float64]


class Fastfood:
    """The first `dim` rows of one n x n Fastfood matrix, drawn from `seed`.

    What it keeps is drawn once: G in float32, Pi in the narrowest integer that holds n - 1, B as
    bits, S in float64: 396 KB for n = 65,536 and dim = 512.

    Args:
        n: size of the input, a power of two, at least 2.
        dim: D', size of the output, 1 <= dim <= n.
        seed: of all four random factors.

    Raises:
        ValueError: n is no power of two, or dim is out of range.
    """

    def __init__(self, n: int, dim: int, seed: int) -> None:
        if n < 2 or n & (n - 1):
            raise ValueError(f"the Walsh-Hadamard transform needs a power of two, not {n}")
        if not 1 <= dim <= n:
            raise ValueError(f"{n} numbers cannot be projected to {dim}")
        self.n = n
        self.dim = dim
        self.packed_signs = np.packbits(signs(key(seed, "fastfood", "B"), n) < 0)
        self.permutation = permutation(key(seed, "fastfood", "Pi"), n).astype(
            np.min_scalar_type(n - 1)
        )
        self.gaussian = normal(key(seed, "fastfood", "G"), np.arange(n, dtype=np.uint64))
        gaussian_norm = float(np.linalg.norm(self.gaussian.astype(np.float64)))
        xi = math.sqrt(n)
        # S and the constant in front, in one diagonal.
        self.scale = chi(key(seed, "fastfood", "S"), n, dim) / (gaussian_norm * xi * math.sqrt(dim))

    @property
    def nbytes(self) -> int:
        """Bytes of the random factors."""
        factors = (self.packed_signs, self.permutation, self.gaussian, self.scale)
        return sum(factor.nbytes for factor in factors)

    def __call__(self, x: Float64Array) -> npt.NDArray[np.float32]:
        """P x: float64 (n,) to float32 (dim,), worked in float64. `x` is left as it was."""
        y = x * (1 - 2 * np.unpackbits(self.packed_signs, count=self.n).view(np.int8))
        walsh_hadamard(y)
        y = y[self.permutation] * self.gaussian
        # Of the last transform only the first rows are wanted. H_n = H_(n/p) (x) H_p, and the first
        # p rows take the first row of H_(n/p), which is all ones: a sum, then H_p.
        p = 1 << (self.dim - 1).bit_length()
        head = y.reshape(-1, p).sum(axis=0)
        walsh_hadamard(head)
        return (head[: self.dim] * self.scale).astype(np.float32)


def chi(key: int, degrees: int, count: int) -> Float64Array:
    """`count` independent draws of the chi distribution with `degrees` >= 2 degrees of freedom.

    chi^2(n) is twice a gamma variable of shape n/2, drawn by the exact rejection method of
    Marsaglia and Tsang ("A simple method for generating gamma variables", 2000). Attempt a of draw
    i reads the counters (i, a), so no draw depends on how often another was rejected.

    Returns:
        float64 (count,), with mean square `degrees`.
    """
    d = degrees / 2 - 1 / 3
    c = 1 / math.sqrt(9 * d)
    normal_key, uniform_key = (int(k) for k in hash64(key, np.arange(2)))
    gamma = np.zeros(count)
    waiting = np.arange(count)
    attempt = 0
    while waiting.size:
        counters = (waiting.astype(np.uint64) << np.uint64(32)) | np.uint64(attempt)
        x = normal(normal_key, counters).astype(np.float64)
        v = (1 + c * x) ** 3
        u = uniform(uniform_key, counters)
        positive = np.where(v > 0, v, 1.0)
        accepted = (v > 0) & (np.log(u) < x * x / 2 + d - d * positive + d * np.log(positive))
        gamma[waiting[accepted]] = d * v[accepted]
        waiting = waiting[~accepted]
        attempt += 1
    return np.sqrt(2 * gamma)
