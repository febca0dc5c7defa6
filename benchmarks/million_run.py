"""A run directory of any number of clips, whose expensive stages have done their work (`million.py`).

    python benchmarks/million_run.py FOLDER ROWS

makes FOLDER/run beside the datasets that it names.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from motive.backbones.encode import caption_id
from motive.clips.ingest import file_key
from motive.demo import MODEL
from motive.gradients.stage import feature_schema
from motive.motion.track import STATISTICS
from motive.pipeline import Run
from motive.runs.stage import Stage
from motive.zoo.render import render_corpus

QUERIES = 30
SOURCES = 40  # real files that all names are links to; a file system allows some 65,000 of each
PIECE = 50_000  # rows that are made at once
WORDS = ["a", "slow", "fast", "red", "old", "horse", "car", "river", "night", "falling", "smoke"]


def make_run(path: Path, rows: int, seed: int = 0) -> None:
    """A run of `rows` clips in `path`/run whose expensive stages are done."""
    rng = np.random.default_rng(seed)
    sources = path / "sources"
    render_corpus(sources, SOURCES, seed=seed)
    clips = _link(path / "clips", sorted(sources.rglob("*.mp4")), rows, rng)
    queries = _link(path / "queries", sorted(sources.rglob("*.mp4")), QUERIES, rng)
    run = Run.create(
        path / "run",
        clips=str(path / "clips"),
        queries=str(path / "queries"),
        model=MODEL,
        compute__threads=1,
    )
    objective = run.objective
    run.store.save_objective(objective.id, objective.to_json())
    for first, files, captions in _pieces([*queries, *clips]):
        ids = [
            f"{first + i:08x}{word:012x}"
            for i, word in enumerate(rng.integers(2**48, size=len(files)))
        ]
        _write(run, run.plan.ingest_stage, [file_key(path / f) for f in files], rng, clip_id=ids)
        _write(run, run.plan.track_stage, ids, rng)
        _write(run, run.plan.encode_stage, ids, rng)
        texts = [caption_id(caption) for caption in captions]
        _write(run, run.plan.text_stage, texts, rng)
        _write_features(run, ids, texts, rng)


def _link(
    folder: Path, sources: list[Path], count: int, rng: np.random.Generator
) -> list[tuple[str, str]]:
    """A dataset of so many clips, with its table; names and captions, the names from the run's parent."""
    names, captions = [], []
    words = rng.integers(0, len(WORDS), (count, 9))
    for i in range(count):
        name = f"{i // 1000:04d}/{i:07d}.mp4"
        if i % 1000 == 0:
            (folder / name).parent.mkdir(parents=True)
        os.link(sources[i % len(sources)], folder / name)
        names.append(name)
        captions.append(" ".join([str(i), *(WORDS[w] for w in words[i])]))
    pa_csv.write_csv(pa.table({"file_name": names, "caption": captions}), folder / "metadata.csv")
    return [(f"{folder.name}/{name}", text) for name, text in zip(names, captions, strict=True)]


def _pieces(entries: list[tuple[str, str]]) -> Iterator[tuple[int, list[str], list[str]]]:
    for first in range(0, len(entries), PIECE):
        some = entries[first : first + PIECE]
        yield first, [name for name, _ in some], [caption for _, caption in some]


def _write(run: Run, stage: Stage, keys: list[str], rng: np.random.Generator, **known: Any) -> None:
    """Rows of a stage, as many as keys: numbers at random, lists of one number, the rest as given."""
    table, count = run.store.results(stage), len(keys)
    columns: dict[str, Any] = {"key": keys, "made_by": [stage.fingerprint()] * count, **known}
    for field in table.schema:
        if field.name not in columns:
            columns[field.name] = _column(field.name, field.type, count, rng)
    _append(table.path, pa.table({f.name: columns[f.name] for f in table.schema}, table.schema))


def _column(name: str, kind: pa.DataType, count: int, rng: np.random.Generator) -> pa.Array:
    if pa.types.is_list(kind):
        each = (
            3 if name == "shape" else 1
        )  # maps of one frame and one place: real ones fill the disk
        ends = each * np.arange(count + 1, dtype=np.int32)
        inner = _column(name, kind.value_type, each * count, rng)
        return pa.ListArray.from_arrays(ends, inner).cast(kind)
    if pa.types.is_string(kind):
        return pa.array(["h264"] * count)
    if name in STATISTICS:
        values = rng.gamma(2.0, 1.5, count)
        return pa.array(values / values.max() if "share" in name else values).cast(kind)
    return pa.array(np.ones(count)).cast(kind)


def _write_features(run: Run, ids: list[str], texts: list[str], rng: np.random.Generator) -> None:
    schema = run.store.table(run.objective.feature_table, feature_schema(run.objective)).schema
    count, dim = len(ids), run.objective.dim
    features = rng.standard_normal((count, dim), np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    columns = {
        "key": [f"{clip}:{text}" for clip, text in zip(ids, texts, strict=True)],
        "made_by": [run.objective.id] * count,
        "clip_id": ids,
        "caption_id": texts,
        "feature": pa.FixedSizeListArray.from_arrays(pa.array(features.ravel()), dim),
        "norm": np.ones(count),
        "loss": np.ones(count),
        "static": np.zeros(count, bool),
    }
    table = pa.table({f.name: columns[f.name] for f in schema}, schema)
    _append(run.store.table(run.objective.feature_table, schema).path, table)


def _append(path: Any, table: pa.Table) -> None:
    import lance

    mode = "append" if path.exists() else "create"
    path.parent.mkdir(parents=True, exist_ok=True)
    lance.write_dataset(table, str(path), mode=mode)


if __name__ == "__main__":
    make_run(Path(sys.argv[1]), int(sys.argv[2]))
