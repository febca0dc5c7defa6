"""The compiled loops of the camera fit against plain NumPy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motive.motion.camera_kernel import _exceeds, cheapest, choose, compare, refine, single


def lead(map_4: np.ndarray, points_2n: np.ndarray) -> np.ndarray:
    a, b, c, d = map_4
    return np.array([[a, -b], [b, a]]) @ points_2n + [[c], [d]]


def draw(seed: int, points: int) -> tuple[np.random.Generator, np.ndarray, np.ndarray, np.ndarray]:
    """Points, 1 over their squared tolerance, and their trust."""
    random = np.random.default_rng(seed)
    points_2n = random.uniform(0, 100, (2, points))
    return random, points_2n, random.uniform(0.5, 4, points), random.uniform(0, 1, points)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 200))
def test_the_cheapest_map_is_the_one_that_numpy_finds(seed: int, points: int) -> None:
    random, places, per_tolerance, trust = draw(seed, points)
    maps = random.normal(0, (0.01, 0.01, 0.5, 0.5), (50, 4))
    moves = random.normal(0, 0.5, (2, points))
    costs = [
        trust @ np.minimum(((lead(m, places) - moves) ** 2).sum(0) * per_tolerance, 1) for m in maps
    ]
    arguments = (maps, places, moves, per_tolerance, trust)
    winner = cheapest(*(np.ascontiguousarray(v, np.float32) for v in arguments))
    assert costs[winner] <= min(costs) + 1e-4 * max(1, trust.sum())


def test_the_first_of_equal_maps_wins() -> None:
    _, places, per_tolerance, trust = draw(0, 100)
    maps = np.float32([[0, 0, 9, 9], [0, 0, 1, 0], [0, 0, 1, 0]])
    moves = np.float32(np.broadcast_to([[1.0], [0.0]], places.shape))
    arguments = (maps, places, moves, per_tolerance, trust)
    assert cheapest(*(np.ascontiguousarray(v, np.float32) for v in arguments)) == 1


@settings(deadline=None, max_examples=60)
@given(
    st.integers(0, 10_000), st.integers(1, 40), st.integers(1, 90), st.sampled_from([0, 0.5, 0.99])
)
def test_pixels_are_chosen_in_equal_steps_of_cumulated_trust(
    seed: int, height: int, width: int, without: float
) -> None:
    random, most = np.random.default_rng(seed), 300
    trust = random.uniform(size=(height, width)).astype(np.float32)
    trust[random.uniform(size=trust.shape) < without] = 0
    trust[-1, -1] = 0.5
    moves = random.normal(0, 3, (height, width, 2)).astype(np.float32)
    cumulated = np.cumsum(trust, dtype=np.float64)
    steps = (np.arange(most) + 0.5) / most * cumulated[-1]
    expected = np.unique(np.searchsorted(cumulated, steps))
    points, taken, worth, total, trusted = choose(trust, moves, -1.0, most)
    assert np.array_equal(points, np.stack([expected % width, expected // width], -1))
    assert np.array_equal(taken, -moves.reshape(-1, 2)[expected])
    assert np.array_equal(worth, trust.ravel()[expected])
    assert (total, trusted) == (cumulated[-1], np.count_nonzero(trust))


def test_pixels_without_any_trust() -> None:
    empty = choose(np.zeros((3, 5), np.float32), np.zeros((3, 5, 2), np.float32), 1.0, 8)
    assert empty[3:] == (0, 0)


def test_places_that_are_off_by_less_than_the_tolerance_agree() -> None:
    random, places, per_tolerance, _ = draw(0, 100)
    shifted = places + np.array([[3.0], [-1.0]])
    there = shifted + random.normal(0, 0.6, places.shape)
    off, agrees = compare(places.T.copy(), np.array([3.0, -1.0]), there.T.copy(), per_tolerance)
    expected = ((shifted - there) ** 2).sum(0) * per_tolerance
    assert np.array_equal(off, np.minimum(expected, 1))
    assert np.array_equal(agrees, expected < 1)
    assert 0 < agrees.mean() < 1


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 1024))
def test_no_map_is_passed_over_that_costs_no_more_than_the_limit(seed: int, points: int) -> None:
    random, places, per_tolerance, trust = draw(seed, points)
    map_4 = random.normal(0, (0.01, 0.01, 0.5, 0.5)).astype(np.float32)
    moves, trust = random.normal(0, 0.5, (2, points)), trust / trust.sum()
    arguments = single(places.T.copy(), moves.T.copy(), per_tolerance, trust)
    off = ((lead(map_4.astype(float), arguments[0].astype(float)) - arguments[1]) ** 2).sum(0)
    cost = float(arguments[3] @ np.minimum(off * arguments[2], 1))
    map_4 = tuple(map_4)
    assert not _exceeds(np.float32(cost * (1 + 1e-4)), map_4, *arguments)
    assert _exceeds(np.float32(cost * (1 - 1e-4)), map_4, *arguments)


@pytest.mark.parametrize("turns", [True, False])
def test_a_round_is_weighted_least_squares(turns: bool) -> None:
    random, places, per_tolerance, trust = draw(1, 300)
    there = lead(np.array([1.02, -0.03, 2, -1]), places) + random.normal(0, 0.3, places.shape)
    start = (1.0, 0.0, 1.0, 0.0)
    off = ((lead(np.array(start), places) - there) ** 2).sum(0) * per_tolerance
    root = np.sqrt(trust) / (1 + off)
    one, none = np.ones(300), np.zeros(300)
    (x, y), (u, v) = places, there
    columns = [(one, none), (none, one)]
    if turns:
        columns = [(x, y), (-y, x), *columns]
    else:
        u, v = u - x, v - y
    rows = np.stack([np.concatenate([p * root, q * root]) for p, q in columns], -1)
    expected = np.linalg.lstsq(rows, np.concatenate([u * root, v * root]), rcond=None)[0]
    found = refine(start, places, there, per_tolerance, trust, turns, 1)
    assert np.allclose(found, expected if turns else [1, 0, *expected], atol=1e-9)


def test_points_that_are_off_do_not_count_in_the_end() -> None:
    _, places, _, trust = draw(2, 400)
    truth = np.array([0.97, 0.05, 3, -2])
    there = lead(truth, places)
    there[:, :120] += 40
    found = refine((1.0, 0.0, 0.0, 0.0), places, there, np.full(400, 1.0), trust, True, 30)
    assert np.abs(np.array(found) - truth).max() < 0.01


@pytest.mark.parametrize("case", ["one place", "no trust"])
def test_what_determines_no_map_leaves_the_one_there_was(case: str) -> None:
    _, places, per_tolerance, trust = draw(3, 20)
    if case == "one place":
        places = np.full_like(places, 7.0)
    else:
        trust = np.zeros_like(trust)
    start = (1.0, 0.0, 0.5, 0.0)
    assert refine(start, places, places + 2.0, per_tolerance, trust, True, 8) == start
