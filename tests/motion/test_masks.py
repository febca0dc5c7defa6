"""Masks against the paper's formula in plain numpy at full resolution, and their limits."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from motive.backbones.source import ModelSource
from motive.backbones.wan import WanBackbone
from motive.errors import UserError
from motive.motion.field import MotionField
from motive.motion.masks import (
    RECIPES,
    MotionMaps,
    describe_field,
    is_static,
    motion_mask,
    pool_frames,
    reduce_field,
)

ZETA = 1e-6


def field_of(displacement_fhw2: np.ndarray, trust_fhw: np.ndarray | None = None) -> MotionField:
    ones = np.ones(displacement_fhw2.shape[:3], np.float32)
    trust = ones if trust_fhw is None else trust_fhw.astype(np.float32)
    return MotionField(displacement_fhw2.astype(np.float32), ones, trust, "from_previous")


def random_field(shape_fhw: tuple[int, int, int], seed: int = 0) -> MotionField:
    rng = np.random.default_rng(seed)
    displacement = rng.normal(0, 3, (*shape_fhw, 2))
    displacement[0] = 0
    visibility = (rng.uniform(size=shape_fhw) > 0.2).astype(np.float32)
    confidence = rng.uniform(size=shape_fhw).astype(np.float32)
    return MotionField(displacement.astype(np.float32), visibility, confidence, "from_previous")


def paper_mask(field: MotionField, stride: int) -> np.ndarray:
    """Section 3.3 in its own order: magnitude, min-max over the clip, bilinear reduction."""
    x, y = (
        field.displacement_fhw2[..., 0].astype(float),
        field.displacement_fhw2[..., 1].astype(float),
    )
    magnitude = np.sqrt(x * x + y * y)
    low, high = magnitude.min(), magnitude.max()
    weight = (magnitude - low) / (high - low + ZETA)
    size = (weight.shape[2] // stride, weight.shape[1] // stride)
    return np.stack([cv2.resize(w, size, interpolation=cv2.INTER_LINEAR) for w in weight])


@pytest.mark.parametrize(
    ("shape", "stride"), [((5, 64, 64), 8), ((3, 48, 80), 16), ((2, 24, 40), 8)]
)
def test_the_paper_recipe_to_the_letter(shape: tuple[int, int, int], stride: int) -> None:
    field = random_field(shape)
    mask = motion_mask(reduce_field(field, stride), "paper")
    expected = paper_mask(field, stride)
    assert mask.dtype == np.float32
    assert mask.shape == expected.shape
    assert np.abs(mask - expected).max() < 2e-6
    assert expected.max() > 0.3


def test_the_reduction_is_the_bilinear_one_of_torch_too() -> None:
    field = random_field((3, 64, 96))
    full = torch.from_numpy(field.magnitude_fhw()).float()[None]
    small = torch.nn.functional.interpolate(
        full, scale_factor=1 / 8, mode="bilinear", align_corners=False, antialias=False
    )[0]
    assert np.abs(reduce_field(field, 8).magnitude_fhw - small.numpy()).max() < 1e-5


def test_the_extremes_are_those_of_the_full_resolution() -> None:
    displacement = np.zeros((3, 64, 64, 2))
    displacement[1, 5, 5] = (30, 40)  # one fast pixel that no latent cell samples
    displacement[2, 27:37, 27:37] = (6, 8)
    maps = reduce_field(field_of(displacement), 8)
    assert (maps.low, maps.high) == (0, 50)
    assert maps.magnitude_fhw.max() == pytest.approx(10)
    assert motion_mask(maps, "paper").max() == pytest.approx(0.2, rel=1e-5)


def test_trusted_multiplies_by_visibility_and_confidence() -> None:
    field = random_field((4, 32, 32))
    maps = reduce_field(field, 8)
    trust = field.visibility_fhw * field.confidence_fhw
    small = np.stack([cv2.resize(t, (4, 4), interpolation=cv2.INTER_LINEAR) for t in trust])
    expected = paper_mask(field, 8) * small
    assert np.abs(motion_mask(maps, "paper", trusted=True) - expected).max() < 2e-6
    assert not np.allclose(motion_mask(maps, "paper"), expected, atol=1e-2)


displacements = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 6), st.integers(8, 24), st.integers(8, 24), st.just(2)),
    elements=st.floats(-(2.0**13), 2.0**13, width=32),
    fill=st.sampled_from([0.0, 1.0, 3e-7, 4000.0]),
)


@settings(deadline=None, max_examples=60)
@given(displacements, st.booleans(), st.sampled_from([0.0, 0.1, 5.0]), st.sampled_from(RECIPES))
def test_a_mask_lies_in_0_to_1_and_is_never_nan(
    displacement: np.ndarray, trusted: bool, static_below: float, recipe: str
) -> None:
    trust = np.clip(np.abs(displacement[..., 0]) / 100, 0, 1)
    maps = reduce_field(field_of(displacement, trust), 8)
    mask = motion_mask(maps, recipe, trusted=trusted, static_below=static_below)
    frames, height, width = displacement.shape[:3]
    assert mask.shape == (frames, height // 8, width // 8)
    assert np.isfinite(mask).all()
    assert mask.min() >= 0
    assert mask.max() <= 1
    if recipe == "none":
        assert (mask == 1).all()
    elif is_static(maps, static_below):
        assert (mask == 0).all()


@pytest.mark.parametrize("motion", [(0, 0), (3, 4)])
def test_a_clip_without_differences_has_a_mask_of_zeros(motion: tuple[int, int]) -> None:
    maps = reduce_field(field_of(np.broadcast_to(motion, (5, 16, 16, 2))), 8)
    assert is_static(maps, 0.0)
    assert (motion_mask(maps, "paper") == 0).all()
    assert (motion_mask(maps, "paper", trusted=True) == 0).all()
    assert (motion_mask(maps, "none", static_below=100.0) == 1).all()


def test_static_below_is_a_threshold_on_the_largest_displacement() -> None:
    displacement = np.zeros((3, 16, 16, 2))
    displacement[1, 3:5, 3:5] = (0.3, 0.4)
    maps = reduce_field(field_of(displacement), 8)
    assert is_static(maps, 0.5)
    assert (motion_mask(maps, "paper", static_below=0.5) == 0).all()
    assert not is_static(maps, 0.49)
    assert motion_mask(maps, "paper", static_below=0.49).max() == pytest.approx(1, abs=1e-5)


def test_frames_smaller_than_a_latent_cell_have_one_cell() -> None:
    assert reduce_field(random_field((3, 5, 7)), 8).magnitude_fhw.shape == (3, 1, 1)


def frame_map(frames: int, stride: int) -> list[range]:
    """Latent 0 is pixel frame 0, latent k covers the `stride` frames up to stride · k."""
    starts = range(1, frames, stride)
    return [range(1), *(range(s, s + stride) for s in starts)]


@pytest.mark.parametrize("stride", [4, 6, 8])
@pytest.mark.parametrize("latents", [1, 2, 5])
def test_pooling_is_the_mean_over_the_frames_of_each_latent(stride: int, latents: int) -> None:
    frames = stride * (latents - 1) + 1
    mask = np.random.default_rng(0).uniform(size=(frames, 3, 2)).astype(np.float32)
    pooled = pool_frames(mask, frame_map(frames, stride))
    assert pooled.shape == (latents, 3, 2)
    assert np.array_equal(pooled[0], mask[0])
    for k in range(1, latents):
        expected = sum(mask[stride * k - i] for i in range(stride)) / stride
        assert np.allclose(pooled[k], expected)


def test_ones_stay_ones_bit_for_bit() -> None:
    for stride in (4, 6, 8):
        ones = np.ones((stride * 3 + 1, 5, 5), np.float32)
        assert (pool_frames(ones, frame_map(len(ones), stride)) == 1).all()


def test_a_moving_patch_weighs_most_where_and_when_it_moves(tmp_path: Path) -> None:
    # A patch of 16 × 16 pixels moves in frames 5 to 8 only: in latent frame 2 of Wan's map.
    displacement = np.zeros((17, 64, 64, 2))
    for f in range(5, 9):
        x = 16 + 2 * (f - 5)
        displacement[f, 24:40, x : x + 16] = (4, 0)
    source = ModelSource("wan", tmp_path, {"_class_name": "WanPipeline"})
    wan = WanBackbone(source, torch.float32, torch.device("cpu"))
    mask = motion_mask(reduce_field(field_of(displacement), 8), "paper")
    pooled = pool_frames(mask, wan.frame_map(17))
    assert pooled.shape == (5, 8, 8)
    assert [bool(latent.any()) for latent in pooled] == [False, False, True, False, False]
    heavy = np.argwhere(pooled[2] > 0)
    assert heavy[:, 0].min() == 3
    assert heavy[:, 0].max() == 4
    assert heavy[:, 1].min() == 2
    assert heavy[:, 1].max() <= 5
    # Columns 24 to 31 are covered in every one of the four frames, the outer ones in some.
    assert pooled[2].argmax() in (3 * 8 + 3, 4 * 8 + 3)
    assert pooled[2, 3, 3] == pytest.approx(1, abs=1e-5)
    assert 0 < pooled[2, 3, 2] < 1


def test_statistics_of_a_known_field() -> None:
    displacement = np.zeros((3, 10, 10, 2))
    displacement[1, :5] = (3, 4)
    displacement[2, :, 0] = (0, 0.5)  # at the bound, not above it
    trust = np.ones((3, 10, 10))
    trust[0] = 0  # the first frame has no motion and does not count
    trust[2, :, :4] = 0.59
    trust[2, :, 4:] = 0.6
    found = describe_field(field_of(displacement, trust))
    assert found.mean_speed == pytest.approx((50 * 5 + 10 * 0.5) / 200)
    assert found.p95_speed == pytest.approx(5)
    assert found.moving_share == pytest.approx(50 / 200)
    assert found.confident_share == pytest.approx(160 / 200)


def test_statistics_of_one_frame() -> None:
    found = describe_field(field_of(np.zeros((1, 8, 8, 2))))
    assert (found.mean_speed, found.p95_speed, found.moving_share) == (0, 0, 0)


def test_maps_are_what_a_mask_is_made_of_and_nothing_else() -> None:
    maps = MotionMaps(np.full((1, 1, 1), 2.0, np.float32), np.ones((1, 1, 1), np.float32), 0.0, 4.0)
    assert motion_mask(maps, "paper").item() == pytest.approx(0.5)
    with pytest.raises(UserError, match="no mask recipe 'median': use paper or none"):
        motion_mask(maps, "median")
