"""dynamic_degree and the static filter against VBench's golden vectors, with stored flows as the network."""

from pathlib import Path

import numpy as np
import pytest
from vbench_goldens import arrays, blank, numbers, stored_flows

from motive.evaluation.catalog import DIMENSIONS
from motive.evaluation.dynamic_degree import DynamicDegree, Threshold, fastest_flow, flow_between
from motive.evaluation.static_filter import FASTEST, StaticFilter, is_static, pairs, thresholds


def test_every_case_is_vbenchs(shared: Path) -> None:
    stored, expected = arrays(shared, "dynamic_degree"), numbers(shared, "dynamic_degree")
    assert len(expected["cases"]) == 25
    scores = []
    for case in expected["cases"]:
        name = case["name"]
        network = stored_flows(stored, name)
        score = DynamicDegree(network).score(blank(case["T"], case["H"], case["W"], case["fps"]))
        scores.append(score)
        assert bool(score.value) is case["result"], name
        assert score.details["frames_kept"] == case["frames_kept"], name
        assert score.details["threshold"] == {"speed": case["thres"], "count": case["count_num"]}
        assert network.asked == [tuple(pair) for pair in stored[f"{name}_pairs"]], name
        mean = stored[f"{name}_scores"].mean() if len(stored[f"{name}_scores"]) else 0
        assert score.details["mean_pair_score"] == pytest.approx(mean, abs=1e-5), name
    assert DIMENSIONS["dynamic_degree"].aggregate(scores) == expected["aggregate"]


def test_each_pairs_score_is_vbenchs(shared: Path) -> None:
    stored = arrays(shared, "dynamic_degree")
    for case in numbers(shared, "dynamic_degree")["cases"]:
        name = case["name"]
        if f"{name}_flow_hw" not in stored:
            continue
        network = stored_flows(stored, name)
        frames = blank(case["T"], case["H"], case["W"]).frames_fhw3
        flows = [flow_between(network, frames[i], frames[j]) for i, j in network.flows]
        assert {tuple(flow.shape[1:]) for flow in flows} == {tuple(stored[f"{name}_flow_hw"])}
        found = [fastest_flow(flow, 0.05) for flow in flows]
        np.testing.assert_allclose(found, stored[f"{name}_scores"], atol=1e-5)


def test_the_threshold_is_strict_and_needs_a_pair() -> None:
    threshold = Threshold.of(2, 256, 256)
    assert threshold == Threshold(speed=6.0, count=0)
    assert not threshold.is_dynamic(np.array([]))
    assert threshold.is_dynamic(np.array([0.0]))
    assert not Threshold(6.0, 1).is_dynamic(np.array([6.0]))
    assert Threshold(6.0, 1).is_dynamic(np.array([6.0001]))


def test_static_filter_is_vbenchs(shared: Path) -> None:
    stored = arrays(shared, "static_filter")
    for case in numbers(shared, "static_filter")["cases"]:
        name, size = case["name"], (case["T"], case["H"], case["W"])
        network = stored_flows(stored, name)
        score = StaticFilter(network).score(blank(*size))
        assert bool(score.value) is case["is_static"], name
        assert network.asked == [tuple(pair) for pair in stored[f"{name}_pairs"]] == pairs(size[0])
        assert thresholds(*size) == (case["thres"], case["count_num"])
        frames = blank(*size).frames_fhw3
        found = [
            fastest_flow(flow_between(network, frames[i], frames[j]), FASTEST)
            for i, j in pairs(size[0])
        ]
        np.testing.assert_allclose(found, stored[f"{name}_scores"], atol=1e-5)
        assert is_static(np.array(found), *size) is case["is_static"]
