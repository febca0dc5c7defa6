"""The demo: the whole job on rendered clips whose motion is known, and a check against the truth."""

import json
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from motive.errors import UserError
from motive.pipeline import Run
from motive.results import used_queries
from motive.runs.progress import Progress
from motive.runs.provenance import write_atomically
from motive.subsets import without_mask
from motive.terminal import print_check, print_result
from motive.zoo.check import mean_interval, precision_at_top
from motive.zoo.motions import KINDS, PAPER_MOTIONS
from motive.zoo.render import render_corpus

CLIPS, QUERIES = 10 * len(KINDS), 2 * len(PAPER_MOTIONS)
MODEL = "tiny-wan"
LOOKS = {"background_color": "background's colour", "color": "object's colour", "frames": "length"}
_QUERY_SEEDS = 10_000  # corpora of queries and of clips never share a seed


def run_demo(out: Path, *, seeds: int = 3, progress: Progress | None = None) -> None:
    """Render corpora, run the pipeline on each, compare with the truth, and show the first one's report.

    seeds: independent corpora (clips, queries, noise and projection all differ); the intervals are
        over them. The first one is the run in `out`, the others lie in `out/seeds`.

    Raises UserError when `out` holds something that is no demo.
    """
    if seeds < 1:
        raise UserError("the demo needs at least one corpus: use --seeds 1 or more")
    progress = progress or Progress(quiet=True)
    paths = [out if seed == 0 else out / "seeds" / str(seed) for seed in range(seeds)]
    runs = _all_runs(paths, progress)
    by_method: dict[str, list[float]] = {}
    raw: list[dict[str, Any]] = []
    for seed, run in enumerate(runs):
        for method, found in _agreement(run, seed).items():
            by_method.setdefault(method, []).append(float(np.mean(list(found["motion"].values()))))
            raw.append({"seed": seed, "method": method, **found})
    check: list[dict[str, Any]] = []
    for method, values in by_method.items():
        mean, low, high = mean_interval(values)
        check.append({"method": method, "precision": mean, "low": low, "high": high})
    note = (
        f"{CLIPS} clips of {len(KINDS)} kinds, {QUERIES} queries of {len(PAPER_MOTIONS)} motions, "
        f"all with the same caption; mean over {seeds} independent corpora, 95% interval "
        "(Student's t). " + _gain(by_method) + " The base model is weak on motion on purpose. "
    ) + _also_shared(raw)
    write_atomically(
        out / "check.json", json.dumps({"check": check, "note": note, "raw": raw}, indent=1) + "\n"
    )
    runs[0].report(check=check, check_note=note)
    print_result(runs[0])
    print_check(check, note)


def _all_runs(paths: list[Path], progress: Progress) -> list[Run]:
    """Every second corpus in a process beside this one, if there is a core for it; the same numbers."""
    beside = range(1, len(paths), 2) if (os.cpu_count() or 1) > 1 else range(0)
    # Spawned, and only when it is given work: torch's and Lance's threads do not survive a fork.
    with ProcessPoolExecutor(1, get_context("spawn")) as other:
        there = [other.submit(_one_run_beside, paths[seed], seed) for seed in beside]
        for seed, path in enumerate(paths):
            if seed not in beside:
                _one_run(path, seed, progress)
        for work in there:
            work.result()
    return [Run.open(path, progress) for path in paths]


def _one_run_beside(path: Path, seed: int) -> None:
    _one_run(path, seed, Progress(quiet=True))


