"""Part (f): what attribution for less keeps of the ranking: smaller or shorter clips, fewer parameters."""

import fnmatch
import json
import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from ablation_agreement import exact_scores
from ablation_measures import over_queries, precision, spearman, top_overlap
from ablation_setting import WHOLE, Study
from ablation_whole import WholeGradients

from motive import Run
from motive.gradients.stage import GradientStage
from motive.rows import clip_rows, gradient_rows
from motive.runs.members import Member, Members
from motive.runs.provenance import write_atomically
from motive.runs.stage import Stage
from motive.runs.tables import Row

REPEATS = 2  # of each timing; the shortest counts, as other programs can only lengthen it


def samplings(study: Study, whole: WholeGradients) -> dict[str, Any]:
    """Agreement with the whole gradients of whole clips when clips are attributed smaller or shorter."""
    file_names = {m.clip_id: m.file_name for m in study.corpus.members["clip"]}
    moving = [file_names[clip_id] for clip_id in study.moving["clip"]]
    query_names = [m.file_name for m in study.features("query").members]
    first = [m.file_name for m in study.corpus.members["clip"][: study.setting.sampled_clips]]
    chosen = [name for name in moving if name in set(first)]
    places = [moving.index(name) for name in chosen]
    exact = exact_scores(whole)[:, places]
    wanted, shown = study.labels("query", "motion"), study.labels("clip", "motion")[places]
    frames = study.frames("clip")[places]
    longest = frames == frames.max()
    found = []
    for name in study.setting.samplings:
        run = study.run if name == WHOLE else study.sampled(name)
        scores = scores_by_file(study, run, query_names, chosen)
        found.append(
            {
                "name": name,
                "clips": len(chosen),
                "longest_clips": int(longest.sum()),
                "longest": int(frames.max()),
                "latent_cells": _latent_cells(
                    run, [n for n, is_ in zip(chosen, longest, strict=True) if is_]
                ),
                "seconds": timed(
                    study, f"sampling {name}", lambda run=run: _stage_seconds(study, run)
                ),
                "spearman_longest": over_queries(
                    spearman(scores[:, longest], exact[:, longest]), study.setting.resamples
                ),
                **_comparison(study, scores, exact, wanted, shown),
            }
        )
    return {"samplings": found}


def blocks(study: Study, whole: WholeGradients) -> dict[str, Any]:
    """Agreement with the whole gradient, and precision, when only some parameters are differentiated."""
    _, _, squares_pn = whole.products()
    exact = exact_scores(whole)
    wanted, shown = study.labels("query", "motion"), study.labels("clip", "motion")
    units_pn = squares_pn / squares_pn.sum(0)
    found = []
    for name, pattern in patterns(whole.names).items():
        chosen = np.array([_fits(parameter, pattern) for parameter in whole.names])
        objective = replace(study.paper, parameters=pattern)
        found.append(
            {
                "name": name,
                "parameters": pattern,
                "share_of_numbers": float(whole.sizes[chosen].sum() / whole.sizes.sum()),
                "share_of_gradient": float(units_pn[chosen].sum(0).mean()),
                "seconds": timed(
                    study,
                    f"parameters {pattern}",
                    lambda objective=objective: {
                        "gradients": _gradient_seconds(study, study.run, objective)
                    },
                ),
                **_comparison(study, exact_scores(whole, chosen), exact, wanted, shown),
            }
        )
    return {"parameters": found}


def patterns(names: list[str]) -> dict[str, str]:
    """What `--parameters` is given, by what a reader is told."""
    count = 1 + max(int(name.split(".")[1]) for name in names if name.startswith("blocks."))
    every = {
        step: ",".join(f"blocks.{k}.*" for k in range(0, count, step)) for step in (2, 3, count - 1)
    }
    return {
        "everything": "*",
        "all blocks": "blocks.*",
        **{f"block {k}": f"blocks.{k}.*" for k in range(count)},
        "every second block": every[2],
        "every third block": every[3],
        "first and last block": every[count - 1],
        "last three blocks": ",".join(f"blocks.{k}.*" for k in range(count - 3, count)),
        "self-attention": "blocks.*.attn1.*",
        "cross-attention": "blocks.*.attn2.*",
        "feed-forward": "blocks.*.ffn.*",
        "outside the blocks": "patch_embedding.*,condition_embedder.*,proj_out.*,scale_shift_table",
    }


