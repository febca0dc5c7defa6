"""The shared noise: a clip's noise is the leading part of that of any larger clip."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from motive.errors import UserError
from motive.gradients.noise import shared_noise

extent = st.integers(1, 9)
shapes = st.tuples(extent, extent, extent, extent)


@settings(max_examples=60)
@given(st.integers(), st.integers(0, 5), shapes, shapes)
def test_noise_of_a_smaller_latent_is_a_prefix(
    seed: int, draw: int, one: tuple[int, ...], other: tuple[int, ...]
) -> None:
    c, f, h, w = (min(a, b) for a, b in zip(one, other, strict=True))
    first, second = shared_noise(seed, one, draw), shared_noise(seed, other, draw)
    assert torch.equal(first[:c, :f, :h, :w], second[:c, :f, :h, :w])


@pytest.mark.parametrize(
    "shape", [(16, 21, 6, 10), (16, 3, 60, 104), (4, 1, 60, 1), (1, 1, 1, 4096), (1, 2, 1, 1)]
)
def test_prefix_holds_at_real_sizes(shape: tuple[int, ...]) -> None:
    whole = shared_noise(0, tuple(max(a, b) for a, b in zip(shape, (16, 21, 6, 10), strict=True)))
    c, f, h, w = shape
    assert torch.equal(shared_noise(0, shape), whole[:c, :f, :h, :w])


def test_noise_is_standard_normal_and_white() -> None:
    noise = shared_noise(3, (16, 9, 32, 32)).double()
    count = noise.numel()
    assert abs(noise.mean()) * math.sqrt(count) < 4
    assert abs(noise.square().mean() - 1) * math.sqrt(count / 2) < 4
    assert abs((noise**4).mean() - 3) * math.sqrt(count / 96) < 4
    for axis in range(4):
        for lag in (1, 2):
            rolled = noise.narrow(axis, lag, noise.shape[axis] - lag)
            product = (rolled * noise.narrow(axis, 0, noise.shape[axis] - lag)).mean()
            assert abs(product) * math.sqrt(rolled.numel()) < 4


def test_draws_and_seeds_are_unrelated() -> None:
    shape = (8, 5, 16, 16)
    noises = [shared_noise(seed, shape, draw) for seed in (0, 1) for draw in (0, 1)]
    correlations = np.corrcoef([noise.flatten().numpy() for noise in noises]) - np.eye(4)
    assert np.abs(correlations).max() * math.sqrt(noises[0].numel()) < 4


def test_noise_is_plain_float32_on_the_cpu() -> None:
    noise = shared_noise(0, (2, 3, 4, 5))
    assert noise.shape == (2, 3, 4, 5)
    assert noise.dtype == torch.float32
    assert noise.is_contiguous()
    assert noise.device.type == "cpu"


def test_noise_never_changes() -> None:
    # Features in users' stores were made with this noise.
    noise = shared_noise(0, (2, 2, 2, 2))
    expected = torch.tensor(
        [2.4037218, -0.43691254, -0.47388652, 0.15970786, -1.9808503, -0.6645723]
    )
    torch.testing.assert_close(noise.flatten()[[0, 1, 2, 4, 8, 15]], expected, rtol=1e-6, atol=0)


def test_each_coordinate_has_its_own_field() -> None:
    wide = shared_noise(0, (1, 1, 2, 65_536))
    assert torch.unique(wide).numel() > 0.99 * wide.numel()
    assert wide[0, 0, 0, -1] != wide[0, 0, 1, 0]


@pytest.mark.parametrize("axis", range(4))
@pytest.mark.parametrize("extent", [0, -1, 65_537])
def test_extents_out_of_range_are_refused(axis: int, extent: int) -> None:
    shape = [1, 1, 1, 1]
    shape[axis] = extent
    with pytest.raises(UserError, match="65,536"):
        shared_noise(0, tuple(shape))