def _one_run(path: Path, seed: int, progress: Progress) -> None:
    data = path / "data"
    if path.exists() and any(path.iterdir()) and not data.is_dir():
        raise UserError(f"{path} exists and holds no demo: choose another --out")
    for name, count, corpus, kinds in (
        ("clips", CLIPS, seed, KINDS),
        ("queries", QUERIES, seed + _QUERY_SEEDS, PAPER_MOTIONS),
    ):
        folder = data / name
        if not (folder / "metadata.csv").is_file():
            _remove_unfinished(folder)
            render_corpus(
                folder, count, seed=corpus, kinds=kinds, same_caption=True, progress=progress
            )
    run = Run.create(
        path,
        clips=str(data / "clips" / "metadata.csv"),
        queries=str(data / "queries" / "metadata.csv"),
        model=MODEL,
        seed=seed,
        # For a model this small a second thread costs more in waiting than it computes.
        compute__threads=1,
        progress=progress,
    )
    run.curate(report=False)  # the first run's is written with the check in it
    run.gradients(without_mask(run))


def _remove_unfinished(folder: Path) -> None:
    """A corpus without its metadata was interrupted; it is the demo's own and is rendered again."""
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


def _agreement(run: Run, seed: int) -> dict[str, dict[str, Any]]:
    """By method: what share of each query's top 10% agrees with the query, in motion and in look.

    `motion`: by the query's motion. `look`: for each label of the look, the share and, as `chance`, that
    of all clips.
    """
    clips, queries = run.features("clip"), used_queries(run)
    plain = without_mask(run)
    plain_clips = run.features("clip", plain)
    plain_queries = run.features("query", plain)
    at = {m.feature_key: i for i, m in enumerate(plain_queries.members)}
    plain_queries = plain_queries.take([at[m.feature_key] for m in queries.members])
    motion = run.motion(columns=["key", "mean_speed"])
    speed = np.array([motion[m.clip_id]["mean_speed"] for m in clips.members])
    shape = len(queries.members), len(clips.members)
    scores = {
        "Motive": queries.influence_of(clips),
        "Motive without the mask": plain_queries.influence_of(plain_clips),
        "motion magnitude": np.broadcast_to(speed, shape),
        "random": np.random.default_rng([seed, 4]).random(shape),
    }
    wanted, labels = (
        [json.loads(m.extra) for m in members] for members in (queries.members, clips.members)
    )
    ids = [m.clip_id for m in clips.members]

    def shares(values: np.ndarray, label: str) -> np.ndarray:
        mine, theirs = ([str(row[label]) for row in rows] for rows in (wanted, labels))
        return precision_at_top(values, mine, theirs, ids)

    def chance(label: str) -> float:
        return float(np.mean([[q[label] == c[label] for c in labels] for q in wanted]))

    kinds = [row["motion"] for row in wanted]
    result: dict[str, dict[str, Any]] = {}
    for method, values in scores.items():
        found = shares(values, "motion")
        result[method] = {
            "motion": {
                kind: float(np.mean([s for s, k in zip(found, kinds, strict=True) if k == kind]))
                for kind in dict.fromkeys(kinds)
            },
            "look": {
                label: {"share": float(shares(values, label).mean()), "chance": chance(label)}
                for label in LOOKS
            },
        }
    return result


def _gain(by_method: dict[str, list[float]]) -> str:
    """What the mask and the whole method add, paired by corpus: methods share clips and queries."""
    mine = np.array(by_method["Motive"])
    parts = []
    for other in ("Motive without the mask", "random"):
        mean, low, high = mean_interval((mine - by_method[other]).tolist())
        parts.append(f"{mean:+.3f} ({low:+.3f} … {high:+.3f}) against {other}")
    return f"Motive, paired by corpus: {', '.join(parts)}."


def _also_shared(raw: list[dict[str, Any]]) -> str:
    """What else Motive's top 10% has in common with its query: gradients see more than motion."""
    mine = [entry["look"] for entry in raw if entry["method"] == "Motive"]
    parts = [
        f"the {name} {np.mean([look[label]['share'] for look in mine]):.0%} of the time "
        f"(chance {np.mean([look[label]['chance'] for look in mine]):.0%})"
        for label, name in LOOKS.items()
    ]
    return f"Motive's top 10% also share {', '.join(parts)} with their query."
