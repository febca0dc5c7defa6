"""CountSketch against plain loops."""

import math

import numpy as np
import pytest
import torch

from motive.gradients.counter import hash64, key
from motive.gradients.countsketch import CountSketchProjection


def plain_countsketch(gradients: dict[str, torch.Tensor], seed: int, dim: int) -> np.ndarray:
    """What the module's text says, one coordinate at a time."""
    s = min(4, dim)
    y = np.zeros(dim)
    for name, gradient in gradients.items():
        stream = key(seed, "countsketch", name)
        for i, value in enumerate(gradient.flatten().tolist()):
            word = int(hash64(stream, i))
            for run in range(s):
                bits = word >> (16 * run) & 0xFFFF
                first, end = run * dim // s, (run + 1) * dim // s
                row = first + (bits // 2) * (end - first) // 2**15
                y[row] += -value if bits % 2 else value
    return y / math.sqrt(s)


@pytest.mark.parametrize("dim", [1, 3, 4, 50, 128])
def test_countsketch_is_the_plain_loops(dim: int) -> None:
    generator = torch.Generator().manual_seed(0)
    gradients = {"a": torch.randn(60, 50, generator=generator), "b": torch.randn(7)}
    projection = CountSketchProjection(dim, 3, {n: tuple(g.shape) for n, g in gradients.items()})
    projection.begin()
    for name, gradient in gradients.items():
        projection.add(name, gradient)
    expected = plain_countsketch(gradients, 3, dim)
    np.testing.assert_allclose(projection.finish(), expected, rtol=1e-6, atol=1e-6)


def test_each_coordinate_has_one_place_in_each_run_and_all_rows_are_used() -> None:
    dim, count = 30, 600
    projection = CountSketchProjection(dim, 0, {"w": (count,)})
    columns = []
    for unit in torch.eye(count):
        projection.begin()
        projection.add("w", unit)
        columns.append(projection.finish())
    matrix = np.stack(columns, axis=1)
    assert set(np.unique(matrix)) == {-0.5, 0, 0.5}
    for run in range(4):
        used = np.count_nonzero(matrix[run * dim // 4 : (run + 1) * dim // 4], axis=0)
        assert (used == 1).all()
    in_rows = np.count_nonzero(matrix, axis=1)  # 75 to 86 expected
    assert in_rows.min() > 40
    assert in_rows.max() < 130
