"""Cosine scores against a loop in double precision."""

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from motive.influence.scores import influence


def units(count: int, dim: int, seed: int) -> np.ndarray:
    features = np.random.default_rng(seed).normal(size=(count, dim))
    return (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 5), st.integers(1, 9), st.integers(1, 600), st.integers(0, 10**6))
def test_scores_are_dot_products(queries: int, clips: int, dim: int, seed: int) -> None:
    q, n = units(queries, dim, seed), units(clips, dim, seed + 1)
    scores = influence(q, n)
    assert scores.shape == (queries, clips)
    assert scores.dtype == np.float32
    for i in range(queries):
        for j in range(clips):
            exact = math.fsum(float(a) * float(b) for a, b in zip(q[i], n[j], strict=True))
            # Right to the last bit, as a sum in single precision would not be.
            assert (
                abs(float(scores[i, j]) - exact) <= 0.51 * np.spacing(np.abs(scores[i, j])) + 1e-16
            )
    assert np.abs(scores).max() <= 1 + 1e-6


def test_a_clip_scores_1_with_itself_and_0_with_a_clip_without_motion() -> None:
    features = units(4, 512, 0)
    features[3] = 0
    scores = influence(features, features)
    assert np.allclose(np.diag(scores)[:3], 1, atol=1e-6)
    assert not scores[3].any()
    assert not scores[:, 3].any()
    assert np.array_equal(scores, scores.T)


def test_a_score_does_not_depend_on_the_other_clips() -> None:
    queries, clips = units(3, 512, 0), units(97, 512, 1)
    whole = influence(queries, clips)
    for part in (np.s_[:1], np.s_[5:30], np.s_[96:]):
        assert np.array_equal(influence(queries, clips[part]), whole[:, part])
    order = np.random.default_rng(0).permutation(97)
    assert np.array_equal(influence(queries, clips[order]), whole[:, order])
