"""From a run to the data of its report."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from motive.clips.decoding import DecodedClip
from motive.clips.ingest import decode_unchanged
from motive.errors import ClipError
from motive.motion.masks import motion_mask
from motive.motion.track import maps_of
from motive.results import held_back, open_scores, rank_scores
from motive.runs.matching import places_of
from motive.runs.members import Member
from motive.runs.provenance import now, write_atomically
from motive.runs.texts import as_array, is_among
from motive.web.preview import encode_preview
from motive.web.report import (
    ClipCard,
    Preview,
    QueryCard,
    ReportData,
    Totals,
    rank_correlation,
    render_report,
)

if TYPE_CHECKING:
    from motive.pipeline import Run

FEW_QUERIES, SHOWN = 20, (5, 3)  # up to here each query shows five clips at either end, else three
HELD = 10_000  # clips that one page holds: a browser still opens it, and it can be sent by mail
_STATIC = "static: no motion, so its gradient and its scores are zero"
_PREVIEW_SIDE = 160  # pixels; what a card shows
_STILL_FPS = 1.0  # a clip of one frame plays as one second


def write_report(
    run: "Run", *, check: list[dict[str, object]] | None = None, check_note: str = ""
) -> None:
    """Write `report.html` of a run that has a selection.

    check, check_note: a comparison of methods, where the truth is known (`ReportData.check`).
    """
    write_atomically(
        run.folder / "report.html", render_report(_report_data(run, check, check_note))
    )


def _report_data(run: "Run", check: list[dict[str, object]] | None, check_note: str) -> ReportData:
    found = open_scores(run)
    ranking, query_ids, clip_ids = rank_scores(run, found), found.query_ids, found.clip_ids
    held = held_back(run)
    log, failures = run.store.log.read(), run.failures()
    queries = run.usable("query")
    shown = min(SHOWN[len(query_ids) > FEW_QUERIES], len(clip_ids))
    extremes = {}
    for query_id, scores_n in zip(query_ids, found.rows(), strict=True):
        by_score = np.argsort(-scores_n, kind="stable")  # the ids ascend
        top, bottom = by_score[:shown], by_score[::-1][:shown]
        extremes[query_id] = tuple(
            [(clip_ids[i], float(scores_n[i])) for i in part] for part in (top, bottom)
        )
    wanted = {c for pair in extremes.values() for part in pair for c, _ in part}
    wanted |= {clip_ids[i] for i in (*ranking.order[:shown], ranking.order[-1])}
    part = _part(ranking.order, is_among(clip_ids.array, wanted))
    scores = np.stack([scores_n[part] for scores_n in found.rows()])
    previews = _Previews(run, [*wanted, *query_ids])
    speed_n, query_speeds = _speeds(run, clip_ids, query_ids)
    static = _static(run)
    rank_of = np.empty(len(clip_ids), int)
    rank_of[ranking.order] = np.arange(1, len(clip_ids) + 1)
    shown_clips = run.usable("clip").those(clip_ids.array.take(pa.array(part)))
    cards = [
        ClipCard(
            clip_id=clip.clip_id,
            file_name=clip.file_name,
            caption=clip.caption,
            rank=int(rank_of[i]),
            votes=int(ranking.votes[i]),
            votes_against=int(ranking.votes_against[i]),
            mean_score=float(ranking.mean_score[i]),
            best_query=None if ranking.best_query[i] < 0 else query_ids[ranking.best_query[i]],
            selected=bool(ranking.selected[i]),
            magnitude=float(speed_n[i]),
            frames=clip.frames,
            preview=previews.of(clip) if clip.clip_id in wanted else None,
            note=_STATIC if clip.clip_id in static else "",
        )
        for i, clip in zip(part.tolist(), shown_clips, strict=True)
    ]
    whole = None
    if len(part) < len(clip_ids):
        whole = Totals(
            clips=len(clip_ids),
            selected=int(ranking.selected.sum()),
            voted=[
                int((scores_n > t).sum())
                for scores_n, t in zip(found.rows(), ranking.thresholds, strict=True)
            ],
            correlation=rank_correlation(ranking.mean_score, speed_n),
        )
    query_cards = [
        QueryCard(
            query_id=query_id,
            file_name=queries[query_id].file_name,
            caption=queries[query_id].caption,
            magnitude=float(query_speeds[q]),
            preview=previews.of(queries[query_id]),
            scores=scores[q],
            threshold=float(ranking.thresholds[q]),
            top=extremes[query_id][0],
            bottom=extremes[query_id][1],
            label=motion_label(queries[query_id]),
            unwanted=queries[query_id].unwanted,
        )
        for q, query_id in enumerate(query_ids)
    ]
    objective = json.loads(run.objective.to_json()) | {"sampler": run.sampler.in_words()}
    return ReportData(
        title=f"{run.folder.resolve().name}: the clips that teach this motion",
        created=now(),
        summary={
            "clips": str(len(run.members.of_role("clip"))),
            "queries": str(len(query_ids)),
            "selected": str(int(ranking.selected.sum())),
            **({"held back for their motion": str(len(held))} if held else {}),
            "model": run.config.model,
            "tracker": run.config.motion.tracker,
            "estimator": run.plan.estimator.name,
            "seconds": f"{sum(entry['seconds'] for entry in log.values()):.0f}",
        },
        objective={"id": run.objective.id, **{k: str(v) for k, v in objective.items()}},
        stages=[
            {
                "stage": stage,
                "done": int(entry["done"]),  # clips, captions or pairs
                "failed": int(entry["failed"]),
                "seconds": entry["seconds"],
                "peak_memory_mb": entry["peak_mb"],
            }
            for stage, entry in log.items()
        ],
        clips=cards,
        queries=query_cards,
        failures=failures,
        bounded=run.plan.estimator.bounded,
        check=check,
        check_note=check_note,
        whole=whole,
    )


def _part(order_n: np.ndarray, wanted_n: np.ndarray) -> np.ndarray:
    """Which clips the report holds, ascending: all; or of many the best, every so manieth, and the wanted."""
    if len(order_n) <= HELD:
        return np.arange(len(order_n))
    best, rest = order_n[: HELD // 2], order_n[HELD // 2 :]
    every = rest[np.linspace(0, len(rest) - 1, HELD - len(best)).astype(int)]
    return np.unique(np.concatenate([best, every, np.flatnonzero(wanted_n)]))


def _speeds(run: "Run", *ids: Sequence[str]) -> list[np.ndarray]:
    """The mean speeds of tracked clips or queries, `(N,)` for each list of ids, in its order."""
    stage = run.plan.track_stage
    found = run.store.results(stage).columns(stage.fingerprint(), ["key", "mean_speed"])
    keys, speeds = as_array(found["key"]), found["mean_speed"].to_numpy().astype(np.float64)
    places = [places_of(as_array(some), keys) for some in ids]
    return [np.where(place < 0, np.nan, speeds[place]) for place in places]


def _static(run: "Run") -> set[str]:
    """The ids of the clips that show no motion, where that makes the gradient zero."""
    objective = run.objective
    table = run.store.table(objective.feature_table, pa.schema([]))
    found = table.columns(objective.id, ["key", "static"])
    return {key.partition(":")[0] for key in found["key"].filter(found["static"]).to_pylist()}


def motion_label(member: Member) -> str:
    """The motion that the dataset itself says the clip shows; empty when it says nothing."""
    extra = json.loads(member.extra)
    return str(extra.get("motion") or extra.get("motion_label") or "")


class _Previews:
    """Encodes the clips that cards show; a file that is gone or changed has no preview."""

    def __init__(self, run: "Run", clip_ids: Sequence[str]) -> None:
        stage = run.plan.track_stage
        self.run = run
        self.motion = run.store.results(stage).lookup(clip_ids, stage.fingerprint())
        self.made: dict[str, Preview | None] = {}

    def of(self, member: Member) -> Preview | None:
        if member.clip_id not in self.made:
            self.made[member.clip_id] = self._make(member)
        return self.made[member.clip_id]

    def _make(self, member: Member) -> Preview | None:
        try:
            decoded: DecodedClip = decode_unchanged(
                member.file, Path(member.path), self.run.sampler
            )
        except (ClipError, OSError):
            return None
        settings, fps = self.run.config.motion, decoded.fps or _STILL_FPS
        mask = motion_mask(
            maps_of(self.motion[member.clip_id]),
            "paper" if settings.mask == "none" else settings.mask,
            trusted=settings.mask_trusted,
            static_below=settings.static_below,
        )
        return Preview(encode_preview(decoded.frames_fhw3, fps, _PREVIEW_SIDE), fps, mask)
