"""A run's ranked clips as columns in memory: a million of them in some 300 MB, each sort done once."""

import os
import re
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from motive.errors import UserError
from motive.explorer.ordering import number_order, text_order
from motive.explorer.stored import equals, read_columns, whole
from motive.motion.track import STATISTICS
from motive.runs.matching import places_of

if TYPE_CHECKING:
    from motive.pipeline import Run

SCORE_PREFIX = (
    "score:"  # of a column that holds the scores with one query, followed by the query's id
)


@dataclass(frozen=True)
class Column:
    """What a page needs to know of a column.

    kind: `number` or `text`. unit: of a number, may be empty. digits: after the decimal point.
    """

    name: str
    label: str
    kind: str
    unit: str = ""
    digits: int = 0


COLUMNS = (
    Column("rank", "Rank", "number"),
    Column("mean_score", "Mean score", "number", digits=4),
    Column("votes", "Votes", "number"),
    Column("mean_speed", "Motion", "number", "px/frame", 2),
    Column("object_speed", "Object motion", "number", "px/frame", 2),
    Column("camera_share", "Camera share", "number", digits=2),
    Column("p95_speed", "Fastest 5%", "number", "px/frame", 2),
    Column("moving_share", "Moving share", "number", digits=2),
    Column("jerk", "Jerk", "number", "px/frame³", 3),
    Column("confident_share", "Tracked share", "number", digits=2),
    Column("file_name", "File name", "text"),
    Column("caption", "Caption", "text"),
    Column("best_query", "Best query", "text"),
)
TEXTS = ("file_name", "caption")  # that a search looks into
_FEW, _KNOWN = 1000, 100_000  # ids of one question and of all, whose positions are remembered
_SCORE_ORDERS = 8  # of sorted scores with a query, so many are kept
_THREADS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
_POOL = ThreadPoolExecutor(_THREADS, thread_name_prefix="motive-search")


