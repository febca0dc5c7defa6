"""Motion fields: what magnitude and speed mean in each convention."""

import numpy as np
import pytest

from motive.motion.field import MotionField
from motive.zoo.scene import draw_scene, true_motion


def field(displacement_fhw2: np.ndarray, convention: str) -> MotionField:
    ones = np.ones(displacement_fhw2.shape[:3], np.float32)
    return MotionField(displacement_fhw2.astype(np.float32), ones, ones, convention)  # type: ignore[arg-type]


def test_magnitude_is_the_length_of_the_displacement() -> None:
    displacement = np.zeros((2, 3, 4, 2))
    displacement[1, 2, 3] = (3, -4)
    magnitude = field(displacement, "from_previous").magnitude_fhw()
    assert magnitude.shape == (2, 3, 4)
    assert magnitude[1, 2, 3] == 5
    assert magnitude.sum() == 5


@pytest.mark.parametrize("kind", ["slide", "camera_pan"])
def test_speed_is_per_frame_in_both_conventions(kind: str) -> None:
    truth = true_motion(draw_scene(kind, 9, seed=1, index=0))
    by_flow = field(truth.from_previous_fhw2, "from_previous").speed_fhw()
    by_tracks = field(truth.from_first_fhw2, "from_first").speed_fhw()
    assert by_flow[0].max() == by_tracks[0].max() == 0
    # These motions are steady: every frame shows the same greatest speed, however it is measured.
    assert np.allclose(by_flow[1:].max((1, 2)), by_flow[1].max(), atol=1e-4)
    assert np.allclose(by_tracks[1:].max((1, 2)), by_flow[1].max(), atol=1e-4)


def test_a_point_that_comes_back_has_speed_but_no_displacement() -> None:
    there_and_back = np.zeros((3, 1, 1, 2))
    there_and_back[1] = (2, 0)
    tracks = field(there_and_back, "from_first")
    assert tracks.magnitude_fhw().ravel().tolist() == [0, 2, 0]
    assert tracks.speed_fhw().ravel().tolist() == [0, 2, 2]
