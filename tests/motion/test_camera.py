"""The camera model against cameras that are known, and where there is none to be found."""

import math

import numpy as np
import pytest
from fields import field_of
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from motive.errors import UserError
from motive.motion.camera import (
    CameraModel,
    apply_map,
    camera_share,
    estimate_camera,
    fit_pair,
)
from motive.motion.dis import DisTracker
from motive.motion.field import Convention, MotionField
from motive.zoo.motions import PAPER_MOTIONS
from motive.zoo.scene import draw_scene, render_frames, true_motion

MODELS: tuple[CameraModel, ...] = ("translation", "similarity", "homography")
HEIGHT, WIDTH = 48, 64


def moved_by(map_33: np.ndarray, convention: Convention) -> np.ndarray:
    """Two frames' displacement when every pixel goes where `map_33` takes it in the other frame."""
    grid = np.stack(np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT)), -1)
    there = np.concatenate([grid, np.ones((HEIGHT, WIDTH, 1))], -1) @ map_33.T
    step = there[..., :2] / there[..., 2:] - grid
    return np.stack([np.zeros_like(step), step if convention == "from_first" else -step])


def similarity(x: float, y: float, angle: float, scale: float) -> np.ndarray:
    c, s = scale * math.cos(angle), scale * math.sin(angle)
    return np.array([[c, -s, x], [s, c, y], [0, 0, 1]])


MAPS = {
    "translation": similarity(2.5, -1, 0, 1),
    "similarity": similarity(2, 3, 0.05, 0.96),
    "homography": np.array([[1.02, 0.01, 1], [-0.02, 0.99, 2], [4e-4, -6e-4, 1]]),
}


@pytest.mark.parametrize("model", MODELS)
def test_a_pair_of_frames_has_the_camera_of_a_field(model: CameraModel) -> None:
    field = field_of(moved_by(MAPS[model], "from_first"), convention="from_first")
    moves, trust = field.displacement_fhw2[1], field.confidence_fhw[1]
    found = fit_pair(moves, trust, model)
    assert found is not None
    assert np.array_equal(found, estimate_camera(field, model).maps_f33[1])
    assert fit_pair(np.zeros_like(moves), trust, model) is None
    assert fit_pair(moves, np.zeros_like(trust), model) is None


def test_a_map_leads_from_place_to_place() -> None:
    there = apply_map(np.array([[2, 0, 1], [0, 3, -1], [0, 0, 2]]), np.float32([[[4, 5]]]))
    assert there.tolist() == [[[4.5, 7.0]]]
    assert there.dtype == np.float32


@pytest.mark.parametrize("convention", ["from_previous", "from_first"])
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("truth", MODELS)
def test_a_map_is_found_by_the_models_that_have_it(
    truth: CameraModel, model: CameraModel, convention: Convention
) -> None:
    field = field_of(moved_by(MAPS[truth], convention), convention=convention)
    # An object on a fifth of the frame that goes its own way.
    field.displacement_fhw2[1, 10:30, 20:50] += (-3, 2)
    camera = estimate_camera(field, model)
    off = np.abs(camera.maps_f33[1] - MAPS[truth]) * (WIDTH, WIDTH, 1)
    if MODELS.index(model) >= MODELS.index(truth):
        assert off[:2].max() < 0.1
        assert camera.support_f[1] == pytest.approx(0.8, abs=0.03)
        own = camera.residual(field).displacement_fhw2[1]
        assert np.abs(own[10:30, 20:50] - (-3, 2)).max() < 0.1
        own[10:30, 20:50] = 0
        assert np.abs(own).max() < 0.1
    else:
        assert off[:2].max() > 0.5


@pytest.mark.parametrize("convention", ["from_previous", "from_first"])
@pytest.mark.parametrize("lens", ["none", "pan", "zoom", "jitter"])
def test_the_zoos_cameras_are_found_in_the_true_motion(lens: str, convention: Convention) -> None:
    for index, kind in enumerate(PAPER_MOTIONS):
        scene = draw_scene(kind, 9, seed=5, index=index, camera=lens)
        truth = true_motion(scene)
        still = true_motion(draw_scene(kind, 9, seed=5, index=index, camera="none"))
        moves = truth.from_previous_fhw2, truth.from_first_fhw2
        field = field_of(moves[convention == "from_first"], convention=convention)
        camera = estimate_camera(field)
        background = (
            ~truth.object_mask_fhw
            if convention == "from_previous"
            else np.broadcast_to(~truth.object_mask_fhw[:1], truth.object_mask_fhw.shape)
        )
        own = camera.residual(field).magnitude_fhw()
        assert own[background].max() < 0.2, kind
        if lens == "none":
            assert np.array_equal(camera.maps_f33, np.tile(np.eye(3), (9, 1, 1)))
            assert camera_share(field, camera.residual(field)) == 0
        if lens == "pan" and convention == "from_first":
            expected = np.linalg.norm(still.from_first_fhw2, axis=-1)
            assert np.abs(own - expected).max() < 0.2, kind


def test_the_camera_of_dis_flow_where_there_is_texture() -> None:
    looks = [draw_scene("slide", 9, seed=5, index=i, camera="pan") for i in range(20)]
    scene = next(s for s in looks if s.look.background == "waves")
    truth = true_motion(scene)
    field = DisTracker().track(render_frames(scene))
    camera = estimate_camera(field)
    pan = truth.camera_f23[1, :, 2]
    assert np.abs(-camera.maps_f33[1:, :2, 2].mean(0) - pan).max() < 0.3
    share = camera_share(field, camera.residual(field))
    assert 0.5 < share < 1


