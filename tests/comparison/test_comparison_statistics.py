"""Means, intervals and paired differences, against scipy and by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from motive.comparison.statistics import Interval, distinguishable, tabulate

numbers = st.floats(-10, 10).map(lambda x: round(x, 3))


@settings(deadline=None)
@given(st.lists(numbers, min_size=2, max_size=6), st.data())
def test_intervals_are_students(values: list[float], data: st.DataObject) -> None:
    others = data.draw(st.lists(numbers, min_size=len(values), max_size=len(values)))
    scores = {
        "mine": {s: {"d": v} for s, v in enumerate(values)},
        "reference": {s: {"d": v} for s, v in enumerate(others)},
    }
    cell = tabulate(scores, "reference")["mine"]["d"]
    for found, sample in (
        (cell.score, np.array(values)),
        (cell.difference, np.array(values) - np.array(others)),
    ):
        assert found is not None
        assert found.mean == pytest.approx(sample.mean(), abs=1e-12)
        if sample.std() > 1e-9:
            low, high = stats.t.interval(0.95, len(sample) - 1, sample.mean(), stats.sem(sample))
            assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)
    if np.ptp(np.array(values) - np.array(others)) > 1e-9:
        test = stats.ttest_rel(values, others)
        if abs(test.pvalue - 0.05) > 1e-6:
            assert distinguishable(cell.difference) == (test.pvalue < 0.05)


def test_the_base_is_one_model() -> None:
    scores = {
        "base": {None: {"d": 1.0}},
        "mine": {0: {"d": 2.0}, 1: {"d": 4.0}},
        "late": {1: {"d": 3.0}},
    }
    table = tabulate(scores, "base")
    assert table["base"]["d"].score == Interval(1.0, None, None, {"base": 1.0})
    assert table["base"]["d"].difference is None
    assert table["mine"]["d"].difference == Interval.of({0: 1.0, 1: 3.0})
    turned = tabulate(scores, "mine")
    assert turned["base"]["d"].difference == Interval.of({0: -1.0, 1: -3.0})
    assert turned["late"]["d"].difference == Interval(-1.0, None, None, {"1": -1.0})


def test_what_has_no_score_has_no_cell() -> None:
    scores = {"a": {0: {"d": 1.0}}, "b": {0: {"e": 2.0}}}
    table = tabulate(scores, "a")
    assert list(table["a"]) == ["d"]
    assert list(table["b"]) == ["e"]
    assert table["b"]["e"].difference is None


def test_zero_is_left_out_or_not() -> None:
    def interval(low: float | None, high: float | None) -> Interval:
        return Interval(math.nan, low, high, {})

    assert distinguishable(interval(0.1, 0.2))
    assert distinguishable(interval(-0.2, -0.1))
    for low, high in ((-0.1, 0.1), (0.0, 0.2), (None, None)):
        assert not distinguishable(interval(low, high))
    assert not distinguishable(None)
