"""Does the `object` mask help influence when cameras move? Numbers for docs/results/camera.

    python scripts/camera_influence.py --out docs/results/camera --work runs/camera

Corpora of rendered clips of the paper's ten motions, where half of the clips have a camera that stands
still, a quarter pans and a quarter zooms; the queries' camera stands still. For each mask the run's
influence is ranked, and counted is what share of each query's top 10% shows the query's motion, and what
share of it has a moving camera. Tracking and encoding are shared by the masks. The corpora are independent
(clips, queries, noise and projection all differ) and the intervals are over them. An interrupted run is
taken up where it was.
"""

import argparse
import csv
import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from motive import Run
from motive.gradients.objective import Objective
from motive.zoo.check import mean_interval, precision_at_top
from motive.zoo.motions import PAPER_MOTIONS
from motive.zoo.render import render_corpus

# Share of the clips by camera.
CAMERAS = {"none": 0.5, "pan": 0.25, "zoom": 0.25}
MASKS: dict[str, dict[str, Any]] = {
    "paper": {"mask": "paper"},
    "object": {"mask": "object"},
    "object, trusted": {"mask": "object", "mask_trusted": True},
    "none": {"mask": "none"},
}
QUERY_SEEDS = 10_000  # corpora of queries and of clips never share a seed


def render(folder: Path, counts: dict[str, int], seed: int) -> Path:
    """A corpus with so many clips of each camera; returns its metadata file."""
    metadata = folder / "metadata.csv"
    if metadata.is_file():
        return metadata
    shutil.rmtree(folder, ignore_errors=True)  # interrupted, so without its metadata
    rows: list[dict[str, str]] = []
    for part, (camera, count) in enumerate(counts.items()):
        render_corpus(
            folder / camera,
            count,
            # Clip i of a seed looks the same under every camera, and no scene is to come twice.
            seed=seed + 1000 * part,
            kinds=PAPER_MOTIONS,
            camera=camera,
            same_caption=True,
            lengths=(9, 17),
        )
        with (folder / camera / "metadata.csv").open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                rows.append({**row, "file_name": f"{camera}/{row['file_name']}"})
    with metadata.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return metadata


def moving_queries(run: Run, objectives: Sequence[Objective]) -> set[str]:
    """The ids of the queries whose motion the tracker saw: only they can be asked under every mask."""
    seen = []
    for objective in objectives:
        queries = run.features("query", objective)
        seen.append({queries.members[i].clip_id for i in np.flatnonzero(~queries.static)})
    return set.intersection(*seen)


def judge(run: Run, objective: Objective, asked: set[str]) -> dict[str, float]:
    """What the top 10% of these queries have in common with them under one objective."""
    clips, queries = run.features("clip", objective), run.features("query", objective)
    queries = queries.take([i for i, m in enumerate(queries.members) if m.clip_id in asked])
    wanted, labels = (
        [json.loads(member.extra) for member in features.members] for features in (queries, clips)
    )
    ids = [member.clip_id for member in clips.members]
    scores = queries.influence_of(clips)

    def share(of_queries: Sequence[str], of_clips: Sequence[str]) -> float:
        return float(precision_at_top(scores, of_queries, of_clips, ids).mean())

    moving = ["still" if row["camera"] == "none" else "moving" for row in labels]
    return {
        "precision": share([q["motion"] for q in wanted], [c["motion"] for c in labels]),
        "moving_camera": share(["moving"] * len(wanted), moving),
        "queries": len(wanted),
        "clips": len(ids),
    }


def study(options: argparse.Namespace) -> list[dict[str, Any]]:
    counts = {camera: round(share * options.clips) for camera, share in CAMERAS.items()}
    found = []
    for seed in options.seeds:
        path = options.work / str(seed)
        run = Run.create(
            path / "run",
            clips=str(render(path / "clips", counts, seed)),
            queries=str(render(path / "queries", {"none": options.queries}, seed + QUERY_SEEDS)),
            model=options.model,
            seed=seed,
            compute__threads=1,
        )
        for stage in ("ingest", "track", "encode"):
            getattr(run, stage)()
        objectives = {name: replace(run.objective, **recipe) for name, recipe in MASKS.items()}
        for objective in objectives.values():
            run.gradients(objective)
        asked = moving_queries(run, list(objectives.values()))
        for name, objective in objectives.items():
            found.append({"seed": seed, "mask": name} | judge(run, objective, asked))
            print(found[-1], flush=True)
    return found


def summarise(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and interval by mask, and of the paired difference to the paper's mask."""
    by_mask = {m: [row for row in found if row["mask"] == m] for m in MASKS}
    plain = [row["precision"] for row in by_mask["paper"]]
    lines = []
    for mask, rows in by_mask.items():
        precision = [row["precision"] for row in rows]
        gains = [mine - theirs for mine, theirs in zip(precision, plain, strict=True)]
        lines.append(
            {
                "mask": mask,
                "precision": mean_interval(precision),
                "over_paper": mean_interval(gains),
                "moving_camera": mean_interval([row["moving_camera"] for row in rows]),
                "by_seed": precision,
            }
        )
    return lines


def write_markdown(path: Path, settings: dict[str, Any], summary: list[dict[str, Any]]) -> None:
    def said(values: Sequence[float], form: str = ".3f") -> str:
        mean, low, high = values
        return f"{mean:{form}} ({low:{form}} … {high:{form}})"

    lines = [
        "# Influence when half of the clips have a moving camera",
        "",
        "Made by `python scripts/camera_influence.py --out docs/results/camera --work runs/camera`; all",
        "numbers are in `camera.json`.",
        "",
        f"{settings['clips']} clips of {len(PAPER_MOTIONS)} motions: half with a still camera, a quarter "
        f"pans, a quarter zooms. {settings['queries']}",
        "queries with a still camera, less those whose motion the tracker did not see. Model "
        f"{settings['model']},",
        f"tracker DIS; means over {len(settings['seeds'])} independent corpora with 95% intervals "
        "(Student's t).",
        "",
        "- *shows the motion*: share of each query's top 10% that shows the query's motion; by chance "
        f"{1 / len(PAPER_MOTIONS):.2f}",
        "- *over paper*: the same less the paper's mask, paired by corpus",
        "- *moving camera*: share of the top 10% with a pan or a zoom; by chance 0.50",
        "",
        "| mask | shows the motion | over paper | moving camera |",
        "|---|---|---|---|",
    ]
    for line in summary:
        gain = "" if line["mask"] == "paper" else said(line["over_paper"], "+.3f")
        lines.append(
            f"| {line['mask']} | {said(line['precision'])} | {gain} | {said(line['moving_camera'])} |"
        )
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--work", type=Path, required=True, help="folder of corpora and runs")
    parser.add_argument("--model", default="tiny-wan")
    parser.add_argument("--clips", type=int, default=120, help="of a corpus")
    parser.add_argument("--queries", type=int, default=20, help="of a corpus")
    parser.add_argument("--seeds", type=int, nargs="+", default=[20, 21, 22])
    options = parser.parse_args()
    found = study(options)
    settings = {name: getattr(options, name) for name in ("model", "clips", "queries", "seeds")}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "camera.json").write_text(
        json.dumps(
            {"settings": settings, "summary": summarise(found), "corpora": found},
            indent=1,
        )
        + "\n",
        encoding="utf-8",
    )
    write_markdown(options.out / "camera.md", settings, summarise(found))


if __name__ == "__main__":
    main()
