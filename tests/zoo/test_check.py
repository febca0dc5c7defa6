"""The judge of a ranking, on rankings whose value is known."""

import numpy as np
import pytest

from motive.zoo.check import mean_interval, precision_at_top

IDS = [f"{i:02d}" for i in range(20)]
MOTIONS = ["roll", "spin"] * 10


def test_a_perfect_a_reversed_and_a_half_right_ranking() -> None:
    perfect = np.array([m == "roll" for m in MOTIONS], float)
    half = np.zeros(20)
    half[[0, 1]] = 1
    shares = precision_at_top(np.stack([perfect, -perfect, half]), ["roll"] * 3, MOTIONS, IDS)
    assert shares.tolist() == [1.0, 0.0, 0.5]
    assert precision_at_top(perfect[None], ["swing"], MOTIONS, IDS).tolist() == [0.0]


def test_the_fraction_says_how_many_clips_count() -> None:
    scores = np.arange(20.0, 0, -1)[None]
    motions = ["roll"] * 3 + ["spin"] * 17
    by_fraction = {
        f: precision_at_top(scores, ["roll"], motions, IDS, fraction=f).item()
        for f in (0.01, 0.1, 0.15, 0.3, 1.0)
    }
    assert by_fraction == pytest.approx({0.01: 1, 0.1: 1, 0.15: 1, 0.3: 0.5, 1.0: 0.15})


def test_ties_go_to_the_smaller_clip_id_wherever_it_stands() -> None:
    scores = np.ones((1, 20))
    ids = IDS[::-1]
    motions = ["spin"] * 18 + ["roll"] * 2  # the smallest ids come last
    assert precision_at_top(scores, ["roll"], motions, ids).tolist() == [1.0]


def test_queries_and_scores_must_match() -> None:
    with pytest.raises(ValueError, match=r"zip\(\)"):
        precision_at_top(np.ones((2, 20)), ["roll"], MOTIONS, IDS)


def test_the_interval_is_students() -> None:
    mean, low, high = mean_interval([1.0, 2.0, 3.0, 4.0])
    # Standard error 0.645497; t at 97.5% with 3 degrees of freedom is 3.182446 (tables).
    assert mean == 2.5
    assert high - mean == pytest.approx(3.182446 * 0.6454972, rel=1e-5)
    assert mean - low == pytest.approx(high - mean)
    assert mean_interval([0.3]) == (0.3, 0.3, 0.3)
    assert mean_interval([0.3, 0.3]) == pytest.approx((0.3, 0.3, 0.3))
