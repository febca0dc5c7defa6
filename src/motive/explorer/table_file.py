"""The table kept beside the run as one Arrow file: the next opening maps it instead of reading CSV.

`RUN/explorer/` holds what can be made anew at any time: this file, transcoded clips, the map. It may be
deleted whenever no explorer runs.
"""

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from motive.explorer.table import COLUMNS, TEXTS, ClipTable, read_table
from motive.runs.provenance import remove_leftovers

if TYPE_CHECKING:
    from motive.pipeline import Run

FOLDER = "explorer"
_LAYOUT = "1"  # of the file; another number makes old files anew


def open_table(run: "Run", score_of: Callable[[str], np.ndarray]) -> tuple[ClipTable, bool]:
    """The run's table, and whether it came from the file.

    Raises UserError as `read_table`.
    """
    file = run.path / FOLDER / "table.arrow"
    found = _read(file, stamp(run), score_of)
    return (found, True) if found else (read_table(run, score_of), False)


def keep_table(run: "Run", table: ClipTable) -> None:
    """Sort every column and write the table with its orders, whole or not at all."""
    columns: dict[str, Any] = {"clip_id": table.clip_ids, "selected": table.selected}
    columns |= {f"number:{name}": values for name, values in table.numbers.items()}
    columns |= {f"text:{name}": values for name, values in table.texts.items()}
    columns |= {f"lowered:{name}": table.lowered(name) for name in TEXTS}
    for column in COLUMNS:
        for descending in (False, True):
            order = table.order(column.name, descending=descending)
            columns[f"order:{int(descending)}:{column.name}"] = order
    whole = pa.table(columns).replace_schema_metadata({"stamp": stamp(run)})
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
    status = (run.path / "selection.csv").stat() if (run.path / "selection.csv").exists() else None
    stage = run.plan.track_stage
    versions = run.store.results(stage).path / "_versions"
    manifests = sorted(p.name for p in versions.glob("*")) if versions.is_dir() else []
    parts = [_LAYOUT, stage.fingerprint(), *manifests]
    parts += [str(status.st_size), str(status.st_mtime_ns)] if status else []
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=10).hexdigest()


def _read(file: Path, wanted: str, score_of: Callable[[str], np.ndarray]) -> ClipTable | None:
    if not file.is_file():
        return None
    try:
        found = pa.ipc.open_file(pa.memory_map(str(file))).read_all()
    except (pa.ArrowInvalid, OSError):
        return None  # a broken disk; it is made anew
    if (found.schema.metadata or {}).get(b"stamp") != wanted.encode():
        return None
    columns = {name: found[name].chunk(0) for name in found.column_names if len(found)}
    if not columns:
        return None

    def part(prefix: str) -> dict[str, pa.Array]:
        return {n.removeprefix(prefix): c for n, c in columns.items() if n.startswith(prefix)}

    table = ClipTable(
        columns["clip_id"],
        {name: column.to_numpy() for name, column in part("number:").items()},
        part("text:"),
        columns["selected"].to_numpy(zero_copy_only=False),
        score_of,
    )
    orders = {
        (name, bool(descending)): column.to_numpy()
        for descending in (0, 1)
        for name, column in part(f"order:{descending}:").items()
    }
    table.take_over(orders, part("lowered:"))
    return table
