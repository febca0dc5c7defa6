"""The leaderboard's scale and its weighted means against VBench's."""

from pathlib import Path

import numpy as np
import pytest
from vbench_goldens import arrays, numbers

from motive.evaluation.leaderboard import quality_score, total_score, weighted


def test_every_entry_is_vbenchs(shared: Path) -> None:
    stored, expected = arrays(shared, "leaderboard_score"), numbers(shared, "leaderboard_score")
    names = [str(name).replace(" ", "_") for name in stored["dimension"]]
    assert len(names) == 16
    for i, raw in enumerate(stored["raw"]):
        scores = dict(zip(names, (float(value) for value in raw), strict=True))
        np.testing.assert_allclose(
            [weighted(name, score) for name, score in scores.items()],
            stored["normalised_times_weight"][i],
            atol=1e-12,
        )
        assert quality_score(scores) == pytest.approx(expected["quality"][i], abs=1e-12)
        assert total_score(scores) == pytest.approx(expected["total"][i], abs=1e-12)


def test_no_score_without_all_of_its_dimensions(shared: Path) -> None:
    names = [str(n).replace(" ", "_") for n in arrays(shared, "leaderboard_score")["dimension"]]
    scores = dict.fromkeys(names, 0.9)
    del scores["scene"]
    assert total_score(scores) is None
    assert quality_score(scores) is not None
    del scores["imaging_quality"]
    assert quality_score(scores) is None
