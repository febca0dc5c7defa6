"""The Fastfood transform against its definition, factor by factor."""

import math

import numpy as np
import pytest

from motive.gradients.counter import key
from motive.gradients.fastfood import Fastfood, chi
from motive.gradients.hadamard import walsh_hadamard


def hadamard(n: int) -> np.ndarray:
    """H_ij = (-1)^popcount(i & j)."""
    return np.array([[(-1.0) ** (i & j).bit_count() for j in range(n)] for i in range(n)])


def dense(transform: Fastfood, seed: int) -> np.ndarray:
    """P = 1/(xi sqrt(D')) S H G Pi H B as a product of matrices, as the paper writes it."""
    n, dim = transform.n, transform.dim
    h = hadamard(n)
    b = np.diag(1.0 - 2.0 * np.unpackbits(transform.packed_signs, count=n))
    pi = np.eye(n)[transform.permutation]
    g = np.diag(transform.gaussian.astype(np.float64))
    s = np.diag(np.resize(chi(key(seed, "fastfood", "S"), n, dim), n)) / np.linalg.norm(g)
    xi = math.sqrt(n)
    return ((1 / (xi * math.sqrt(dim))) * s @ h @ g @ pi @ h @ b)[:dim]


@pytest.mark.parametrize("n", [1, 2, 4, 8, 32, 64, 128, 256])
def test_walsh_hadamard_is_multiplication_by_h(n: int) -> None:
    x = np.random.default_rng(n).standard_normal(n)
    y = x.copy()
    walsh_hadamard(y)
    np.testing.assert_allclose(y, hadamard(n) @ x, rtol=1e-12, atol=1e-12)
    walsh_hadamard(y)
    np.testing.assert_allclose(y, n * x, rtol=1e-12)


@pytest.mark.parametrize(
    ("n", "dim"), [(2, 1), (2, 2), (64, 64), (64, 1), (128, 37), (256, 128), (256, 129)]
)
def test_transform_is_the_papers_product(n: int, dim: int) -> None:
    x = np.random.default_rng(dim).standard_normal(n)
    before = x.copy()
    transform = Fastfood(n, dim, seed=9)
    y = transform(x)
    assert y.dtype == np.float32
    assert y.shape == (dim,)
    assert np.array_equal(x, before)
    expected = dense(transform, 9) @ x
    np.testing.assert_allclose(y, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


def test_fewer_rows_are_the_first_rows_rescaled() -> None:
    x = np.random.default_rng(0).standard_normal(256)
    few, many = Fastfood(256, 16, seed=1)(x), Fastfood(256, 64, seed=1)(x)
    np.testing.assert_allclose(few * math.sqrt(16), many[:16] * math.sqrt(64), rtol=1e-5)


def test_chi_has_its_moments() -> None:
    for degrees in (2, 3, 50, 65_536):
        squares = chi(key(0, "chi", degrees), degrees, 40_000) ** 2
        # chi^2: mean k, variance 2k, third central moment 8k.
        assert abs(squares.mean() - degrees) < 4 * math.sqrt(2 * degrees / squares.size)
        variance_error = math.sqrt((2 + 12 / degrees) / squares.size)
        assert abs(squares.var() / (2 * degrees) - 1) < 4 * variance_error
        skewness = ((squares - degrees) ** 3).mean() / (8 * degrees)
        if degrees < 100:  # further up it is too small to be seen in a sample of this size
            assert abs(skewness - 1) < 0.25


def test_chi_with_two_degrees_is_rayleigh() -> None:
    sample = np.sort(chi(5, 2, 40_000))
    cdf = 1 - np.exp(-(sample**2) / 2)
    gap = np.abs(np.arange(1, sample.size + 1) / sample.size - cdf).max()
    assert gap * math.sqrt(sample.size) < 1.95


def test_chi_draws_do_not_depend_on_their_number() -> None:
    assert np.array_equal(chi(5, 2, 10), chi(5, 2, 1000)[:10])


def test_the_identity_in_expectation_is_exact_for_tiny_n() -> None:
    # n = 2 is as far from the asymptotic regime as it gets; the estimate is unbiased all the same.
    total = np.zeros((2, 2))
    draws = 5_000
    for seed in range(draws):
        transform = Fastfood(2, 1, seed)
        p = np.stack([transform(unit) for unit in np.eye(2)], axis=1).astype(np.float64)
        total += p.T @ p
    np.testing.assert_allclose(total / draws, np.eye(2), atol=4 * math.sqrt(3 / draws))


@pytest.mark.parametrize(("n", "dim"), [(3, 1), (0, 1), (1, 1), (4, 5), (4, 0)])
def test_sizes_that_make_no_sense_are_refused(n: int, dim: int) -> None:
    with pytest.raises(ValueError):
        Fastfood(n, dim, seed=0)


def test_factors_are_small() -> None:
    assert Fastfood(65_536, 512, seed=0).nbytes < 420_000
