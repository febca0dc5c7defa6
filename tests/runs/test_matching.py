"""Which row is whose, for ids of one length and for texts of any."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motive.runs import matching
from motive.runs.matching import places_of


@settings(deadline=None)
@given(
    st.lists(st.text("ab水", max_size=3), unique=True, max_size=20),
    st.lists(st.text("ab水", max_size=3), max_size=20),
)
def test_texts_of_any_length_are_found(texts: list[str], wanted: list[str]) -> None:
    expected = [texts.index(w) if w in texts else -1 for w in wanted]
    strings = pa.string()
    assert places_of(pa.array(wanted, strings), pa.array(texts, strings)).tolist() == expected


@settings(deadline=None)
@given(st.integers(1, 20), st.integers(1, 60), st.integers(0, 9), st.integers(0, 2**32))
def test_ids_of_one_length_are_found_also_in_a_slice(
    length: int, count: int, start: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    drawn = ["".join(line) for line in rng.choice(list("0123456789abcdef"), (count, length))]
    texts = sorted(set(drawn))
    rng.shuffle(texts)
    wanted = [drawn[i] if i % 3 else "x" * length for i in rng.permutation(count)]
    start = min(start, len(texts) - 1)
    found = places_of(pa.array(wanted), pa.array(texts).slice(start))
    there = texts[start:]
    assert found.tolist() == [there.index(w) if w in there else -1 for w in wanted]


@pytest.mark.parametrize("hashes", ["all equal", "wrong for one"])
def test_a_hash_alone_decides_nothing(monkeypatch: pytest.MonkeyPatch, hashes: str) -> None:
    texts = [f"{i:020x}" for i in range(50)]
    wanted = [*texts[::-1], "f" * 20]

    def few(bytes_nb: np.ndarray) -> np.ndarray:
        numbers = np.arange(len(bytes_nb)) if len(bytes_nb) == 50 else np.zeros(len(bytes_nb))
        return np.zeros(len(bytes_nb), np.uint64) if hashes == "all equal" else numbers.astype("u8")

    monkeypatch.setattr(matching, "_hashes", few)
    found = places_of(pa.array(wanted), pa.array(texts))
    if hashes == "all equal":
        assert found.tolist() == [*range(49, -1, -1), -1]
    else:  # every wanted id has the hash of the first text, and only the first text's own is found
        assert found.tolist() == [-1] * 49 + [0, -1]
