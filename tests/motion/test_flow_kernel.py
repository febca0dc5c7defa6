"""The compiled passes over a pair of frames give what NumPy gives, bit for bit."""

import numpy as np
import pytest

from motive.motion.flow import pixel_grid
from motive.motion.flow_kernel import compare, doubt, drop_unless_better, inside

SIZE = (23, 37)


def flow(seed: int, scale: float) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, scale, (*SIZE, 2)).astype(np.float32)


def squares(seed: int) -> np.ndarray:
    return (np.random.default_rng(seed).normal(0, 4, SIZE) ** 2).astype(np.float32)


def norm(vectors: np.ndarray) -> np.ndarray:
    x, y = vectors[..., 0], vectors[..., 1]
    return np.sqrt(x * x + y * y)


@pytest.mark.parametrize("scale", [0.0, 0.1, 20.0])
def test_doubt_is_the_square_of_error_by_scale(scale: float) -> None:
    back, forth = flow(0, scale), flow(1, scale)
    ratio = norm(back + forth) / (0.5 + 0.1 * (norm(back) + norm(forth)))
    assert np.array_equal(doubt(back, forth), -(ratio**2))


@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0])
def test_inside_is_in_the_frame_with_its_edge(scale: float) -> None:
    back = flow(0, scale)
    x, y = np.moveaxis(pixel_grid(*SIZE) + back, -1, 0)
    expected = (x >= 0) & (x <= SIZE[1] - 1) & (y >= 0) & (y <= SIZE[0] - 1)
    assert np.array_equal(inside(back), expected)
    assert expected.all() == (scale == 0)


def test_better_is_counted_by_rows_and_columns_and_decides_what_stays() -> None:
    left, unexplained, moves = squares(0), squares(1), flow(2, 3)
    gain, noise = np.float32(1.5), np.float32(4)
    better = unexplained > 1.5 * left + 4
    rows, columns, worse = compare(left, unexplained, gain, noise)
    assert np.array_equal(rows, better.sum(1))
    assert np.array_equal(columns, better.sum(0))
    assert worse == (left > 1.5 * unexplained + 4).sum() > 0
    expected = np.where(better[..., None], moves, 0)
    drop_unless_better(moves, left, unexplained, gain, noise)
    assert np.array_equal(moves, expected)
    assert 0 < better.mean() < 1
