"""The weight-free embedding: what moves alike is alike, whatever its length and size."""

import numpy as np
import pytest

from motive.motion.masks import Magnitude, MotionMaps
from motive.subsets.motion_statistics import PARTS, describe_motion


def maps(objects_fhw: np.ndarray) -> MotionMaps:
    def magnitude(values: np.ndarray) -> Magnitude:
        return Magnitude(values.astype(np.float32), float(values.min()), float(values.max()))

    still = np.zeros_like(objects_fhw)
    return MotionMaps(
        {
            "paper": magnitude(objects_fhw),
            "object": magnitude(objects_fhw),
            "camera": magnitude(still),
        },
        np.ones_like(objects_fhw, np.float32),
    )


def blob(frames: int, size: int, dx: float, dy: float, speed: float = 3.0) -> MotionMaps:
    """A moving disc: dx, dy how far its centre goes over the clip, in units of the frame."""
    y, x = np.mgrid[0:size, 0:size] / (size - 1)
    t = np.linspace(-0.5, 0.5, frames)[:, None, None]
    inside = (x - 0.5 - dx * t) ** 2 + (y - 0.5 - dy * t) ** 2 < 0.15**2
    field = speed * inside
    field[0] = 0
    return maps(field)


def test_the_path_tells_the_direction() -> None:
    for dx, dy in ((0.5, 0.0), (0.0, 0.5), (-0.5, 0.0)):
        _, rhythm, path, spread = describe_motion(blob(33, 64, dx, dy))
        along_x, along_y = path[:PARTS], path[PARTS:]
        assert along_x[-1] - along_x[0] == pytest.approx(dx * (PARTS - 1) / PARTS, abs=0.05)
        assert along_y[-1] - along_y[0] == pytest.approx(dy * (PARTS - 1) / PARTS, abs=0.05)
        assert rhythm.sum() == pytest.approx(1)
        assert np.allclose(rhythm, 1 / PARTS, atol=0.02)
        assert np.ptp(spread) < 0.08


def test_length_and_size_of_the_grid_hardly_matter() -> None:
    short, long = describe_motion(blob(17, 32, 0.4, 0.1)), describe_motion(blob(65, 96, 0.4, 0.1))
    for one, other in zip(short, long, strict=True):
        assert np.abs(one - other).max() < 0.06


def test_still_clips_have_no_path() -> None:
    amount, rhythm, path, spread = describe_motion(maps(np.zeros((9, 8, 8))))
    assert np.allclose(rhythm, 1 / PARTS)
    assert not path.any()
    assert not spread.any()
    assert amount[0] == pytest.approx(1)
    assert np.isfinite(np.concatenate(describe_motion(maps(np.zeros((1, 8, 8)))))).all()


def test_a_histogram_is_a_distribution_by_its_root() -> None:
    amount = describe_motion(blob(9, 16, 0.2, 0.0, speed=7.0))[0]
    assert (amount**2).sum() == pytest.approx(2)  # of the objects' motion and of the camera's


def test_a_growing_mass_spreads() -> None:
    y, x = np.mgrid[0:64, 0:64] / 63 - 0.5
    radius = np.linspace(0.1, 0.4, 17)[:, None, None]
    spread = describe_motion(maps(2.0 * (x**2 + y**2 < radius**2)))[3]
    for along in (spread[:PARTS], spread[PARTS:]):
        assert (np.diff(along) > 0).all()
