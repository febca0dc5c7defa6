"""temporal_flickering against VBench's golden vectors."""

from pathlib import Path

import numpy as np
import pytest
from vbench_goldens import arrays, blank, numbers

from motive.errors import ClipError
from motive.evaluation.catalog import DIMENSIONS
from motive.evaluation.temporal_flickering import TemporalFlickering, frame_differences
from motive.evaluation.video import Video


def test_scores_are_vbenchs(shared: Path) -> None:
    stored, expected = arrays(shared, "temporal_flickering"), numbers(shared, "temporal_flickering")
    scores = []
    for case in expected["cases"]:
        frames = stored[f"case{case['case']}_frames"]
        differences = stored[f"case{case['case']}_mae"]
        np.testing.assert_allclose(frame_differences(frames), differences, rtol=1e-6)
        scores.append(TemporalFlickering().score(Video(frames, 8.0)))
        assert scores[-1].value == pytest.approx(case["score"], abs=1e-6)
    found = DIMENSIONS["temporal_flickering"].aggregate(scores)
    assert found == pytest.approx(expected["aggregate"], abs=1e-6)


def test_ends_of_the_scale(shared: Path) -> None:
    expected = numbers(shared, "temporal_flickering")
    still = np.full((4, 8, 8, 3), 77, np.uint8)
    flash = np.tile(np.array([0, 255], np.uint8)[:, None, None, None], (2, 8, 8, 3))
    for frames, name in ((still, "constant_video"), (flash, "black_white_flash")):
        assert TemporalFlickering().score(Video(frames, 8.0)).value == expected[name]


def test_one_frame_is_refused() -> None:
    with pytest.raises(ClipError, match="one frame"):
        TemporalFlickering().score(blank(1))
