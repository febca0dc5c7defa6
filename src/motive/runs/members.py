"""The run's account of its files: every clip and query that the datasets name, and what became of it.

A run may have millions of them. What is asked of all of them at once is asked of columns, as Arrow holds
them; a `Member` is made of its row when it is asked for, and let go of.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Literal, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from motive.runs.matching import places_of
from motive.runs.placed import Held, Placed, Snapshot, in_blocks
from motive.runs.tables import Row, Table
from motive.runs.texts import Texts, as_array, ascending, is_among

Role = Literal["clip", "query"]
POLARITIES = ("wanted", "unwanted")
MADE_BY = "datasets"

SCHEMA = pa.schema(
    [
        ("role", pa.string()),
        ("file_name", pa.string()),
        ("path", pa.string()),
        ("file", pa.string()),
        ("caption", pa.string()),
        ("caption_id", pa.string()),
        ("extra", pa.string()),
        ("clip_id", pa.string()),
        ("frames", pa.int32()),
        ("fps", pa.float32()),
        ("reason", pa.string()),
    ]
)


_NAMES = [field.name for field in SCHEMA]
_FEW = 4096  # members that are kept in memory with all that is known of them
_TAKEN = 32_768  # members that are made at once, where they are asked for by their place


@dataclass(frozen=True, slots=True)
class Member:
    """One file of a dataset in its role.

    file: `file_key` of the file when it was ingested.
    extra: the dataset's other columns, as JSON.
    clip_id, frames, fps: what ingest found; empty and 0 when it failed.
    reason: why the file cannot be used; empty when it can.
    """

    role: Role
    file_name: str
    path: str
    file: str
    caption: str
    caption_id: str
    extra: str
    clip_id: str = ""
    frames: int = 0
    fps: float = 0.0
    reason: str = ""

    @property
    def usable(self) -> bool:
        return not self.reason

    @property
    def polarity(self) -> str:
        """Of a query: whether its motion is `wanted` or `unwanted`, by the dataset's column of that name."""
        return str(json.loads(self.extra).get("polarity") or POLARITIES[0])

    @property
    def unwanted(self) -> bool:
        """Whether the query shows what the model should not learn."""
        return self.polarity == "unwanted"

    @property
    def feature_key(self) -> str:
        """What a gradient feature is about: the clip with its caption."""
        return f"{self.clip_id}:{self.caption_id}"


class Members(Sequence[Member]):
    """Members in an order. Memory holds their places at most, unless they are few.

    rows: with the columns of `SCHEMA`. places: which of them, int64; None is all.
    """

    def __init__(self, rows: Placed, places: np.ndarray | None = None) -> None:
        self._rows, self._places = rows, places

    @staticmethod
    def of(members: Iterable[Member]) -> "Members":
        """Members that are there already."""
        return Members(Held(pa.Table.from_pylist(list(map(as_row, members)), schema=SCHEMA)))

    @staticmethod
    def stored(table: Table) -> "Members":
        """The members in a run's table, in dataset order, clips before queries; none without a table."""
        if not table.exists():
            return Members.of(())
        rows = Snapshot(table)
        if len(rows) > _FEW:
            return Members(rows)
        return Members(Held(pa.Table.from_batches(rows.batches(_NAMES), SCHEMA)))

    def __len__(self) -> int:
        return len(self._rows) if self._places is None else len(self._places)

    @overload
    def __getitem__(self, place: int) -> Member: ...
    @overload
    def __getitem__(self, place: slice) -> "Members": ...
    def __getitem__(self, place: int | slice) -> "Member | Members":
        if isinstance(place, slice):
            return self.take(np.arange(len(self))[place])
        return next(iter(self.take(np.array([range(len(self))[place]]))))

    def __iter__(self) -> Iterator[Member]:
        for batch in self.batches(_NAMES):
            columns = {name: batch.column(name).to_pylist() for name in _NAMES}
            shared: dict[object, object] = {}
            for name in ("role", "extra", "fps", "reason"):  # which many members have in common
                columns[name] = [shared.setdefault(value, value) for value in columns[name]]
            yield from map(Member, *columns.values())

    def batches(self, names: list[str]) -> Iterator[pa.RecordBatch]:
        """Columns of `SCHEMA`, in order, in blocks of `motive.runs.placed.BLOCK` rows."""
        if self._places is None:
            yield from self._rows.batches(names)
            return
        for start in range(0, len(self._places), _TAKEN):
            taken = self._rows.take(self._places[start : start + _TAKEN], names)
            yield from in_blocks(taken.to_batches())

    def column(self, name: str) -> pa.Array:
        """A column of `SCHEMA`, or `feature_key`, of all of them."""
        if name == "feature_key":
            return pc.binary_join_element_wise(
                self.column("clip_id"), self.column("caption_id"), ":"
            )
        # All rows are read in order, which takes less than to look for many.
        whole = self._places is None or 8 * len(self._places) > len(self._rows)
        batches = self._rows.batches([name]) if whole else self.batches([name])
        column = as_array(
            pa.chunked_array([b.column(0) for b in batches], type=SCHEMA.field(name).type)
        )
        return column.take(pa.array(self._places)) if whole and self._places is not None else column

    def take(self, which: np.ndarray) -> "Members":
        """Those at these places of this sequence, in the order of the places; or where a mask says so."""
        if which.dtype == bool:
            which = np.flatnonzero(which)
        return Members(self._rows, which if self._places is None else self._places[which])

    def usable(self, role: Role | None = None) -> "Members":
        """Those that ingest could use, in both roles or in one."""
        mine = self if role is None else self.of_role(role)
        return mine.take(is_among(mine.column("reason"), [""]))

    def of_role(self, role: Role) -> "Members":
        """The clips or the queries, usable or not."""
        return self.take(is_among(self.column("role"), [role]))

    def sorted_by(self, name: str) -> "Members":
        """In ascending order of a column, each of its values once: of equals the first counts."""
        return self.take(ascending(self.column(name))[1])

    def without(self, name: str, values: Collection[str]) -> "Members":
        """Those whose column is none of these values."""
        return self.take(~is_among(self.column(name), values)) if values else self


