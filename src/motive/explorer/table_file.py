"""The table kept beside the run as one Arrow file: the next opening maps it instead of reading CSV.

`RUN/explorer/` holds what can be made anew at any time: this file, transcoded clips, the map. It may be
deleted whenever no explorer runs.
"""

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from motive.explorer.clip_files import ClipFiles
from motive.explorer.table import COLUMNS, TEXTS, ClipTable, read_table
from motive.results import open_scores
from motive.runs.members import Member
from motive.runs.provenance import remove_leftovers
from motive.runs.remote import on_disk

if TYPE_CHECKING:
    from motive.pipeline import Run

FOLDER = "explorer"
_LAYOUT = "2"  # of the file; another number makes old files anew
_LARGE = 10_000  # clips


@dataclass(frozen=True)
class Opened:
    """What the first page shows of a run.

    table: without scores by query. was_kept: whether it came from the file.
    query_ids: those that have scores, in their file's order, when they are known.
    """

    table: ClipTable
    files: ClipFiles
    was_kept: bool
    query_ids: list[str] | None = None


def open_table(run: "Run") -> Opened:
    """The run's table, from the file when there is one that still holds.

    Raises UserError as `read_table`.
    """
    kept = _read(run.path / FOLDER / "table.arrow", stamp(run))
    if kept is None:
        return Opened(read_table(run), ClipFiles(run), was_kept=False)
    table, said = kept
    queries = {row["clip_id"]: Member(**row) for row in said["queries"]}
    files = ClipFiles(run, queries, said["columns"])
    return Opened(table, files, was_kept=True, query_ids=said["query_ids"])


def prepare_table(run: "Run") -> bool:
    """Make the file of a large run with a selection, so that already its first opening is a quick one.

    Nothing is done for a run below `_LARGE` clips, which opens as fast without, or when the file is there.
    Returns whether it was made.

    Raises OSError when the file cannot be written, and UserError as `read_table`.
    """
    if _clips_in(run.path / "selection.csv") < _LARGE:
        return False
    opened = open_table(run)
    if not opened.was_kept:
        keep_table(run, opened.table, opened.files)
    return not opened.was_kept


def _clips_in(selection: Path) -> int:
    """About as many as there are, or more: lines, and a caption may have several."""
    with selection.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b"")) - 1


def keep_table(run: "Run", table: ClipTable, files: ClipFiles) -> None:
    """Sort every column and write the table with its orders, whole or not at all."""
    made_from = stamp(run)
    columns: dict[str, Any] = {"clip_id": table.clip_ids, "selected": table.selected}
    columns |= {f"number:{name}": values for name, values in table.numbers.items()}
    columns |= {f"text:{name}": values for name, values in table.texts.items()}
    columns |= {f"lowered:{name}": table.lowered(name) for name in TEXTS}
    for column in COLUMNS:
        for descending in (False, True):
            order = table.order(column.name, descending=descending)
            columns[f"order:{int(descending)}:{column.name}"] = order
    said = {
        "queries": [asdict(member) for member in files.queries.values()],
        "columns": files.columns,
        "query_ids": open_scores(run).query_ids,
    }
    facts = {"stamp": made_from, "said": json.dumps(said)}
    whole = pa.table(columns).replace_schema_metadata(facts)
    folder = run.path / FOLDER
    folder.mkdir(exist_ok=True)
    remove_leftovers(folder)
    part = folder / f".table.arrow.{os.getpid()}.part"
    try:
        with pa.OSFile(str(part), "wb") as sink, pa.ipc.new_file(sink, whole.schema) as writer:
            writer.write_table(whole)
        os.replace(part, folder / "table.arrow")
    finally:
        part.unlink(missing_ok=True)


def stamp(run: "Run") -> str:
    """Of everything that the table is made of."""
    stage = run.plan.track_stage
    parts = [_LAYOUT, stage.fingerprint()]
    for table in (run.store.results(stage), run.store.members):
        parts += sorted(p.name for p in (on_disk(table.path) / "_versions").glob("*"))
    for file in (run.path / "selection.csv", run.path / "scores.parquet"):
        if file.is_file():
            status = file.stat()
            parts += [file.name, str(status.st_size), str(status.st_mtime_ns)]
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=10).hexdigest()


def _read(file: Path, wanted: str) -> tuple[ClipTable, dict[str, Any]] | None:
    """The table and what was said of the run; None for a file that is not there or of another stamp."""
    if not file.is_file():
        return None
    try:
        found = pa.ipc.open_file(pa.memory_map(str(file))).read_all()
    except (pa.ArrowInvalid, OSError):
        return None  # a broken disk; it is made anew
    facts = found.schema.metadata or {}
    if facts.get(b"stamp") != wanted.encode():
        return None
    columns = {name: found[name].chunk(0) for name in found.column_names if len(found)}
    if not columns:
        return None

    def part(prefix: str) -> dict[str, pa.Array]:
        return {n.removeprefix(prefix): c for n, c in columns.items() if n.startswith(prefix)}

    table = ClipTable(
        columns["clip_id"],
        {name: _numbers(column) for name, column in part("number:").items()},
        part("text:"),
        _numbers(columns["selected"].cast(pa.uint8())).view(bool),
    )
    orders = {
        (name, bool(descending)): _numbers(column)
        for descending in (0, 1)
        for name, column in part(f"order:{descending}:").items()
    }
    table.take_over(orders, part("lowered:"))
    return table, json.loads(facts[b"said"])


def _numbers(column: pa.Array) -> np.ndarray:
    """A column without nulls, not copied; `to_numpy` would import pandas, for a fifth of a second."""
    return np.from_dlpack(column)
