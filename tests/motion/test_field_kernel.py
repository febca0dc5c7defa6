"""The compiled passes over a motion field give what NumPy gives, bit for bit."""

import numpy as np
import pytest
from fields import field_of

from motive.motion.camera import CameraMotion, estimate_camera
from motive.motion.field import Convention, MotionField, jerk_lengths, lengths
from motive.motion.field_kernel import put_steps
from motive.motion.masks import reduce_field
from motive.motion.statistics import CONFIDENT, MOVING, describe_field


def norm(vectors: np.ndarray) -> np.ndarray:
    x, y = vectors[..., 0], vectors[..., 1]
    return np.sqrt(x * x + y * y)


def steps(map_33: np.ndarray, height: int, width: int) -> np.ndarray:
    x, y = np.arange(width), np.arange(height)[:, None]
    along, down, depth = (row[0] * x + (row[1] * y + row[2]) for row in map_33)
    return np.stack([along / depth - x, down / depth - y], -1).astype(np.float32)


def drifting(convention: Convention, frames: int = 6) -> MotionField:
    """A camera that drifts and turns, an object, noise, and trust that differs."""
    rng = np.random.default_rng(0)
    map_33 = np.array([[1.01, -0.02, 3.0], [0.02, 1.01, -2.0], [0, 0, 1]])
    moves = np.stack([steps(map_33, 30, 37) * (f > 0) for f in range(frames)])
    moves[1:, 8:15, 10:20] += (4, -3)
    moves += rng.normal(0, 0.1, moves.shape)
    return field_of(moves, rng.uniform(0.3, 1, moves.shape[:3]), convention)


@pytest.mark.parametrize("shape", [(5, 2), (7, 9, 2), (3, 8, 11, 2), (0, 4, 4, 2)])
def test_lengths(shape: tuple[int, ...]) -> None:
    vectors = np.random.default_rng(0).normal(0, 5, shape).astype(np.float32)
    assert np.array_equal(lengths(vectors), norm(vectors))
    assert lengths(vectors).dtype == np.float32
    assert np.array_equal(lengths(vectors[::2]), norm(vectors[::2]))


@pytest.mark.parametrize("frames", [0, 1, 2, 3, 6])
def test_the_jerk_is_the_second_difference_over_frames(frames: int) -> None:
    velocity = np.random.default_rng(0).normal(0, 5, (frames, 6, 9, 2)).astype(np.float32)
    expected = norm(np.diff(velocity, n=2, axis=0)) if frames > 2 else np.empty((0, 6, 9))
    assert np.array_equal(jerk_lengths(velocity), expected)


@pytest.mark.parametrize("last_row", [(0, 0, 1), (1e-4, -2e-4, 1)])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_steps_of_a_map(last_row: tuple[float, ...], sign: float) -> None:
    map_33 = np.array([[1.02, -0.03, 2.7], [0.03, 1.02, -1.1], last_row])
    found = np.empty((30, 41, 2), np.float32)
    put_steps(map_33, sign, found)
    assert np.array_equal(found, np.float32(sign) * steps(map_33, 30, 41))


@pytest.mark.parametrize("convention", ["from_previous", "from_first"])
def test_the_statistics_are_those_of_whole_arrays(convention: Convention) -> None:
    field = drifting(convention)
    camera = estimate_camera(field)
    residual = camera.residual(field)
    found = describe_field(field, camera)
    velocity, trust = field.velocity_fhw2()[1:], field.visibility_fhw * field.confidence_fhw
    speed = norm(velocity)
    whole, rest = (
        float((trust * norm(of.displacement_fhw2) ** 2).sum(dtype=np.float64))
        for of in (field, residual)
    )
    assert 0.3 < found.camera_share < 1
    assert found.camera_share == 1 - rest / whole
    assert found.mean_speed == float(speed.mean())
    assert found.p95_speed == float(np.percentile(speed, 95))
    assert found.object_speed == float(norm(residual.velocity_fhw2())[1:].mean())
    assert found.moving_share == float((speed > MOVING).mean())
    assert found.jerk == float(norm(np.diff(velocity, n=2, axis=0)).mean())
    assert found.confident_share == float((trust[1:] >= CONFIDENT).mean())


def test_the_maps_extremes_are_the_whole_clips() -> None:
    field = drifting("from_previous")
    camera = estimate_camera(field)
    maps = reduce_field(field, 4, camera)
    parts = {"paper": field, "object": camera.residual(field), "camera": camera.part(field)}
    for motion, part in parts.items():
        whole = norm(part.displacement_fhw2)
        assert (maps.magnitudes[motion].low, maps.magnitudes[motion].high) == (
            float(whole.min()),
            float(whole.max()),
        )


def test_a_camera_splits_each_frame_exactly() -> None:
    field = drifting("from_previous")
    maps = np.tile(np.eye(3), (6, 1, 1))
    maps[2:, 0, 2] = 1.5
    split = list(CameraMotion(maps, np.ones(6)).split(field))
    for f, (camera, own) in enumerate(split):
        assert np.array_equal(own, field.displacement_fhw2[f] - camera)
        assert camera[..., 0] == pytest.approx(-1.5 if f >= 2 else 0)
        assert not camera[..., 1].any()
