"""Cosine scores against a loop in double precision, in memory and through a table."""

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motive.errors import UserError
from motive.influence import scores as scoring
from motive.influence.kernel import pack_queries, score_rows
from motive.influence.scores import influence, score_table
from motive.runs.tables import Table


def units(count: int, dim: int, seed: int) -> np.ndarray:
    features = np.random.default_rng(seed).normal(size=(count, dim))
    return (features / np.linalg.norm(features, axis=1, keepdims=True)).astype(np.float32)


def summed_in_order(queries: np.ndarray, clips: np.ndarray) -> np.ndarray:
    """The rule to the letter: float64, from the first coordinate to the last, rounded once."""
    total = np.zeros((len(queries), len(clips)))
    for k in range(queries.shape[1]):
        total += np.outer(queries[:, k].astype(np.float64), clips[:, k].astype(np.float64))
    return total.astype(np.float32)


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


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 70),
    st.integers(1, 20),
    st.sampled_from([1, 3, 64, 512]),
    st.integers(1, 4),
    st.integers(0, 10**6),
)
def test_every_panel_gives_the_bits_of_the_plain_sum(
    queries: int, clips: int, dim: int, wide: int, seed: int
) -> None:
    q, n = units(queries, dim, seed), units(clips, dim, seed + 1)
    panels, wide = pack_queries(q, wide)
    found = np.full((queries, clips + 2), 7, np.float32)
    score_rows(n, panels, wide, found, 1)
    assert np.array_equal(found[:, 1:-1], summed_in_order(q, n))
    assert (found[:, [0, -1]] == 7).all()  # nothing is written beside its place


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


# Through a table.

DIM = 16
LIST = pa.list_(pa.float32())


def table_of(
    path: Path, features: np.ndarray, kind: pa.DataType = LIST, made_by: str = "a"
) -> Table:
    """Features in three appends, so in three fragments."""
    table = Table(path / "features.lance", pa.schema([("feature", kind)]))
    for part in np.array_split(np.arange(len(features)), 3):
        table.append(
            [{"key": f"clip {i}", "made_by": made_by, "feature": features[i]} for i in part]
        )
    return table


@pytest.mark.parametrize("kind", [LIST, pa.list_(pa.float32(), DIM)])
@pytest.mark.parametrize(("tile", "threads"), [(4096, 1), (7, 1), (7, 3), (1, 2)])
def test_scores_of_a_table_are_those_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: pa.DataType, tile: int, threads: int
) -> None:
    monkeypatch.setattr(scoring, "TILE", tile)
    queries, clips = units(11, DIM, 0), units(50, DIM, 1)
    expected = influence(queries, clips)
    table = table_of(tmp_path, clips, kind)
    there = sorted(tmp_path.iterdir())
    with score_table(table, "a", queries, folder=tmp_path, threads=threads) as scores:
        assert scores.keys.to_pylist() == [f"clip {i}" for i in range(50)]
        assert np.array_equal(np.stack(list(scores.rows())), expected)
        some = [31, 2, 49]
        picked = np.stack(list(scores.rows([f"clip {i}" for i in some])))
        assert np.array_equal(picked, expected[:, some])
        with pytest.raises(KeyError, match="clip 50"):
            list(scores.rows(["clip 3", "clip 50"]))
    assert sorted(tmp_path.iterdir()) == there


def test_only_the_features_that_were_asked_for_are_scored(tmp_path: Path) -> None:
    queries, clips = units(2, DIM, 0), units(9, DIM, 1)
    table = table_of(tmp_path, clips, made_by="it's")
    # Of another length, and of another objective.
    table.append([{"key": "clip 1", "made_by": "b", "feature": np.ones(3, np.float32)}])
    # The same clip again: it is there, and stays as it is.
    table.append([{"key": "clip 1", "made_by": "it's", "feature": queries[1]}])
    with score_table(table, "it's", queries) as scores:
        assert len(scores.keys) == 9
        found = np.stack(list(scores.rows([f"clip {i}" for i in range(9)])))
    assert np.array_equal(found, influence(queries, clips))
    with pytest.raises(UserError, match="has not the 16 numbers"):
        score_table(table, "b", queries)


def test_half_precision_costs_at_most_2_to_the_minus_11(tmp_path: Path) -> None:
    queries, clips = units(5, DIM, 0), units(40, DIM, 1)
    kind = pa.list_(pa.float16(), DIM)
    with score_table(table_of(tmp_path, clips.astype(np.float16), kind), "a", queries) as scores:
        found = np.stack(list(scores.rows()))
    assert np.array_equal(found, influence(queries, clips.astype(np.float16).astype(np.float32)))
    error = np.abs(found - influence(queries, clips)).max()
    assert 0 < error <= 2**-11 + 1e-6


def test_a_table_without_rows_has_no_scores(tmp_path: Path) -> None:
    with score_table(Table(tmp_path / "none.lance", pa.schema([])), "a", units(2, 4, 0)) as scores:
        assert [row.shape for row in scores.rows()] == [(0,), (0,)]


def test_a_table_that_is_damaged_is_named(tmp_path: Path) -> None:
    table = table_of(tmp_path, units(9, DIM, 1))
    for file in (table.path / "data").iterdir():
        file.write_bytes(b"no")
    with pytest.raises(UserError, match=r"features\.lance cannot be read"):
        score_table(table, "a", units(2, DIM, 0))
