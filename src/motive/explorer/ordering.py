"""Stable sorting orders of columns, as fast as NumPy and Arrow can be made to give them."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def number_order(numbers: np.ndarray) -> np.ndarray:
    """A stable ascending order, NaN last.

    NumPy sorts floats fast and unstably, or stably and slowly: so the positions of equal ones are put
    right afterwards.
    """
    if numbers.dtype.kind == "i":
        low, high = int(numbers.min(initial=0)), int(numbers.max(initial=0))
        if high - low < 2**16:
            # Integers of 16 bits are sorted stably in linear time.
            return np.argsort((numbers - low).astype(np.uint16), kind="stable").astype(np.int32)
        return np.argsort(numbers, kind="stable").astype(np.int32)
    order = np.argsort(numbers)
    ordered = numbers[order]
    same = (ordered[1:] == ordered[:-1]) | (np.isnan(ordered[1:]) & np.isnan(ordered[:-1]))
    if same.any():
        group = np.concatenate(([0], np.cumsum(~same)))
        order = order[np.lexsort((order, group))] if same.mean() > 0.01 else _settle(order, same)
    return order.astype(np.int32)


def _settle(order: np.ndarray, same: np.ndarray) -> np.ndarray:
    """The few runs of equal values, each in ascending order of position."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], same, [False])).astype(np.int8)))
    for first, last in zip(edges[::2], edges[1::2], strict=True):
        order[first : last + 1] = np.sort(order[first : last + 1])
    return order


def text_order(texts: pa.Array, descending: bool) -> np.ndarray:
    if pa.types.is_dictionary(texts.type):
        # A few names: their places in the alphabet are sorted instead of the names.
        alphabet = pc.sort_indices(texts.dictionary).to_numpy()
        place = np.empty(len(alphabet), np.int32)
        place[alphabet] = np.arange(len(alphabet), dtype=np.int32)
        codes = place[texts.indices.to_numpy(zero_copy_only=False)]
        return number_order(-codes if descending else codes)
    keys = [("text", "descending" if descending else "ascending")]
    return pc.sort_indices(pa.table({"text": texts}), sort_keys=keys).to_numpy().astype(np.int32)
