"""From the two flows of a pair of frames to visibility and confidence."""

import numpy as np
import pytest

from motive.motion.flow import agreement, in_sight, pixel_grid, sample


def constant(x: float, y: float, size: tuple[int, int] = (12, 16)) -> np.ndarray:
    return np.broadcast_to(np.float32([x, y]), (*size, 2)).copy()


def test_the_grid_has_x_before_y() -> None:
    grid = pixel_grid(3, 5)
    assert grid.shape == (3, 5, 2)
    assert grid[2, 4].tolist() == [4, 2]


def test_there_and_back_again_is_certain() -> None:
    assert agreement(constant(2.5, -1), constant(-2.5, 1)) == pytest.approx(1)


@pytest.mark.parametrize("error", [0.25, 0.5, 2.0])
def test_confidence_is_the_documented_function_of_the_error(error: float) -> None:
    back, forth = constant(3, 0), constant(-3 + error, 0)
    scale = 0.5 + 0.1 * (3 + abs(-3 + error))
    assert agreement(back, forth) == pytest.approx(np.exp(-((error / scale) ** 2)), abs=1e-6)


def test_the_way_there_is_read_where_the_way_back_leads() -> None:
    back, forth = constant(4, 0), constant(9, 9)
    forth[:, 6:] = (-4, 0)
    agrees = agreement(back, forth)
    assert agrees[:, 2:] == pytest.approx(1)  # from column 2 on, back leads to column 6 and beyond
    assert agrees[:, :2].max() < 0.01


def test_what_comes_from_outside_is_not_in_sight() -> None:
    seen = in_sight(constant(-3, 2))
    assert seen.shape == (12, 16)
    assert not seen[:, :3].any()
    assert not seen[10:].any()
    assert seen[:10, 3:].all()


def test_places_between_pixels_are_interpolated_and_the_edge_goes_on() -> None:
    ramp = np.tile(np.arange(8, dtype=np.float32), (4, 1))
    assert sample(ramp, pixel_grid(4, 8) + np.float32([0.5, 0]))[1].tolist() == [
        0.5, 1.5, 2.5, 3.5, 4.5, 5.5, 6.5, 7,
    ]  # fmt: skip
