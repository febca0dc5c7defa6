"""What is measured by DIS flow: VBench's rules, told apart where motion differs."""

import numpy as np
import pytest
import torch
from vbench_goldens import synthetic

from motive.errors import ClipError
from motive.evaluation.dis_flow import DisInterpolator, DynamicDegreeDis, Jerk
from motive.evaluation.motion_smoothness import MotionSmoothness
from motive.evaluation.video import Video


def texture(height: int, width: int) -> np.ndarray:
    coarse = np.random.default_rng(0).integers(0, 256, (height // 4, width // 4, 3))
    return np.kron(coarse, np.ones((4, 4, 1))).astype(np.uint8)


def sliding(steps: list[int], side: int = 64) -> Video:
    """A window on a texture, which moves by so many pixels from frame to frame."""
    world = texture(side, side + 4 * 40)
    places = np.cumsum([0, *steps])
    return Video(np.stack([world[:, x : x + side] for x in places]), 8.0)


def test_what_moves_enough_is_dynamic() -> None:
    measure = DynamicDegreeDis()
    still, slow, fast = sliding([0] * 8), sliding([1] * 8), sliding([3] * 8)
    # The threshold is 1.5 pixels for frames of 64.
    assert [measure.score(video).value for video in (still, slow, fast)] == [0, 0, 1]
    found = measure.score(fast).details
    assert found["threshold"] == {"speed": 1.5, "count": 2}
    assert found["mean_pair_score"] == pytest.approx(3, abs=0.3)


def test_frames_are_thinned_out_as_vbenchs() -> None:
    # One pixel a frame at 24 frames per second is three at 8.
    slow = sliding([1] * 24)
    assert DynamicDegreeDis().score(Video(slow.frames_fhw3, 24.0)).value == 1
    assert DynamicDegreeDis().score(Video(slow.frames_fhw3, 24.0)).details["frames_kept"] == 9


def test_even_motion_is_smoother_than_uneven() -> None:
    smooth, rough = sliding([2] * 16), sliding([0, 4] * 8)
    interpolated = MotionSmoothness(DisInterpolator())
    assert interpolated.score(smooth).value > interpolated.score(rough).value + 0.02
    assert Jerk().score(rough).value > Jerk().score(smooth).value + 1


def test_the_middle_frame_lies_half_way() -> None:
    video = sliding([2, 2])
    first, middle, last = torch.from_numpy(video.frames_fhw3).permute(0, 3, 1, 2).float() / 255
    made = DisInterpolator()(first[None], last[None])
    assert made.shape == (1, 3, 64, 64)
    inner = (slice(None), slice(8, -8), slice(8, -8))
    off = (made[0][inner] - middle[inner]).abs().mean()
    blend = ((first + last)[inner] / 2 - middle[inner]).abs().mean()
    assert off < 0.3 * blend


def test_what_is_too_short_is_refused() -> None:
    with pytest.raises(ClipError, match="too few for jerk"):
        Jerk().score(Video(synthetic(3, 40, 40, 0), 8.0))
    assert DynamicDegreeDis().score(Video(synthetic(1, 40, 40, 0), 8.0)).value == 0