def test_camera_and_residual_add_up_and_keep_the_rest() -> None:
    rng = np.random.default_rng(0)
    trust = rng.uniform(size=(2, HEIGHT, WIDTH))
    field = field_of(moved_by(MAPS["similarity"], "from_first"), trust, "from_first")
    camera = estimate_camera(field)
    part, own = camera.part(field), camera.residual(field)
    both = part.displacement_fhw2 + own.displacement_fhw2
    assert np.abs(both - field.displacement_fhw2).max() < 1e-5
    for made in (part, own):
        assert made.convention == "from_first"
        assert made.displacement_fhw2.dtype == np.float32
        assert made.confidence_fhw is field.confidence_fhw


def test_pixels_without_confidence_do_not_count() -> None:
    displacement = moved_by(MAPS["translation"], "from_previous")
    displacement[1, :, :44] = (-6, 6)  # most of the frame, and wrong
    trust = np.ones((2, HEIGHT, WIDTH))
    trust[1, :, :44] = 0.01
    camera = estimate_camera(field_of(displacement, trust))
    assert np.abs(camera.maps_f33[1] - MAPS["translation"]).max() < 0.1
    wrong = estimate_camera(field_of(displacement))
    assert np.abs(wrong.maps_f33[1, :2, 2] - (6, -6)).max() < 0.1


def degenerate(case: str) -> MotionField:
    rng = np.random.default_rng(0)
    pan = np.broadcast_to((3.0, 0.0), (4, HEIGHT, WIDTH, 2)).copy()
    if case == "one frame":
        return field_of(pan[:1])
    if case == "static":
        return field_of(np.zeros_like(pan))
    if case == "no confidence":
        return field_of(pan, np.zeros(pan.shape[:3]))
    if case == "little confidence":
        return field_of(pan, np.full(pan.shape[:3], 0.04))
    if case == "few pixels":
        return field_of(pan[:, :3, :5])
    if case == "one confident row":
        trust = np.zeros(pan.shape[:3])
        trust[:, 0, :15] = 1
        return field_of(pan[:, :4, :16], trust[:, :4, :16])
    if case == "everything goes its own way":
        return field_of(rng.uniform(-30, 30, pan.shape))
    assert case == "tracker's noise"
    return field_of(rng.normal(0, 0.03, pan.shape))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    "case",
    [
        "one frame", "static", "no confidence", "little confidence", "few pixels",
        "one confident row", "everything goes its own way", "tracker's noise",
    ],
)  # fmt: skip
def test_where_no_camera_can_be_told_it_stands_still(case: str, model: CameraModel) -> None:
    field = degenerate(case)
    camera = estimate_camera(field, model)
    assert np.array_equal(camera.maps_f33, np.tile(np.eye(3), (len(camera.maps_f33), 1, 1)))
    assert not camera.part(field).displacement_fhw2.any()
    assert np.array_equal(camera.residual(field).displacement_fhw2, field.displacement_fhw2)
    assert camera_share(field, camera.residual(field)) == 0
    if case in ("no confidence", "few pixels"):
        assert not camera.support_f[1:].any()


def test_a_whole_frame_that_moves_alike_is_the_camera() -> None:
    field = field_of(np.broadcast_to((3.0, 0.0), (4, HEIGHT, WIDTH, 2)))
    camera = estimate_camera(field)
    assert camera.support_f.tolist() == [1, 1, 1, 1]
    # Frame 0 has no motion by definition; what the field says there is left to the objects.
    assert np.array_equal(camera.maps_f33[0], np.eye(3))
    assert np.abs(camera.residual(field).displacement_fhw2[1:]).max() < 1e-5


fields = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 3), st.integers(1, 12), st.integers(1, 12), st.just(2)),
    elements=st.floats(-(2.0**13), 2.0**13, width=32),
    fill=st.sampled_from([0.0, 1.0, 3e-7, 4000.0]),
)


@settings(deadline=None, max_examples=60)
@given(
    fields,
    st.sampled_from(MODELS),
    st.sampled_from(["from_previous", "from_first"]),
    st.sampled_from(["full", "patchy", "none"]),
)
def test_finite_and_the_same_again(
    displacement: np.ndarray, model: CameraModel, convention: Convention, trusted: str
) -> None:
    trust = np.full(displacement.shape[:3], float(trusted == "full"))
    if trusted == "patchy":
        trust = np.clip(np.abs(displacement[..., 0]) / 100, 0, 1)
    field = field_of(displacement, trust, convention)
    camera, again = estimate_camera(field, model), estimate_camera(field, model)
    assert np.array_equal(camera.maps_f33, again.maps_f33)
    residual = camera.residual(field)
    assert np.isfinite(camera.maps_f33).all()
    assert np.isfinite(residual.displacement_fhw2).all()
    assert camera.support_f.min() >= 0
    assert camera.support_f.max() <= 1 + 1e-9
    assert 0 <= camera_share(field, residual) <= 1


def test_an_unknown_model() -> None:
    with pytest.raises(UserError, match="no camera model 'affine': use translation, similarity or"):
        estimate_camera(field_of(np.zeros((2, 4, 4, 2))), "affine")  # type: ignore[arg-type]
