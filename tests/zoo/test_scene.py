"""The true motion against the rendered frames: what the truth says moved is what the pixels show."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from motive.zoo.motions import CAMERAS, KINDS, PAPER_MOTIONS, SIZE
from motive.zoo.scene import draw_scene, render_frames, true_motion

GRID = np.stack(np.meshgrid(np.arange(SIZE), np.arange(SIZE)), -1).astype(np.float32)


def sample(image: np.ndarray, points_hw2: np.ndarray, outside: float = 0.0) -> np.ndarray:
    return cv2.remap(
        image.astype(np.float32), points_hw2.astype(np.float32), None, cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT, borderValue=(outside,) * 4,
    )  # fmt: skip


def interior(mask: np.ndarray) -> np.ndarray:
    return cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=0) > 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("camera", [None, "zoom"])
def test_the_frame_before_warped_by_the_truth_is_the_frame(kind: str, camera: str | None) -> None:
    warped_errors, still_errors = [], []
    for index in range(3):
        scene = draw_scene(kind, 9, seed=7, index=index, camera=camera)
        frames, truth = render_frames(scene).astype(np.float32), true_motion(scene)
        for f in range(1, 9):
            origin = GRID - truth.from_previous_fhw2[f]
            warped = sample(frames[f - 1], origin)
            # Pixels well inside the object, that come from well inside the frame and the object.
            was_object = sample(truth.object_mask_fhw[f - 1], origin, outside=-1) == 1
            within = ((origin >= 0) & (origin <= SIZE - 1)).all(-1)
            usable = interior(truth.object_mask_fhw[f]) & was_object & within
            warped_errors.append(np.abs(warped - frames[f])[usable])
            still_errors.append(np.abs(frames[f - 1] - frames[f])[usable])
    warped, still = np.concatenate(warped_errors), np.concatenate(still_errors)
    assert len(warped) > 2000
    # Of 255 grey levels; texture edges between pixels leave some.
    assert warped.mean() < 6, kind
    assert np.percentile(warped, 80) < 6, kind
    if still.mean() > 4:
        assert warped.mean() < 0.5 * still.mean(), kind


@pytest.mark.parametrize("camera", ["pan", "zoom", "jitter"])
def test_the_background_moves_with_the_camera_alone(camera: str) -> None:
    scene = draw_scene("slide", 9, seed=7, index=2, camera=camera)
    truth = true_motion(scene)
    for f in range(1, 9):
        # camera_f23 takes the screen of frame 0 to the screen of frame f.
        before, now = truth.camera_f23[f - 1], truth.camera_f23[f]
        inverse = np.linalg.inv(now[:, :2])
        origin = (GRID - now[:, 2]) @ inverse.T @ before[:, :2].T + before[:, 2]
        still = ~truth.object_mask_fhw[f]
        assert np.allclose(truth.from_previous_fhw2[f][still], (GRID - origin)[still], atol=1e-5)
    moved = GRID @ truth.camera_f23[8][:, :2].T + truth.camera_f23[8][:, 2] - GRID
    still = ~truth.object_mask_fhw[0]
    assert np.allclose(truth.from_first_fhw2[8][still], moved[still], atol=1e-5)
    assert np.allclose(truth.camera_f23[0], [[1, 0, 0], [0, 1, 0]])


@pytest.mark.parametrize("index", range(4))
def test_a_slide_goes_f_steps_in_f_frames(index: int) -> None:
    truth = true_motion(draw_scene("slide", 9, seed=3, index=index))
    step = truth.from_previous_fhw2[1][truth.object_mask_fhw[1]][0]
    for f in range(1, 9):
        seen = truth.from_previous_fhw2[f][truth.object_mask_fhw[f]]
        assert np.allclose(seen, step, atol=1e-9)
        gone = truth.from_first_fhw2[f][truth.object_mask_fhw[0]]
        assert np.allclose(gone, f * step, atol=1e-9)


@pytest.mark.parametrize("kind", PAPER_MOTIONS)
def test_following_a_point_from_the_first_frame_agrees_with_the_flow_along_its_way(
    kind: str,
) -> None:
    checked = 0
    for index in range(3):
        truth = true_motion(draw_scene(kind, 9, seed=3, index=index))
        for f in range(1, 9):
            here = GRID + truth.from_first_fhw2[f]
            step = truth.from_first_fhw2[f] - truth.from_first_fhw2[f - 1]
            flow = sample(truth.from_previous_fhw2[f], here)
            # Points of the object that land on pixels whose whole neighbourhood is the object.
            landed = sample(interior(truth.object_mask_fhw[f]), here) == 1
            points = interior(truth.object_mask_fhw[0]) & landed
            if kind == "explode":  # a fragment may hide another
                wrong = np.linalg.norm(flow - step, axis=-1)[points] > 0.3
                assert wrong.mean() < 0.2
            else:
                assert np.abs(flow - step)[points].max(initial=0) < 0.02
            checked += int(points.sum())
    assert checked > 1500


@pytest.mark.parametrize("kind", PAPER_MOTIONS)
def test_before_a_still_camera_only_the_object_moves(kind: str) -> None:
    for index in range(3):
        truth = true_motion(draw_scene(kind, 9, seed=11, index=index))
        moving = np.linalg.norm(truth.from_previous_fhw2, axis=-1) > 1e-9
        assert not (moving & ~truth.object_mask_fhw).any()
        assert moving[1:].any()
        going = np.linalg.norm(truth.from_first_fhw2, axis=-1) > 1e-9
        assert not (going & ~truth.object_mask_fhw[:1]).any()
        assert not truth.from_previous_fhw2[0].any()
        assert not truth.from_first_fhw2[0].any()


def test_a_static_scene_is_one_frame_repeated_and_its_truth_zero() -> None:
    scene = draw_scene("static", 9, seed=1, index=3)
    frames, truth = render_frames(scene), true_motion(scene)
    assert (frames == frames[0]).all()
    assert np.abs(truth.from_previous_fhw2).max() < 1e-9
    assert np.abs(truth.from_first_fhw2).max() < 1e-9
    assert truth.object_mask_fhw[0].any()


def test_the_object_mask_is_where_the_object_is_painted() -> None:
    scene = draw_scene("spin", 2, seed=1, index=0)
    frames, (mask, _) = render_frames(scene), true_motion(scene).object_mask_fhw
    differs = (frames != render_frames(replace(scene, pieces=[])))[0].any(-1)
    around = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    assert differs[interior(mask)].all()
    assert not differs[~around].any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_scene_is_its_seed_index_kind_and_camera(kind: str) -> None:
    one, same = (render_frames(draw_scene(kind, 5, seed=1, index=2)) for _ in range(2))
    assert one.shape == (5, SIZE, SIZE, 3)
    assert one.dtype == np.uint8
    assert np.array_equal(one, same)
    for seed, index in ((2, 2), (1, 3)):
        assert not np.array_equal(one, render_frames(draw_scene(kind, 5, seed=seed, index=index)))


def test_any_motion_can_be_filmed_by_any_camera() -> None:
    by_camera = {c: draw_scene("roll", 5, seed=1, index=2, camera=c) for c in CAMERAS}
    maps = [s.pieces[0].affine_f23 for s in by_camera.values()]
    assert all(np.array_equal(m, maps[0]) for m in maps)
    assert len({render_frames(s).tobytes() for s in by_camera.values()}) == len(CAMERAS)
    assert all(s.camera == c for c, s in by_camera.items())


def test_one_frame_is_no_motion() -> None:
    with pytest.raises(ValueError, match="at least two frames"):
        draw_scene("slide", 1, seed=0, index=0)
