"""What a page sees of the table: a filter, an order, a part of the rows, and histograms."""

import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from motive.errors import UserError
from motive.explorer.table import SCORE_PREFIX, ClipTable

BINS = 48
_KEPT = 12  # answers to filters and orders, of 4 bytes a clip at most

State = Literal["all", "chosen", "left", "computed", "included", "excluded", "noted"]


class Filter(BaseModel):
    """Which clips are wanted; everything that is said must hold.

    text: words that caption or file name must contain, all of them.
    ranges: by column, the least and the greatest value, both included; None is no bound.
    state: by what was computed and decided (`choice.Choice`).
    set: id of a set of clips that the server keeps (a lasso's, a clip's near-duplicates).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: str = Field("", max_length=400)
    ranges: dict[str, tuple[float | None, float | None]] = Field({}, max_length=64)
    state: State = "all"
    set: str = ""


def parse_filter(text: str) -> Filter:
    """A filter from JSON; empty text is every clip.

    Raises UserError when it is none.
    """
    try:
        return Filter.model_validate_json(text) if text else Filter()
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"][:2]) or "filter"
        raise UserError(f"the filter is wrong at {where}: {error.errors()[0]['msg']}") from None


class Views:
    """Answers of a table, the last few kept.

    state_mask: gives the clips in a state, `(N,)` bool.
    version: changes with every decision, so that no stale answer is given.
    """

    def __init__(
        self,
        table: ClipTable,
        state_mask: Callable[[State], np.ndarray],
        version: Callable[[], int],
    ) -> None:
        self.table, self._state_mask, self._version = table, state_mask, version
        self._kept: OrderedDict[tuple[Any, ...], np.ndarray] = OrderedDict()
        self._bins: dict[str, tuple[np.ndarray, float, float]] = {}
        self._sets: OrderedDict[str, np.ndarray] = OrderedDict()
        self._lock = threading.RLock()

    def keep_set(self, positions: Sequence[int] | np.ndarray) -> str:
        """An id by which a filter can name these clips; the last 50 sets are kept."""
        mask = np.zeros(len(self.table), bool)
        mask[np.asarray(positions, np.int64)] = True
        with self._lock:
            # At random, so that a page left open over a restart never means another page's clips.
            name = f"s{secrets.token_hex(8)}"
            self._sets[name] = np.packbits(mask)
            while len(self._sets) > 50:
                self._sets.popitem(last=False)
        return name

    def mask(self, wanted: Filter) -> np.ndarray | None:
        """The clips that a filter lets through, `(N,)` bool; None is all of them.

        Raises UserError for a column or a set that is not there.
        """
        if wanted == Filter():
            return None
        key = ("mask", wanted.model_dump_json(), self._version())
        return self._keep(key, lambda: self._make_mask(wanted))

    def rows(self, wanted: Filter, sort: str, descending: bool) -> np.ndarray:
        """Positions of the wanted clips in the order of a column, int32.

        Raises UserError for a column or a set that is not there.
        """
        mask = self.mask(wanted)
        try:
            order = self.table.order(sort, descending=descending)
        except KeyError:
            raise UserError(f"there is no column {sort[:80]!r} to sort by") from None
        if mask is None:
            return order
        key = ("rows", wanted.model_dump_json(), sort, descending, self._version())
        return self._keep(key, lambda: order[mask[order]])

    def histogram(self, name: str, wanted: Filter) -> dict[str, Any]:
        """Counts of all clips and of the wanted ones in equally wide bins of a column.

        Raises UserError for a column that is no number, or a set that is not there.
        """
        codes, low, high = self._binned(name)
        every = np.bincount(codes, minlength=BINS + 1)[:BINS]
        mask = self.mask(wanted)
        shown = every if mask is None else np.bincount(codes[mask], minlength=BINS + 1)[:BINS]
        return {"low": low, "high": high, "all": every.tolist(), "shown": shown.tolist()}

    def _make_mask(self, wanted: Filter) -> np.ndarray:
        found = np.ones(len(self.table), bool)
        for name, (low, high) in wanted.ranges.items():
            values = self._number(name)
            # float32 of the bound, so that a value that was shown is inside its own bound.
            if low is not None:
                found &= values >= np.float32(low)
            if high is not None:
                found &= values <= np.float32(high)
        if wanted.state != "all":
            found &= self._state_mask(wanted.state)
        if wanted.set:
            found &= self._set(wanted.set)
        if wanted.text.strip():
            found &= self.table.containing(wanted.text)
        return found

    def _binned(self, name: str) -> tuple[np.ndarray, float, float]:
        """The bin of every clip (BINS for none), and the column's extremes."""
        with self._lock:
            if name in self._bins:
                return self._bins[name]
        values = self._number(name).astype(np.float32)
        good = np.isfinite(values)
        low, high = (
            (float(values[good].min()), float(values[good].max())) if good.any() else (0.0, 0.0)
        )
        width = (high - low) or 1.0
        codes = np.full(len(values), BINS, np.uint8)
        codes[good] = np.minimum((values[good] - low) * (BINS / width), BINS - 1).astype(np.uint8)
        with self._lock:
            if len(self._bins) < 64 or not name.startswith(SCORE_PREFIX):
                self._bins[name] = codes, low, high
        return codes, low, high

    def _number(self, name: str) -> np.ndarray:
        try:
            return self.table.number(name)
        except KeyError:
            raise UserError(f"there is no column of numbers {name[:80]!r}") from None

    def _set(self, name: str) -> np.ndarray:
        with self._lock:
            if name not in self._sets:
                raise UserError(f"the set {name[:20]!r} is no longer kept: select the clips again")
            packed = self._sets[name]
        return np.unpackbits(packed, count=len(self.table)).astype(bool)

    def _keep(self, key: tuple[Any, ...], make: Callable[[], np.ndarray]) -> np.ndarray:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        made = make()
        with self._lock:
            self._kept[key] = made
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return made
