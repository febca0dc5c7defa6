"""The run's account of its files: every clip and query that the datasets name, and what became of it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

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


@dataclass(frozen=True)
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


def settle(
    entries: Sequence[Member], found: Mapping[str, Row], failed: Mapping[str, str]
) -> list[Member]:
    """The members with what ingest found of their files.

    Of several files with the same content in one role the first counts; the others say which.

    found: rows of the ingest stage by file key. failed: its reasons by file key.
    """
    first: dict[tuple[str, str], str] = {}
    settled = []
    for entry in entries:
        row = found.get(entry.file)
        if entry.reason:
            settled.append(entry)
            continue
        if row is None:
            reason = failed.get(entry.file, "it was not ingested")
            settled.append(Member(**{**entry.__dict__, "reason": reason}))
            continue
        facts = {"clip_id": row["clip_id"], "frames": row["frames"], "fps": row["fps"]}
        same = first.setdefault((entry.role, row["clip_id"]), entry.file_name)
        reason = "" if same == entry.file_name else f"the same content as {same}"
        settled.append(Member(**{**entry.__dict__, **facts, "reason": reason}))
    return settled


def save(table: Table, members: Sequence[Member]) -> None:
    """Replace the table's content, unless it says the same already."""
    if list(members) != load(table):
        table.replace(
            [{"key": f"{m.role}:{m.file_name}", "made_by": MADE_BY, **m.__dict__} for m in members]
        )


def load(table: Table) -> list[Member]:
    """The members in dataset order, clips before queries; empty when nothing was ingested."""
    names = [field.name for field in SCHEMA]
    return [Member(**{n: row[n] for n in names}) for row in table.rows(MADE_BY)]
