"""motion_smoothness against VBench's golden vectors, with the mean of both neighbours as the network."""

from pathlib import Path

import numpy as np
import pytest
import torch
from vbench_goldens import Average, arrays, blank, numbers

from motive.errors import ClipError
from motive.evaluation.catalog import DIMENSIONS
from motive.evaluation.motion_smoothness import MotionSmoothness
from motive.evaluation.video import Video


def test_scores_are_vbenchs(shared: Path) -> None:
    stored, expected = arrays(shared, "motion_smoothness"), numbers(shared, "motion_smoothness")
    scores = []
    for case in expected["cases"]:
        network = Average()
        video = Video(stored[f"case{case['case']}_frames"], 8.0)
        scores.append(MotionSmoothness(network).score(video))
        assert scores[-1].value == pytest.approx(case["score"], abs=1e-9)
        assert network.sizes == [tuple(case["network_input"])] * case["network_calls"]
    found = DIMENSIONS["motion_smoothness"].aggregate(scores)
    assert found == pytest.approx(expected["aggregate"], abs=1e-9)


def test_even_motion_is_perfectly_smooth(shared: Path) -> None:
    ramp = Video(arrays(shared, "motion_smoothness")["ramp_frames"], 8.0)
    assert MotionSmoothness(Average()).score(ramp).value == 1.0
    assert MotionSmoothness(Average()).score(blank(7)).value == 1.0


def test_predictions_become_grey_levels_by_truncation(shared: Path) -> None:
    table = arrays(shared, "motion_smoothness")["average_table"]
    one, other = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8))
    frames = np.repeat(np.stack([one.T, table, other.T])[..., None], 3, axis=-1)
    # The middle frame is what VBench makes of the average, so nothing is left.
    assert MotionSmoothness(Average()).score(Video(frames, 8.0)).value == 1.0


def test_what_goes_beyond_white_is_clipped() -> None:
    class Bright:
        identity = "bright"

        def __call__(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
            return first * 0 + 1.5

    white = Video(np.full((3, 20, 20, 3), 255, np.uint8), 8.0)
    assert MotionSmoothness(Bright()).score(white).value == 1.0


def test_two_frames_are_refused() -> None:
    with pytest.raises(ClipError, match="too few"):
        MotionSmoothness(Average()).score(blank(2))
