"""From what the datasets name to what can be used of it: ingest's findings, brought to the members."""

from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from motive.runs.members import SCHEMA, Members
from motive.runs.placed import Spool, gathered
from motive.runs.tables import Table
from motive.runs.texts import COMPARED, as_array

_TOGETHER = COMPARED  # entries, and files, that are compared at once
_NAMES = [field.name for field in SCHEMA]
_FACTS = ["clip_id", "frames", "fps"]  # what ingest found of a file


def settle(entries: Members, table: Table, made_by: str, failed: Mapping[str, str]) -> Members:
    """The members with what ingest found of their files, in the same order.

    Of several files with the same content in one role the first counts; the others say which.

    table: ingest's results, of which those count that `made_by` made.
    failed: reasons of the other files, by file key.
    """
    fields = pa.schema([SCHEMA.field(name) for name in _FACTS])
    facts = pa.Table.from_batches(_facts(entries, table, made_by), fields)
    reasons = _reasons(entries, facts["clip_id"], failed)
    settled, start = Spool(SCHEMA), 0
    for batch in entries.batches(_NAMES):
        places = range(start, start + batch.num_rows)
        columns = {name: batch[name] for name in _NAMES}
        usable = pc.equal(columns["reason"], "")
        for name in _FACTS:
            found = as_array(facts[name].slice(start, batch.num_rows))
            columns[name] = pc.if_else(pc.and_(usable, found.is_valid()), found, columns[name])
        if not reasons.keys().isdisjoint(places):
            before = columns["reason"].to_pylist()
            said = [
                reasons.get(place, reason) for place, reason in zip(places, before, strict=True)
            ]
            columns["reason"] = pa.array(said, pa.string())
        settled.write(pa.RecordBatch.from_pydict(columns, SCHEMA))
        start = places.stop
    return Members(settled)


def _facts(entries: Members, table: Table, made_by: str) -> Iterator[pa.RecordBatch]:
    """What ingest found of each entry's file, null where it found nothing.

    Both sides are read in parts, so that memory holds the findings and no file's name.
    """
    types = [SCHEMA.field(name).type for name in _FACTS]
    for part in gathered(entries.batches(["file"]), _TOGETHER):
        files = as_array(part["file"])
        found = [pa.nulls(len(files), kind) for kind in types]
        for results in gathered(table.batches(made_by, ["key", *_FACTS]), _TOGETHER):
            at = pc.index_in(files, value_set=as_array(results["key"]))
            found = [
                pc.coalesce(as_array(results[name]).take(at).cast(kind), before)
                for name, kind, before in zip(_FACTS, types, found, strict=True)
            ]
        yield pa.RecordBatch.from_arrays(found, _FACTS)


def _reasons(
    entries: Members, clip_ids: pa.ChunkedArray, failed: Mapping[str, str]
) -> dict[int, str]:
    """Why entries cannot be used that could be before, by their place."""
    open_ = pc.equal(entries.column("reason"), "").to_numpy(zero_copy_only=False)
    known = clip_ids.is_valid().to_numpy()
    lost = entries.take(open_ & ~known)
    files = lost.column("file").to_pylist()
    reasons = dict(
        zip(
            np.flatnonzero(open_ & ~known).tolist(),
            (failed.get(file, "it was not ingested") for file in files),
            strict=True,
        )
    )
    role = entries.column("role")
    for name in ("clip", "query"):
        mine = np.flatnonzero(open_ & known & pc.equal(role, name).to_numpy(zero_copy_only=False))
        again, first = _repeated(as_array(clip_ids).take(pa.array(mine)))
        names = entries.take(mine[first]).column("file_name").to_pylist()
        reasons |= {
            place: f"the same content as {name}"
            for place, name in zip(mine[again].tolist(), names, strict=True)
        }
    return reasons


def _repeated(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Where a text is that was there before, and where it was first."""
    order = pc.array_sort_indices(texts).to_numpy()  # stable
    in_order = texts.take(pa.array(order))
    count = len(order)
    same = np.zeros(count, bool)
    if count > 1:
        equal = pc.equal(in_order.slice(1), in_order.slice(0, count - 1))
        same[1:] = equal.to_numpy(zero_copy_only=False)
    first = np.maximum.accumulate(np.where(same, 0, np.arange(count)))
    return order[same], order[first[same]]
