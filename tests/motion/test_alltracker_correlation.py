"""The lookup against grid sampling in an explicit correlation volume."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from motive.motion.alltracker_correlation import (
    CHANNELS,
    LEVELS,
    CorrelationLookup,
    feature_pyramids,
)


def reference_lookup(query_chw: Tensor, target_chw: Tensor, flow_hw2: Tensor) -> Tensor:
    """`(h, w, 405)` by the definition, all of the volume at once."""
    channels, height, width = query_chw.shape
    rows = torch.arange(height).view(-1, 1).expand(height, width)
    columns = torch.arange(width).expand(height, width)
    points = torch.stack((columns, rows), dim=-1) + flow_hw2
    steps = torch.arange(-4, 5)
    offsets = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), dim=-1)
    levels, target = [], target_chw[None]
    for level in range(LEVELS):
        volume = torch.einsum("cn,chw->nhw", query_chw.flatten(1), target[0]) / channels**0.5
        size = torch.tensor([target.shape[3], target.shape[2]])
        taps = points.view(-1, 1, 1, 2) / 2**level + offsets
        # With half-pixel conventions a map of one cell divides by no zero.
        grid = (2 * taps + 1) / size - 1
        sampled = F.grid_sample(
            volume[:, None], grid, padding_mode="border", align_corners=False, mode="bilinear"
        )
        levels.append(sampled.view(height, width, 81))
        if level < LEVELS - 1:
            target = F.interpolate(target, scale_factor=0.5, mode="area")
    return torch.cat(levels, dim=-1)


@settings(max_examples=25, deadline=None)
@given(
    height=st.sampled_from([16, 24, 40]),
    width=st.sampled_from([16, 24, 72]),
    reach=st.sampled_from([0.0, 0.3, 5.0, 80.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_lookup_is_grid_sampling(height: int, width: int, reach: float, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    query, *targets = torch.randn(3, 8, height, width, generator=random, dtype=torch.float64)
    flow = reach * torch.randn(2, height, width, 2, generator=random, dtype=torch.float64)
    flow = flow.float().double()
    found = CorrelationLookup(query)(feature_pyramids(torch.stack(targets)), flow.float())
    expected = [reference_lookup(query, *pair) for pair in zip(targets, flow, strict=True)]
    assert found.shape == (2, height, width, CHANNELS)
    torch.testing.assert_close(found.double(), torch.stack(expected), atol=5e-5, rtol=0)


@pytest.mark.parametrize("value", [1e30, -1e30, float("inf")])
def test_flows_out_of_sight_read_the_border(value: float) -> None:
    query, target = torch.randn(2, 4, 16, 16)
    pyramids = feature_pyramids(target[None])
    found = CorrelationLookup(query)(pyramids, torch.full((1, 16, 16, 2), value))
    corner = target[:, -1, -1] if value > 0 else target[:, 0, 0]
    expected = torch.einsum("chw,c->hw", query, corner) / 2
    torch.testing.assert_close(found[0, ..., :81], expected[..., None].expand(-1, -1, 81))


def test_pyramid_is_area_interpolation() -> None:
    features = torch.randn(2, 3, 40, 24)
    levels = [features]
    for _ in range(LEVELS - 1):
        levels.append(F.interpolate(levels[-1], scale_factor=0.5, mode="area"))
    pyramids = feature_pyramids(features)
    assert [tuple(level.shape) for level in pyramids[0]] == [
        (40, 24, 3), (20, 12, 3), (10, 6, 3), (5, 3, 3), (2, 1, 3),
    ]  # fmt: skip
    for frame, pyramid in enumerate(pyramids):
        for ours, expected in zip(pyramid, levels, strict=True):
            torch.testing.assert_close(ours, expected[frame].permute(1, 2, 0))
