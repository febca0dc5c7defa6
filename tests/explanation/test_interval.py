"""The curve keeps the sum of the map, and the interval is the best of all, tried one by one."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from motive.explanation.interval import best_interval, curve_over_frames

WAN = [range(1), range(1, 5), range(5, 9)]


def test_the_curve_shares_a_latent_frames_heat() -> None:
    heat_fhw = np.arange(12, dtype=np.float32).reshape(3, 2, 2)
    curve = curve_over_frames(heat_fhw, WAN, 11)  # Wan's encoder drops the last two frames
    np.testing.assert_allclose(curve, [6.0, *[22 / 4] * 4, *[38 / 4] * 4, 0, 0])
    assert curve.sum() == heat_fhw.sum()


@given(arrays.arrays(np.float64, st.integers(1, 12), elements=st.integers(-50, 50)))
def test_no_interval_stands_out_more(curve: np.ndarray) -> None:
    first, after = best_interval(curve)
    above = curve - curve.mean()
    candidates = [above[i:j].sum() for i in range(len(curve)) for j in range(i + 1, len(curve) + 1)]
    assert above[first:after].sum() >= max(candidates) - 1e-9
    assert 0 <= first < after <= len(curve)


def test_a_flat_curve_is_the_whole_clip() -> None:
    assert best_interval(np.full(7, 0.1)) == (0, 7)
    assert best_interval(np.zeros(3)) == (0, 3)


def test_a_burst_is_found() -> None:
    assert best_interval(np.array([0.0, 0.1, 2.0, 3.0, 0.1, 0.0])) == (2, 4)
