"""The numbers of a clip's motion against fields that are known."""

import numpy as np
import pytest
from fields import field_of

from motive.motion.camera import estimate_camera
from motive.motion.field import Convention
from motive.motion.statistics import describe_field


def test_statistics_of_a_known_field() -> None:
    displacement = np.zeros((3, 10, 10, 2))
    displacement[1, :5] = (3, 4)
    displacement[2, :, 0] = (0, 0.5)  # at the bound, not above it
    trust = np.ones((3, 10, 10))
    trust[0] = 0  # the first frame has no motion and does not count
    trust[2, :, :4] = 0.59
    trust[2, :, 4:] = 0.6
    found = describe_field(field_of(displacement, trust))
    assert found.mean_speed == found.object_speed
    assert found.mean_speed == pytest.approx((50 * 5 + 10 * 0.5) / 200)
    assert found.p95_speed == pytest.approx(5)
    assert found.moving_share == pytest.approx(50 / 200)
    assert found.confident_share == pytest.approx(160 / 200)
    assert (found.camera_share, found.jerk) == (0, 0)


@pytest.mark.parametrize("convention", ["from_previous", "from_first"])
def test_one_frame(convention: Convention) -> None:
    found = describe_field(field_of(np.zeros((1, 8, 8, 2)), convention=convention))
    assert (found.mean_speed, found.p95_speed, found.moving_share) == (0, 0, 0)
    assert (found.object_speed, found.camera_share, found.jerk) == (0, 0, 0)
    assert found.confident_share == 1


@pytest.mark.parametrize("convention", ["from_previous", "from_first"])
def test_jerk_is_the_third_difference_of_the_way(convention: Convention) -> None:
    def jerk_of(way_f: np.ndarray) -> float:
        step = np.diff(way_f, prepend=way_f[:1])
        along = way_f if convention == "from_first" else step
        displacement = np.zeros((len(way_f), 8, 8, 2))
        displacement[..., 1] = along[:, None, None]
        return describe_field(field_of(displacement, convention=convention)).jerk

    f = np.arange(8.0)
    assert jerk_of(2 * f) == 0
    assert jerk_of(0.5 * f**2) == pytest.approx(0, abs=1e-5)
    # The third difference of f³ is 6 everywhere.
    assert jerk_of(0.1 * f**3) == pytest.approx(0.6, rel=1e-4)
    assert jerk_of(np.array([0.0, 1, 0, 1, 0, 1])) == pytest.approx(4)
    assert jerk_of(np.array([0.0, 1, 0])) == 0


@pytest.mark.parametrize("convention", ["from_previous", "from_first"])
def test_a_pan_is_the_cameras_and_a_patch_the_objects(convention: Convention) -> None:
    steps = np.broadcast_to((3.0, 0.0), (4, 32, 32, 2)).copy()
    steps[0] = 0
    steps[1:, 8:16, 8:16] += (0, 2)
    way = np.cumsum(steps, 0) if convention == "from_first" else steps
    field = field_of(way, convention=convention)
    found = describe_field(field, estimate_camera(field))
    share = 64 / 1024
    assert found.object_speed == pytest.approx(2 * share, rel=0.05)
    assert found.mean_speed == pytest.approx(3 + share * (13**0.5 - 3), rel=1e-4)
    assert found.camera_share == pytest.approx(1 - 4 * share / (9 + 4 * share), abs=0.01)
    assert found.moving_share == 1
