"""Estimators against the definitions that they stand for."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from motive.errors import UserError
from motive.influence.datamodelling import linear_datamodelling_scores
from motive.influence.estimators import (
    ESTIMATORS,
    averaged,
    centred_cosine,
    cosine,
    dot,
    estimator_named,
    ridge,
    with_floor,
)

seeds = st.integers(0, 2**31)


def features(seed: int, count: int, dim: int = 12) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, dim))


def test_estimators_are_known_by_their_names() -> None:
    assert all(estimator_named(name).name == name for name in ESTIMATORS)
    assert estimator_named("paper").passes == (1, 1)
    with pytest.raises(UserError, match=r"no estimator 'tracin': use paper, "):
        estimator_named("tracin")


@given(seeds, st.floats(0.01, 100))
def test_ridge_is_the_damped_inverse_in_feature_space(seed: int, damping: float) -> None:
    clips, queries = features(seed, 7), features(seed + 1, 3)
    gram = clips.T @ clips / 7
    strength = damping * np.trace(gram) / 7
    expected = queries @ np.linalg.inv(gram + strength * np.eye(12)) @ clips.T
    np.testing.assert_allclose(ridge(queries, clips, damping), expected, rtol=1e-6, atol=1e-9)


@given(seeds)
def test_ridge_with_much_damping_ranks_as_the_dot_product(seed: int) -> None:
    clips, queries = features(seed, 6), features(seed + 1, 2)
    damped = ridge(queries, clips, 1e9)
    scale = np.abs(dot(queries, clips)).max() / np.abs(damped).max()
    np.testing.assert_allclose(scale * damped, dot(queries, clips), rtol=1e-4, atol=1e-4)


@given(seeds)
def test_centring_forgets_what_all_clips_have_in_common(seed: int) -> None:
    clips = features(seed, 9)
    clips /= np.linalg.norm(clips, axis=1, keepdims=True)
    clips -= clips.mean(0)
    # Along a direction of its own, of a length that keeps every sum a unit vector up to one factor.
    length = 3 * np.linalg.norm(clips, axis=1).max()
    common = np.sqrt(length**2 - (clips**2).sum(1, keepdims=True))
    unit = np.hstack([clips, common]) / length
    scores = centred_cosine(unit, unit)
    direction = unit - unit.mean(0)
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    np.testing.assert_allclose(scores, direction @ direction.T, atol=1e-9)


@pytest.mark.parametrize("geometry", [dot, cosine, centred_cosine, ridge])
def test_a_clip_without_gradient_scores_zero(geometry: object) -> None:
    clips, queries = features(1, 5), features(2, 3)
    clips[2] = 0
    scores = geometry(queries, clips)  # type: ignore[operator]
    assert (scores[:, 2] == 0).all()
    assert (scores[:, [0, 1, 3, 4]] != 0).all()
    assert (geometry(queries, 0 * clips) == 0).all()  # type: ignore[operator]


def test_the_mean_over_draws_of_units_and_of_gradients() -> None:
    draws = np.array([[[3.0, 0.0], [0.0, 0.0]], [[0.0, 1.0], [0.0, 2.0]]], np.float32)
    np.testing.assert_allclose(averaged(draws), [[1.5, 0.5], [0, 1]])
    np.testing.assert_allclose(averaged(draws, units=True), [[0.5, 0.5], [0, 0.5]])


def test_a_floor_is_a_gradient_of_the_floored_weights() -> None:
    """Of a linear model: the gradient of mean(w · (a·θ − y)²) is linear in w."""
    rng = np.random.default_rng(3)
    a, y, theta, w = rng.random((20, 4)), rng.random(20), rng.random(4), rng.random(20)

    def gradient(weights: np.ndarray) -> np.ndarray:
        return 2 * (weights * (a @ theta - y)) @ a / 20

    found = with_floor(gradient(w), gradient(np.ones(20)), 0.5)
    np.testing.assert_allclose(found, gradient(w + 0.5))
    np.testing.assert_array_equal(
        with_floor(gradient(w), gradient(np.ones(20)), None), gradient(np.ones(20))
    )


def test_effect_predicts_a_preconditioned_step_exactly_where_it_is_linear() -> None:
    """Losses that are linear in the weights, and one step of a diagonally scaled descent."""
    rng = np.random.default_rng(5)
    gradients, queries, scale = rng.random((30, 8)), rng.random((6, 8)), rng.random(8)
    members = np.zeros((25, 30), bool)
    for row in members:
        row[rng.choice(30, 8, replace=False)] = True
    losses = -(members @ (gradients * scale) / 8) @ queries.T
    root = np.sqrt(scale)
    scores = ESTIMATORS["effect"].scores(queries * root, gradients * root)
    np.testing.assert_allclose(linear_datamodelling_scores(scores, losses, members), 1)
    plain = ESTIMATORS["effect"].scores(queries, gradients)
    assert linear_datamodelling_scores(plain, losses, members).mean() < 0.99
