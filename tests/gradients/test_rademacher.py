"""The dense sign projection against its matrix."""

import math

import numpy as np
import pytest
import torch

from motive.gradients.counter import hash64, key
from motive.gradients.rademacher import RademacherProjection


def matrix(name: str, count: int, seed: int, dim: int) -> np.ndarray:
    """(dim, count) of +-1/sqrt(dim), from the module's text."""
    blocks = -(-count // 64)
    words = hash64(key(seed, "rademacher", name), np.arange(blocks * dim)).reshape(blocks, dim)
    bits = words[:, :, None] >> np.arange(64, dtype=np.uint64) & np.uint64(1)
    signs = 1 - 2 * bits.astype(int)
    return signs.transpose(1, 0, 2).reshape(dim, -1)[:, :count] / math.sqrt(dim)


# One block and parts of one; more than 1,024 blocks, where sums are carried over.
@pytest.mark.parametrize("count", [1, 63, 64, 65, 3000, 65_535, 65_536, 65_600, 140_001])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_projection_is_the_product_with_the_matrix(count: int, dtype: torch.dtype) -> None:
    dim = 1 if count == 1 else 23
    gradient = torch.randn(count, generator=torch.Generator().manual_seed(0)).to(dtype)
    projection = RademacherProjection(dim, 5, {"w": (count,)})
    projection.begin()
    projection.add("w", gradient)
    expected = matrix("w", count, 5, dim) @ gradient.double().numpy()
    tolerance = 1e-6 * np.linalg.norm(expected)
    np.testing.assert_allclose(projection.finish(), expected, rtol=0, atol=tolerance)