def scores_by_file(
    study: Study, run: Run, query_names: list[str], clip_names: list[str]
) -> np.ndarray:
    """Influence `(Q, N)` of the clips in these files with the queries in these, by a run's features.

    A clip that is static in the run's sampling scores 0, as it does in the product.
    """
    objective = replace(run.objective, dim=study.setting.dim)
    run.gradients(objective)
    clips, queries = run.features("clip", objective), run.features("query", objective)
    scores = queries.influence_of(clips)
    rows = {m.file_name: i for i, m in enumerate(queries.members)}
    columns = {m.file_name: i for i, m in enumerate(clips.members)}
    return scores[np.ix_([rows[n] for n in query_names], [columns[n] for n in clip_names])]


def timed(study: Study, name: str, measure: Any) -> dict[str, float]:
    """Processor seconds for a clip, measured once and kept."""
    file = study.work / "seconds.json"
    kept = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    if name not in kept:
        kept[name] = measure()
        write_atomically(file, json.dumps(kept, indent=1) + "\n")
        print(f"timed {name}", flush=True)
    found: dict[str, float] = kept[name]
    return found


def stage_seconds(stage: Stage, rows: Iterable[Row]) -> float:
    """Processor seconds of a stage for a clip alone: the mean over rows of the shortest of repeats."""
    stage.open()
    try:
        seconds = []
        for row in rows:
            stage.process(stage.prepare(row))  # what is compiled or allocated for a shape
            seconds.append(min(_seconds(stage, row) for _ in range(REPEATS)))
    finally:
        stage.close()
    return float(np.mean(seconds))


def _seconds(stage: Stage, row: Row) -> float:
    before = time.process_time()
    stage.process(stage.prepare(row))
    return time.process_time() - before


def _stage_seconds(study: Study, run: Run) -> dict[str, float]:
    asked = clip_rows(Members.of(_timed_members(study, run)))
    rows = list(asked.rows(list(asked.keys)))
    return {
        "track": stage_seconds(run.plan.track_stage, rows),
        "encode": stage_seconds(run.plan.encode_stage, rows),
        "gradients": _gradient_seconds(study, run, replace(run.objective, dim=study.setting.dim)),
    }


def _gradient_seconds(study: Study, run: Run, objective: Any) -> float:
    stage = GradientStage(run.plan.backbone, objective, 1)
    return stage_seconds(stage, gradient_rows(_timed_members(study, run), run.plan, run.store))


def _timed_members(study: Study, run: Run) -> list[Member]:
    """The first of the clips that have the most frames when they are whole."""
    clips = study.corpus.members["clip"][: study.setting.sampled_clips]
    most = max(m.frames for m in clips)
    wanted = {m.file_name for m in clips if m.frames == most}
    members = [m for m in run.usable("clip").values() if m.file_name in wanted]
    return members[: study.setting.timed_clips]


def _comparison(
    study: Study, scores: np.ndarray, exact: np.ndarray, wanted: np.ndarray, shown: np.ndarray
) -> dict[str, Any]:
    resamples = study.setting.resamples
    return {
        "spearman": over_queries(spearman(scores, exact), resamples),
        "top": over_queries(top_overlap(scores, exact), resamples),
        "precision": over_queries(precision(scores, wanted, shown), resamples),
    }


def _latent_cells(run: Run, file_names: list[str]) -> float:
    """Cells of a latent, in frames, height and width, mean over clips."""
    wanted, stride = set(file_names), run.plan.backbone.spatial_stride()
    area = (run.sampler.height // stride) * (run.sampler.width // stride)
    frames = [
        len(run.plan.backbone.frame_map(m.frames))
        for m in run.usable("clip").values()
        if m.file_name in wanted
    ]
    return float(area * np.mean(frames))


def _fits(name: str, pattern: str) -> bool:
    return any(fnmatch.fnmatchcase(name, part) for part in pattern.split(","))
