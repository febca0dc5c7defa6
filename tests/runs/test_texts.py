"""Texts as Arrow holds them, against lists and dictionaries."""

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motive.runs import texts as module
from motive.runs.matching import places_of
from motive.runs.texts import Texts, as_array, ascending, is_among

WORDS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=3), max_size=40)


@settings(deadline=None)
@given(WORDS)
def test_texts_are_a_list_of_texts(words: list[str]) -> None:
    texts = Texts(words)
    assert list(texts) == words
    assert texts == words
    assert texts == Texts(pa.chunked_array([words[:3], words[3:]], pa.string()))
    assert list(texts[1:7]) == words[1:7]
    assert [texts[i] for i in range(-len(words), 0)] == words
    assert Texts([*words, "other"]) != texts


@settings(deadline=None)
@given(WORDS)
def test_ascending_is_sorted_and_knows_the_first(words: list[str]) -> None:
    found, places = ascending(pa.array(words, pa.string()))
    # Arrow compares bytes of UTF-8 and Python code points, which is the same order.
    assert found.to_pylist() == sorted(set(words))
    assert places.tolist() == [words.index(word) for word in found.to_pylist()]
    texts = Texts(found)
    assert [texts.place_of(word) for word in texts] == list(range(len(texts)))
    missing = "".join(words) + "!"
    if missing not in words:
        with pytest.raises(KeyError):
            texts.place_of(missing)


@settings(deadline=None)
@given(WORDS, WORDS, st.integers(1, 50))
def test_texts_are_compared_in_parts(words: list[str], values: list[str], together: int) -> None:
    distinct = list(dict.fromkeys(values))
    texts = pa.array(words, pa.string())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "COMPARED", together)
        assert is_among(texts, values).tolist() == [word in values for word in words]
        assert places_of(texts, pa.array(distinct, pa.string())).tolist() == [
            distinct.index(word) if word in values else -1 for word in words
        ]


def test_texts_of_more_than_two_gigabytes_have_longer_offsets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_ONE_ARRAY", 10)
    whole = as_array(pa.chunked_array([["a" * 8], ["b" * 8]]))
    assert whole.type == pa.large_string()
    assert is_among(whole, pa.array(["b" * 8])).tolist() == [False, True]
    assert places_of(pa.array(["b" * 8, "c"]), whole).tolist() == [1, -1]
