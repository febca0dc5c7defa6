"""What lies in a run directory, read without `motive`: the files, and the tables as Lance has them."""

import csv
import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

Snapshot = dict[str, bytes]


@dataclass(frozen=True)
class Finished:
    """A run that `motive curate` finished, and the words that it was made with (but for --out)."""

    path: Path
    words: tuple[str, ...]


def snapshot(place: Path) -> Snapshot | None:
    """The bytes of a file or of every file of a folder; None when there is nothing."""
    if not place.exists():
        return None
    if place.is_file():
        return {".": place.read_bytes()}
    return {str(p.relative_to(place)): p.read_bytes() for p in place.rglob("*") if p.is_file()}


def tables(run: Path) -> dict[str, Any]:
    """The run's Lance tables by name, each at its latest version."""
    found = sorted({path.parents[1] for path in run.glob("tables/*.lance/_versions/*.manifest")})
    return {path.stem: lance.dataset(str(path)) for path in found}


def versions(run: Path) -> dict[str, int]:
    """The version of each table: it grows with every commit."""
    return {name: table.version for name, table in tables(run).items()}


def rows(run: Path, table: str) -> list[dict[str, Any]]:
    """The rows of a table; lists of numbers as numpy arrays. `features` are those of any length."""
    if table == "features":
        return [r for name in tables(run) if name.startswith("features-") for r in rows(run, name)]
    found = tables(run)[table].to_table()
    columns = []
    for column in found.columns:
        values: Any = column.to_pylist()
        if pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type):
            dtype = column.type.value_type.to_pandas_dtype()
            values = [np.asarray(value, dtype) for value in values]
        columns.append(values)
    return [
        dict(zip(found.column_names, values, strict=True)) for values in zip(*columns, strict=True)
    ]


def features(run: Path) -> dict[str, np.ndarray]:
    """Gradient features by clip and caption."""
    return {row["key"]: row["feature"] for row in rows(run, "features")}


def duplicates(run: Path) -> dict[str, list[tuple[str, str]]]:
    """The rows that a table has more than once, by table; empty when all is well."""
    found = {}
    for name, table in tables(run).items():
        keys = table.to_table(columns=["key", "made_by"])
        pairs = zip(keys["key"].to_pylist(), keys["made_by"].to_pylist(), strict=True)
        if twice := [pair for pair, count in Counter(pairs).items() if count > 1]:
            found[name] = twice
    return found


def done(run: Path) -> dict[str, tuple[int, int]]:
    """Rows that each stage has done and failed."""
    log = json.loads((run / "stages.json").read_text())
    return {stage: (entry["done"], entry["failed"]) for stage, entry in log.items()}


def selection(run: Path) -> list[dict[str, str]]:
    """The rows of selection.csv."""
    with (run / "selection.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def failures(run: Path) -> list[dict[str, str]]:
    """The rows of failures.csv."""
    with (run / "failures.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def scores(run: Path) -> dict[tuple[str, str], float]:
    """Score by (query id, clip id)."""
    columns = pq.read_table(run / "scores.parquet").to_pydict()
    pairs = zip(columns["query_id"], columns["clip_id"], strict=True)
    found = dict(zip(pairs, columns["score"], strict=True))
    assert len(found) == len(columns["score"]), "a pair has two scores"
    return found


def clip_ids(run: Path, role: str) -> dict[str, str]:
    """Clip id by file name, of the usable clips (`clip`) or queries (`query`)."""
    members = rows(run, "members")
    return {m["file_name"]: m["clip_id"] for m in members if m["role"] == role and not m["reason"]}
