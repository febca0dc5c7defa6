"""From a run to the data of its report."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from motive.clips.decoding import DecodedClip
from motive.clips.ingest import decode_unchanged
from motive.errors import ClipError
from motive.motion.masks import is_static, motion_mask
from motive.motion.track import maps_of
from motive.results import held_back, ranking_of
from motive.runs.members import Member
from motive.runs.provenance import now, write_atomically
from motive.runs.tables import Row
from motive.web.preview import encode_preview
from motive.web.report import ClipCard, Preview, QueryCard, ReportData, render_report

if TYPE_CHECKING:
    from motive.pipeline import Run

FEW_QUERIES = 20  # up to here each query shows more clips
_PREVIEW_SIDE = 160  # pixels; what a card shows
_STILL_FPS = 1.0  # a clip of one frame plays as one second


def write_report(
    run: "Run", *, check: list[dict[str, object]] | None = None, check_note: str = ""
) -> Path:
    """Write `report.html` of a run that has a selection, and return its path.

    check, check_note: a comparison of methods, where the truth is known (`ReportData.check`).
    """
    path = run.path / "report.html"
    write_atomically(path, render_report(_report_data(run, check, check_note)))
    return path


def _report_data(run: "Run", check: list[dict[str, object]] | None, check_note: str) -> ReportData:
    ranking, scores, query_ids, clip_ids = ranking_of(run)
    held = held_back(run)
    motion, log, failures = run.motion(), run.store.log.read(), run.failures()
    clips, queries = run.usable("clip"), run.usable("query")
    shown = min(5 if len(query_ids) <= FEW_QUERIES else 3, len(clip_ids))
    extremes = {}
    for q, query_id in enumerate(query_ids):
        by_score = np.lexsort((clip_ids, -scores[q]))
        top, bottom = by_score[:shown], by_score[::-1][:shown]
        extremes[query_id] = tuple(
            [(clip_ids[i], float(scores[q, i])) for i in part] for part in (top, bottom)
        )
    wanted = {c for pair in extremes.values() for part in pair for c, _ in part}
    wanted |= {clip_ids[i] for i in (*ranking.order[:shown], ranking.order[-1])}
    previews = _Previews(run, motion)
    rank_of = np.empty(len(clip_ids), int)
    rank_of[ranking.order] = np.arange(1, len(clip_ids) + 1)
    cards = [
        ClipCard(
            clip_id=clip_id,
            file_name=clips[clip_id].file_name,
            caption=clips[clip_id].caption,
            rank=int(rank_of[i]),
            votes=int(ranking.votes[i]),
            votes_against=int(ranking.votes_against[i]),
            mean_score=float(ranking.mean_score[i]),
            best_query=None if ranking.best_query[i] < 0 else query_ids[ranking.best_query[i]],
            selected=bool(ranking.selected[i]),
            magnitude=float(motion[clip_id]["mean_speed"]),
            frames=clips[clip_id].frames,
            preview=previews.of(clips[clip_id]) if clip_id in wanted else None,
            note=_note(run, motion[clip_id]),
        )
        for i, clip_id in enumerate(clip_ids)
    ]
    query_cards = [
        QueryCard(
            query_id=query_id,
            file_name=queries[query_id].file_name,
            caption=queries[query_id].caption,
            magnitude=float(motion[query_id]["mean_speed"]),
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
        title=f"{run.path.resolve().name}: the clips that teach this motion",
        created=now(),
        summary={
            "clips": str(sum(m.role == "clip" for m in run.members)),
            "queries": str(len(query_ids)),
            "selected": str(int(ranking.selected.sum())),
            **({"held back for their motion": str(len(held))} if held else {}),
            "model": run.config.model,
            "tracker": run.config.motion.tracker,
            "seconds": f"{sum(entry['seconds'] for entry in log.values()):.0f}",
        },
        objective={"id": run.objective.id, **{k: str(v) for k, v in objective.items()}},
        stages=[
            {
                "stage": stage,
                "clips": int(entry["done"]),
                "failed": int(entry["failed"]),
                "seconds": entry["seconds"],
                "peak_memory_mb": entry["peak_mb"],
            }
            for stage, entry in log.items()
        ],
        clips=cards,
        queries=query_cards,
        failures=failures,
        check=check,
        check_note=check_note,
    )


def motion_label(member: Member) -> str:
    """The motion that the dataset itself says the clip shows; empty when it says nothing."""
    extra = json.loads(member.extra)
    return str(extra.get("motion") or extra.get("motion_label") or "")


def _note(run: "Run", row: Row) -> str:
    motion = run.config.motion
    if is_static(maps_of(row), motion.mask, motion.static_below):
        return "static: no motion, so its gradient and its scores are zero"
    return ""


class _Previews:
    """Encodes the clips that cards show; a file that is gone or changed has no preview."""

    def __init__(self, run: "Run", motion: dict[str, Row]) -> None:
        self.run, self.motion = run, motion
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
