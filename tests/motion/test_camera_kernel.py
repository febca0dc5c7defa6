"""The compiled loops of the camera fit against plain NumPy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motive.motion.camera_kernel import cheapest, refine


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
