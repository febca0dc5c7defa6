"""Many texts as Arrow holds them: the bytes and their ends, where a list has an object for each."""

from bisect import bisect_left
from collections.abc import Collection, Iterator, Sequence
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

COMPARED = 1 << 17  # texts that others are compared with at once
_BLOCK = 16_384  # texts that are Python objects at once
_ONE_ARRAY = 2**31 - 1  # bytes; Arrow's strings count their ends in 32 bits


class Texts(Sequence[str]):
    """Texts in a row. A million ids of 20 letters take 24 MB, and 70 MB as a list.

    array: the texts as one array, `large_string` where they are more than 2 GB.
    """

    def __init__(self, texts: pa.Array | pa.ChunkedArray | Sequence[str]) -> None:
        self.array = as_array(texts)

    def __len__(self) -> int:
        return len(self.array)

    @overload
    def __getitem__(self, place: int) -> str: ...
    @overload
    def __getitem__(self, place: slice) -> "Texts": ...
    def __getitem__(self, place: int | slice) -> "str | Texts":
        return Texts(self.array[place]) if isinstance(place, slice) else self.array[place].as_py()

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _BLOCK):
            yield from self.array.slice(start, _BLOCK).to_pylist()

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Texts):
            return bool(self.array.equals(other.array))
        return list(self) == other if isinstance(other, list) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def place_of(self, text: str) -> int:
        """Where `text` is, of texts that ascend by code point.

        Raises KeyError when it is not there.
        """
        place = bisect_left(self, text)
        if place == len(self) or self[place] != text:
            raise KeyError(text)
        return place


def as_array(texts: pa.Array | pa.ChunkedArray | Sequence[str]) -> pa.Array:
    """Texts as one Arrow array."""
    if isinstance(texts, Texts):
        return texts.array
    if isinstance(texts, pa.ChunkedArray):
        if texts.nbytes > _ONE_ARRAY:
            texts = texts.cast(pa.large_string())
        return texts.combine_chunks() if texts.num_chunks != 1 else texts.chunk(0)
    return texts if isinstance(texts, pa.Array) else pa.array(texts, pa.string())


def is_among(texts: pa.Array, values: pa.Array | Collection[str]) -> np.ndarray:
    """Which of the texts are one of these values, `(N,)` bool."""
    if not isinstance(values, pa.Array):
        values = pa.array(list(values), texts.type)
    among = np.zeros(len(texts), bool)
    # Some at a time: Arrow puts those that it compares with into a table of 100 bytes for each.
    for start in range(0, len(values), COMPARED):
        part = values.slice(start, COMPARED).cast(texts.type)
        among |= pc.is_in(texts, value_set=part).to_numpy(zero_copy_only=False)
    return among


def ascending(texts: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """The distinct texts in ascending order, and where the first of each is in `texts`, int64."""
    order = pc.array_sort_indices(texts)  # stable, so that of equal texts the first comes first
    found = texts.take(order)
    if len(found) < 2:
        return found, order.to_numpy().astype(np.int64)
    new = pc.not_equal(found.slice(1), found.slice(0, len(found) - 1))
    keep = np.concatenate([[True], new.to_numpy(zero_copy_only=False)])
    if keep.all():
        return found, order.to_numpy().astype(np.int64)
    return found.filter(pa.array(keep)), order.to_numpy()[keep].astype(np.int64)