class ClipTable:
    """All ranked clips, best first: position p is rank p + 1.

    clip_ids: `(N,)` strings.
    numbers: by column name, `(N,)` float32 or int32; NaN where a clip has no such number.
    texts: by column name, `(N,)`.
    selected: the computed selection, `(N,)` bool.
    score_of: gives the scores with a query of that id, `(N,)` float32 in this table's order; raises
        KeyError for an id that is none.
    """

    def __init__(
        self,
        clip_ids: pa.Array,
        numbers: dict[str, np.ndarray],
        texts: dict[str, pa.Array],
        selected: np.ndarray,
    ) -> None:
        self.clip_ids, self.numbers, self.texts = clip_ids, numbers, texts
        self.selected = selected
        self.score_of: Callable[[str], np.ndarray] = _no_scores
        self._orders: dict[tuple[str, bool], np.ndarray] = {}
        self._lowered: dict[str, pa.Array] = {}
        self._known: dict[str, int] = {}
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return len(self.clip_ids)

    def take_over(
        self, orders: dict[tuple[str, bool], np.ndarray], lowered: dict[str, pa.Array]
    ) -> None:
        """Orders and lower-case texts that were made before and kept (`table_file`)."""
        self._orders.update(orders)
        self._lowered.update(lowered)

    def move_to(self, same: "ClipTable") -> None:
        """Hold the columns of an equal table, whose memory is a file's, and let go of one's own."""
        with self._lock:
            self.clip_ids, self.numbers, self.texts = same.clip_ids, same.numbers, same.texts
            self.selected, self._lowered = same.selected, same._lowered
            self._orders.update(same._orders)
        pa.default_memory_pool().release_unused()

    def number(self, name: str) -> np.ndarray:
        """A column of numbers, `(N,)`.

        Raises KeyError for a name that is none, also of a query.
        """
        if name.startswith(SCORE_PREFIX):
            return self.score_of(name.removeprefix(SCORE_PREFIX))
        return self.numbers[name]

    def order(self, name: str, *, descending: bool = False) -> np.ndarray:
        """Positions in the order of a column, `(N,)` int32; equal ones by rank, NaN last.

        Raises KeyError for a column that is not there.
        """
        key = (name, descending)
        with self._lock:
            found = self._orders.get(key)
        if found is None:
            found = self._sort(name, descending)
            with self._lock:
                scores = [k for k in self._orders if k[0].startswith(SCORE_PREFIX)]
                if name.startswith(SCORE_PREFIX) and len(scores) >= _SCORE_ORDERS:
                    del self._orders[scores[0]]
                self._orders[key] = found
        return found

    def _sort(self, name: str, descending: bool) -> np.ndarray:
        if name in self.texts:
            return text_order(self.texts[name], descending)
        numbers = self.number(name)
        return number_order(-numbers if descending else numbers)

    def lowered(self, name: str) -> pa.Array:
        """A text column in lower case, to search in."""
        with self._lock:
            if name not in self._lowered:
                self._lowered[name] = pc.utf8_lower(self.texts[name])
            return self._lowered[name]

    def containing(self, text: str) -> np.ndarray:
        """Which clips have every word of `text` in caption or file name, in any case, `(N,)` bool."""
        found = np.ones(len(self), bool)
        for word in text.lower().split():
            # Later words look only where the earlier ones were found.
            where = np.flatnonzero(found)
            if len(where) > len(self) // 2:
                found &= self._with_word(word)
            else:
                found[where] = self._with_word(word, pa.array(where))
        return found

    def _with_word(self, word: str, where: pa.Array | None = None) -> np.ndarray:
        """Which clips have the word, of all or of those in `where`; on as many threads as there are cores."""
        count = len(self) if where is None else len(where)
        if count == 0:
            return np.zeros(0, bool)
        piece = max(1, -(-count // (2 * _THREADS)))

        def search(job: tuple[str, int]) -> np.ndarray:
            name, start = job
            texts = self.lowered(name)
            if where is None:
                texts = texts.slice(start, piece)
            else:
                texts = texts.take(where.slice(start, piece))
            if name == "caption":
                # In long texts RE2 finds a word in half the time of Arrow's own search.
                return _as_bools(pc.match_substring_regex(texts, re.escape(word)))
            return _as_bools(pc.match_substring(texts, word))

        starts = range(0, count, piece)
        jobs = [(name, start) for name in TEXTS for start in starts]
        parts = list(_POOL.map(search, jobs))
        found = [
            np.concatenate(parts[i : i + len(starts)]) for i in range(0, len(parts), len(starts))
        ]
        return np.logical_or.reduce(found)

    def positions(self, clip_ids: Iterable[str]) -> np.ndarray:
        """The positions of these clips, in the order of the ids, `(n,)` int64.

        Raises KeyError, naming it, for a clip that is not ranked in the run.
        """
        wanted = list(clip_ids)
        if len(wanted) <= _FEW and all(i in self._known for i in wanted):
            return np.array([self._known[i] for i in wanted], np.int64)
        found = self._search(wanted)
        if (found < 0).any():
            raise KeyError(wanted[int(np.argmin(found))])
        for clip_id, position in zip(wanted[:_FEW], found.tolist(), strict=False):
            self._remember(clip_id, position)
        return found

    def known_positions(self, clip_ids: Iterable[str]) -> np.ndarray:
        """As `positions`, without those of clips that are not ranked in the run."""
        found = self._search(list(clip_ids))
        return found[found >= 0]

    def _search(self, clip_ids: list[str]) -> np.ndarray:
        ids = pa.array(clip_ids, pa.string())
        there = np.flatnonzero(
            _as_bools(pc.is_valid(pc.index_in(self.clip_ids, value_set=pc.unique(ids))))
        )
        if len(there) == 0:
            return np.full(len(ids), -1, np.int64)
        place = pc.index_in(ids, value_set=self.clip_ids.take(pa.array(there)))
        found = there[place.fill_null(0).to_numpy(zero_copy_only=False)]
        return np.where(_as_bools(pc.is_valid(place)), found, -1)

    def position(self, clip_id: str) -> int:
        """As `positions`, of one clip."""
        return int(self.positions([clip_id])[0])

    def row(self, position: int) -> dict[str, Any]:
        """One clip's columns as JSON has them; NaN is None."""
        clip_id = self.clip_ids[position].as_py()
        self._remember(clip_id, position)
        row: dict[str, Any] = {"clip_id": clip_id}
        for name, numbers in self.numbers.items():
            value = numbers[position].item()
            row[name] = value if value == value else None
        row |= {name: texts[position].as_py() for name, texts in self.texts.items()}
        row["selected"] = bool(self.selected[position])
        return row

    def _remember(self, clip_id: str, position: int) -> None:
        """A page's clips are asked for again at once, by their ids."""
        if len(self._known) >= _KNOWN:
            self._known = {}
        self._known[clip_id] = position


def read_table(run: "Run") -> ClipTable:
    """The table of a run with a selection, without scores by query.

    Raises UserError when there is none yet, or it cannot be read.
    """
    path = run.path / "selection.csv"
    if not path.is_file():
        raise UserError(f"{run.path} has no selection yet: run motive select {run.path}")
    with ThreadPoolExecutor(1, thread_name_prefix="motive-motion") as beside:
        motion = beside.submit(_read_motion, run)
        found = _read_selection(path)
        clip_ids = whole(found["clip_id"])
        numbers = {name: whole(found[name]).to_numpy() for name in ("rank", "mean_score", "votes")}
        numbers |= _in_order_of(clip_ids, motion.result())
    texts = {name: whole(found[name]) for name in ("file_name", "caption", "best_query")}
    return ClipTable(clip_ids, numbers, texts, _as_bools(whole(found["selected"])))


def _read_selection(path: Any) -> pa.Table:
    types = {
        "rank": pa.int32(),
        "clip_id": pa.string(),
        "file_name": pa.string(),
        "caption": pa.string(),
        "votes": pa.int32(),
        "mean_score": pa.float32(),
        "best_query": pa.dictionary(pa.int32(), pa.string()),
        "selected": pa.bool_(),
    }
    try:
        return pa_csv.read_csv(
            path,
            read_options=pa_csv.ReadOptions(block_size=8 << 20),
            parse_options=pa_csv.ParseOptions(newlines_in_values=True),
            convert_options=pa_csv.ConvertOptions(
                column_types=types, include_columns=list(types), strings_can_be_null=False
            ),
        )
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        reason = str(error).splitlines()[0][:120]
        raise UserError(
            f"{path} cannot be read ({reason}): make it anew with motive select {path.parent}"
        ) from None


def _read_motion(run: "Run") -> pa.Table | None:
    """Clip ids and motion statistics as they were written; None if no motion was followed."""
    stage = run.plan.track_stage
    table = run.store.results(stage)
    if not table.exists():
        return None
    return read_columns(table, ["key", *STATISTICS], equals("made_by", stage.fingerprint()))


def _in_order_of(clip_ids: pa.Array, motion: pa.Table | None) -> dict[str, np.ndarray]:
    """The motion statistics of these clips, NaN for a clip that has none."""
    ordered = {name: np.full(len(clip_ids), np.nan, np.float32) for name in STATISTICS}
    if motion:
        place = places_of(clip_ids, whole(motion["key"]))
        have = place >= 0
        for name, values in ordered.items():
            values[have] = motion[name].to_numpy()[place[have]]
    return ordered


def _no_scores(query_id: str) -> np.ndarray:
    raise KeyError(query_id)


def _as_bools(column: pa.Array) -> np.ndarray:
    return column.to_numpy(zero_copy_only=False)
