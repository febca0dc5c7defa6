import random
from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motive.study.design import Check, Design, Pair, Rules
from motive.study.plan import balanced_sides, plan_places


def design_of(
    videos: int, arm_pairs: int, annotators: int, per_pair: int, checks: int = 3
) -> Design:
    pairs = [
        Pair(id=f"{a}-{v}", prompt=str(v), seed=0, arm_a=f"arm{a}", arm_b="base")
        for a in range(arm_pairs)
        for v in range(videos)
    ]
    return Design(
        id="study",
        arms={},
        rules=Rules(per_pair=per_pair, seed=videos),
        pairs=tuple(pairs),
        checks=tuple(Check(id=f"check{k}", video_a="", video_b="") for k in range(checks)),
        annotators=tuple(map(str, range(annotators))),
    )


@st.composite
def designs(draw: st.DrawFn) -> Design:
    annotators = draw(st.integers(1, 12))
    return design_of(
        draw(st.integers(1, 14)),
        draw(st.integers(1, 4)),
        annotators,
        draw(st.integers(1, annotators)),
        draw(st.integers(0, 5)),
    )


@given(designs())
@settings(max_examples=150, deadline=None)
def test_every_pair_is_judged_as_often_as_planned_and_by_nobody_twice(design: Design) -> None:
    places = plan_places(design)
    checks = {check.id for check in design.checks}
    shown = Counter(p.item_id for p in places if p.item_id not in checks)
    assert shown == {pair.id: design.rules.per_pair for pair in design.pairs}
    assert max(Counter((p.annotator, p.item_id) for p in places).values()) == 1
    loads = Counter(p.annotator for p in places if p.item_id not in checks)
    counts = [loads[k] for k in range(len(design.annotators))]
    assert max(counts) - min(counts) <= 1


@given(designs())
@settings(max_examples=150, deadline=None)
def test_sides_are_balanced_for_every_pair_and_for_every_annotator(design: Design) -> None:
    arms = {pair.id: pair.arms for pair in design.pairs}
    of_item: dict[object, int] = defaultdict(int)
    of_annotator: dict[object, int] = defaultdict(int)
    of_checks: dict[object, int] = defaultdict(int)
    for place in plan_places(design):
        sign = 1 if place.a_left else -1
        if place.item_id in arms:
            of_item[place.item_id] += sign
            of_annotator[place.annotator, arms[place.item_id]] += sign
        else:
            of_checks[place.annotator] += sign
    for balance in (of_item, of_annotator, of_checks):
        assert all(abs(total) <= 1 for total in balance.values())


@given(designs())
@settings(max_examples=50, deadline=None)
def test_positions_count_up_and_checks_do_not_come_first(design: Design) -> None:
    by_annotator = defaultdict(list)
    for place in plan_places(design):
        by_annotator[place.annotator].append(place)
    for places in by_annotator.values():
        assert sorted(p.position for p in places) == list(range(len(places)))
        first = min(places, key=lambda p: p.position)
        assert not first.item_id.startswith("check") or len(places) == len(design.checks)


def test_order_and_sides_differ_between_annotators_and_seeds() -> None:
    design = design_of(20, 1, 4, 4)
    orders = {
        tuple((p.item_id, p.a_left) for p in plan_places(design) if p.annotator == k)
        for k in range(4)
    }
    assert len(orders) == 4
    reseeded = design.model_copy(update={"rules": design.rules.model_copy(update={"seed": 7})})
    assert plan_places(design) == plan_places(design) != plan_places(reseeded)


def test_the_first_place_on_the_left_is_as_good_as_a_coin() -> None:
    lefts = [
        plan_places(design_of(4, 1, 2, 2).model_copy(update={"rules": Rules(per_pair=2, seed=s)}))
        for s in range(400)
    ]
    share = sum(places[0].a_left for places in lefts) / len(lefts)
    assert 0.4 < share < 0.6  # 4 deviations of 0.025


@given(st.sets(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1), st.integers())
def test_any_bipartite_graph_is_split_to_within_one(edges: set[tuple[int, int]], seed: int) -> None:
    listed = sorted(edges)
    balance: dict[tuple[str, int], int] = defaultdict(int)
    for (left, right), side in zip(
        listed, balanced_sides(listed, random.Random(seed)), strict=True
    ):
        balance["left", left] += 1 if side else -1
        balance["right", right] += 1 if side else -1
    assert max(abs(total) for total in balance.values()) <= 1


@pytest.mark.parametrize("seed", range(3))
def test_checks_are_spread_over_the_session(seed: int) -> None:
    design = design_of(40, 1, 1, 1, checks=4)
    design = design.model_copy(update={"rules": Rules(per_pair=1, seed=seed)})
    at = sorted(p.position for p in plan_places(design) if p.item_id.startswith("check"))
    assert [position // 11 for position in at] == [0, 1, 2, 3]