class ByClipId(Mapping[str, Member]):
    """Usable members of one role by clip id, in their order. One that is asked for is read from its place."""

    def __init__(self, members: Members) -> None:
        self.members = members
        ids, self._places = ascending(members.column("clip_id"))
        self._ids = Texts(ids)
        self._known: dict[str, Member] = {}

    def __len__(self) -> int:
        return len(self.members)

    def __iter__(self) -> Iterator[str]:
        return iter(Texts(self.members.column("clip_id")))

    def __getitem__(self, clip_id: str) -> Member:
        if clip_id not in self._known:
            place = self._places[self._ids.place_of(clip_id)]
            if len(self._known) >= _TAKEN:
                self._known = {}
            self._known[clip_id] = self.members[int(place)]
        return self._known[clip_id]

    def __contains__(self, clip_id: object) -> bool:
        try:
            return isinstance(clip_id, str) and self._ids.place_of(clip_id) >= 0
        except KeyError:
            return False

    def values(self) -> Members:  # type: ignore[override]
        """All of them."""
        return self.members

    def those(self, clip_ids: pa.Array | Sequence[str]) -> Members:
        """Those of these ids, in the order of the ids.

        Raises KeyError for an id that is none of them.
        """
        wanted = as_array(clip_ids)
        found = places_of(wanted, self._ids.array)
        if (found < 0).any():
            raise KeyError(wanted[int(np.argmin(found))].as_py())
        return self.members.take(self._places[found])


def save(table: Table, members: Members) -> None:
    """Replace the table's content, unless it says the same already."""
    if not table.exists() or not _same(members, Members.stored(table)):
        table.replace_batches(lambda: map(_with_keys, members.batches(_NAMES)))


def _same(members: Members, others: Members) -> bool:
    if len(members) != len(others):
        return False
    blocks = zip(members.batches(_NAMES), others.batches(_NAMES), strict=True)
    return all(mine.equals(theirs) for mine, theirs in blocks)


_values = attrgetter(*_NAMES)


def as_row(member: Member) -> Row:
    """A member by the columns of `SCHEMA`."""
    return dict(zip(_NAMES, _values(member), strict=True))


def _with_keys(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Rows as the table has them."""
    key = pc.binary_join_element_wise(batch["role"], batch["file_name"], ":")
    made_by = pa.repeat(pa.scalar(MADE_BY), batch.num_rows)
    return pa.RecordBatch.from_arrays([key, made_by, *batch.columns], ["key", "made_by", *_NAMES])
