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
from motive.motion.camera import estimate_camera
from motive.motion.field import MotionField
from motive.motion.masks import (
    MOTIONS,
    RECIPES,
    Magnitude,
    MotionMaps,
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
    assert (
        np.abs(reduce_field(field, 8).magnitudes["paper"].magnitude_fhw - small.numpy()).max()
        < 1e-5
    )


def test_the_extremes_are_those_of_the_full_resolution() -> None:
    displacement = np.zeros((3, 64, 64, 2))
    displacement[1, 5, 5] = (30, 40)  # one fast pixel that no latent cell samples
    displacement[2, 27:37, 27:37] = (6, 8)
    maps = reduce_field(field_of(displacement), 8)
    paper = maps.magnitudes["paper"]
    assert (paper.low, paper.high) == (0, 50)
    assert paper.magnitude_fhw.max() == pytest.approx(10)
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
    field = field_of(displacement, trust)
    maps = reduce_field(field, 8, estimate_camera(field))
    mask = motion_mask(maps, recipe, trusted=trusted, static_below=static_below)
    frames, height, width = displacement.shape[:3]
    assert mask.shape == (frames, height // 8, width // 8)
    assert np.isfinite(mask).all()
    assert mask.min() >= 0
    assert mask.max() <= 1
    if recipe == "none":
        assert (mask == 1).all()
    elif is_static(maps, recipe, static_below):
        assert (mask == 0).all()


@pytest.mark.parametrize("motion", [(0, 0), (3, 4)])
def test_a_clip_without_differences_has_a_mask_of_zeros(motion: tuple[int, int]) -> None:
    maps = reduce_field(field_of(np.broadcast_to(motion, (5, 16, 16, 2))), 8)
    assert is_static(maps, "paper", 0.0)
    assert (motion_mask(maps, "paper") == 0).all()
    assert (motion_mask(maps, "paper", trusted=True) == 0).all()
    assert (motion_mask(maps, "none", static_below=100.0) == 1).all()


def test_static_below_is_a_threshold_on_the_largest_displacement() -> None:
    displacement = np.zeros((3, 16, 16, 2))
    displacement[1, 3:5, 3:5] = (0.3, 0.4)
    maps = reduce_field(field_of(displacement), 8)
    assert is_static(maps, "paper", 0.5)
    assert (motion_mask(maps, "paper", static_below=0.5) == 0).all()
    assert not is_static(maps, "paper", 0.49)
    assert motion_mask(maps, "paper", static_below=0.49).max() == pytest.approx(1, abs=1e-5)


def test_frames_smaller_than_a_latent_cell_have_one_cell() -> None:
    assert reduce_field(random_field((3, 5, 7)), 8).trust_fhw.shape == (3, 1, 1)


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


def test_maps_are_what_a_mask_is_made_of_and_nothing_else() -> None:
    one = np.ones((1, 1, 1), np.float32)
    magnitudes = {name: Magnitude((i + 1) * one, 0.0, 4.0) for i, name in enumerate(MOTIONS)}
    maps = MotionMaps(magnitudes, one)
    assert [motion_mask(maps, name).item() for name in MOTIONS] == pytest.approx([0.25, 0.5, 0.75])
    with pytest.raises(
        UserError, match="no mask recipe 'median': use paper or object or camera or"
    ):
        motion_mask(maps, "median")


def panned_patch() -> tuple[MotionField, np.ndarray]:
    """A patch that moves by (0, 2) in a scene that the camera moves by (3, 0), and where it is."""
    patch = np.zeros((4, 32, 32), bool)
    patch[1:, 8:20, 8:20] = True
    displacement = np.broadcast_to((3.0, 0.0), (4, 32, 32, 2)).copy()
    displacement[0] = 0
    displacement[patch] += (0, 2)
    return field_of(displacement), patch


def test_recipes_tell_the_object_from_the_camera() -> None:
    field, patch = panned_patch()
    maps = reduce_field(field, 1, estimate_camera(field))
    own, camera = motion_mask(maps, "object"), motion_mask(maps, "camera")
    assert np.abs(own - patch).max() < 0.05
    assert np.abs(camera[1:] - 1).max() < 0.05
    assert not camera[0].any()
    assert motion_mask(maps, "paper")[1:].min() > 0.8
    # Without a camera model the objects have all of the motion.
    still = reduce_field(field, 1)
    assert np.array_equal(motion_mask(still, "object"), motion_mask(still, "paper"))
    assert not motion_mask(still, "camera").any()


def test_static_is_judged_by_the_recipes_own_motion() -> None:
    pan = np.broadcast_to((3.0, 0.0), (4, 32, 32, 2)).copy()
    pan[0] = 0
    field = field_of(pan)
    maps = reduce_field(field, 8, estimate_camera(field))
    static = {recipe: is_static(maps, recipe, 0.1) for recipe in RECIPES}
    assert static == {"paper": False, "object": True, "camera": False, "none": False}
    assert not motion_mask(maps, "object", static_below=0.1).any()


def test_trust_weighs_every_recipe_but_none() -> None:
    field, _ = panned_patch()
    trust = np.random.default_rng(0).uniform(0.5, 1, (4, 32, 32)).astype(np.float32)
    field = MotionField(field.displacement_fhw2, trust, np.ones_like(trust), field.convention)
    maps = reduce_field(field, 1, estimate_camera(field))
    for motion in MOTIONS:
        plain, trusted = motion_mask(maps, motion), motion_mask(maps, motion, trusted=True)
        assert np.allclose(trusted, plain * trust, atol=1e-6)
    assert (motion_mask(maps, "none", trusted=True) == 1).all()
