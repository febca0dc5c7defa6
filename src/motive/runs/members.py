"""The run's account of its files: every clip and query that the datasets name, and what became of it."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import zip_longest
from operator import attrgetter
from typing import Literal, NamedTuple

import pyarrow as pa

from motive.runs.tables import Row, Table

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
_BATCH = 4096  # members that are made of the table at once


class Facts(NamedTuple):
    """What ingest found of a file."""

    clip_id: str
    frames: int
    fps: float


@dataclass(frozen=True, slots=True)
class Member:
    """One file of a dataset in its role. A run of a million clips holds a million: fields are shared.

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


_named = attrgetter(*[field.name for field in fields(Member)][: -len(Facts._fields) - 1])


def settle(
    entries: Iterable[Member], found: Mapping[str, Facts], failed: Mapping[str, str]
) -> Iterator[Member]:
    """The members with what ingest found of their files, one after the other.

    Of several files with the same content in one role the first counts; the others say which.

    found: of the files that were ingested, by file key. failed: reasons of the others by file key.
    """
    first: dict[Role, dict[str, str]] = {"clip": {}, "query": {}}
    for entry in entries:
        if entry.reason:
            yield entry
            continue
        facts = found.get(entry.file)
        if facts is None:
            yield replace(entry, reason=failed.get(entry.file, "it was not ingested"))
            continue
        same = first[entry.role].setdefault(facts.clip_id, entry.file_name)
        reason = "" if same == entry.file_name else f"the same content as {same}"
        yield Member(*(*_named(entry), *facts, reason))


def ingested(table: Table, made_by: str, files: Iterable[str]) -> dict[str, Facts]:
    """What the ingest stage found of these files, by file key.

    The keys are the very texts given, so that no second copy of them is held.
    """
    found: dict[str, Facts | None] = dict.fromkeys(files)
    for batch in table.batches(made_by, ["key", *Facts._fields], size=_BATCH):
        keys, *columns = (column.to_pylist() for column in batch.columns)
        for key, facts in zip(keys, map(Facts, *columns), strict=True):
            if key in found:
                found[key] = facts
    return {file: facts for file, facts in found.items() if facts is not None}


def save(table: Table, members: Sequence[Member]) -> None:
    """Replace the table's content, unless it says the same already."""
    if any(mine != stored for mine, stored in zip_longest(members, stream(table))):
        table.replace(_rows(members))


def load(table: Table) -> list[Member]:
    """The members in dataset order, clips before queries; empty when nothing was ingested."""
    return list(stream(table))


def stream(table: Table) -> Iterator[Member]:
    """As `load`, one after the other."""
    for batch in table.batches(MADE_BY, _NAMES, size=_BATCH):
        columns = {name: batch.column(name).to_pylist() for name in _NAMES}
        shared: dict[object, object] = {}
        for name in ("role", "extra", "fps", "reason"):  # which many members have in common
            columns[name] = [shared.setdefault(value, value) for value in columns[name]]
        yield from map(Member, *columns.values())


def _rows(members: Iterable[Member]) -> Iterator[Row]:
    values = attrgetter(*_NAMES)
    for member in members:
        row = dict(zip(_NAMES, values(member), strict=True))
        yield {"key": f"{member.role}:{member.file_name}", "made_by": MADE_BY, **row}
