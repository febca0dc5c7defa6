"""Which clips teach the model an artifact: the ranking of one query's influence, for a person to look at.

A query here is a clip that shows what the model should not do: a flicker, a jump, a frozen or physically
wrong motion, best taken from the model's own generations.
"""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from motive.errors import UserError
from motive.motion.track import STATISTICS
from motive.results import open_scores
from motive.runs.members import Member
from motive.runs.provenance import write_atomically
from motive.runs.remote import RunPath
from motive.subsets import Subset

if TYPE_CHECKING:
    from motive.pipeline import Run

FILE_NAME = "diagnosis.csv"
COLUMNS = (
    "rank",
    "clip_id",
    "file_name",
    "caption",
    "score",
    "percentile",
    "robust_z",
    "wanted_score",
    *STATISTICS,
    "queries",
)
_GAUSSIAN = (
    1.4826  # the standard deviation of a normal distribution over its median absolute deviation
)


@dataclass(frozen=True)
class Suspect:
    """One clip, by how much it teaches what the queries show.

    score: mean influence on the queries of the diagnosis, -1..1 where the estimator's scores are cosines.
    percentile: share of the clips that score lower, 0..100.
    robust_z: the score's distance from the median of all clips, in deviations as their median absolute
        deviation estimates them; a bad clip stands far out, 0 is ordinary.
    wanted_score: mean influence on the run's wanted queries, which dropping the clip would cost; None
        where the run has none beside the diagnosed ones.
    motion: the clip's statistics by name (`motive.motion.statistics.MotionStatistics`).
    """

    rank: int
    clip_id: str
    file_name: str
    caption: str
    score: float
    percentile: float
    robust_z: float
    wanted_score: float | None
    motion: dict[str, float]


@dataclass(frozen=True)
class Diagnosis:
    """suspects: every ranked clip, the one that teaches the queries most first.

    left_out: unwanted queries that have no scores, with the reason.
    bounded: whether scores lie in -1..1; others have the scale of the gradients.
    """

    queries: tuple[Member, ...]
    suspects: tuple[Suspect, ...]
    left_out: tuple[tuple[Member, str], ...] = ()
    bounded: bool = True

    def kept(self, drop: int) -> Subset:
        """Every clip but the first `drop`, the least suspect first.

        Raises UserError when nothing would be left.
        """
        if not 0 <= drop < len(self.suspects):
            raise UserError(
                f"{drop} of {len(self.suspects)} clips cannot be dropped: "
                f"use a number from 0 to {len(self.suspects) - 1}"
            )
        kept = tuple(s.clip_id for s in reversed(self.suspects[drop:]))
        return Subset("diagnosis", kept, f"all clips but the {drop} that most teach the query")


def diagnose(run: "Run", queries: Sequence[str] = ()) -> Diagnosis:
    """Rank the clips by what they teach of these queries.

    queries: file names or clip ids; none is every query of the run whose polarity is `unwanted`, but for
        those that cannot have scores, such as one in which nothing moves. Several are averaged.

    Raises UserError for a name that is no query, for a named query that has no scores, or when none is
    left.
    """
    scores = open_scores(run)
    chosen = _queries(run, queries)
    at = {query_id: i for i, query_id in enumerate(scores.query_ids)}
    left_out = _without_scores(run, [m for m in chosen if m.clip_id not in at])
    chosen = [m for m in chosen if m.clip_id in at]
    if left_out and (queries or not chosen):
        member, reason = left_out[0]
        raise UserError(f"the query {member.file_name} has no scores ({reason}): use another")
    diagnosed = {at[m.clip_id] for m in chosen}
    others = {
        at[m.clip_id] for m in run.usable("query").values() if not m.unwanted and m.clip_id in at
    }
    others -= diagnosed
    total_n, wanted_n = np.zeros(len(scores.clip_ids)), np.zeros(len(scores.clip_ids))
    for i, row in enumerate(scores.rows()):
        if i in diagnosed:
            total_n += row
        elif i in others:
            wanted_n += row
    wanted = wanted_n / len(others) if others else None
    return Diagnosis(
        tuple(chosen),
        _suspects(run, scores.clip_ids, total_n / len(diagnosed), wanted),
        tuple(left_out),
        run.plan.estimator.bounded,
    )


def _without_scores(run: "Run", members: list[Member]) -> list[tuple[Member, str]]:
    """Each with why it cannot have scores.

    Raises UserError for one that only was not scored yet.
    """
    if not members:
        return []
    reasons = {name: why.removeprefix("as a query: ") for name, _, why in run.failures()}
    for member in members:
        if member.file_name not in reasons:
            raise UserError(
                f"the query {member.file_name} has no scores: run motive score {run.folder}"
            )
    return [(member, reasons[member.file_name]) for member in members]


def write_diagnosis(run: "Run", diagnosis: Diagnosis) -> RunPath:
    """`diagnosis.csv`, the most suspect clip first, and its path.

    Every row names the queries that made it, as a JSON list of file names.
    """
    queries = json.dumps([m.file_name for m in diagnosis.queries], ensure_ascii=False)
    as_text = run.plan.estimator.as_text
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for s in diagnosis.suspects:
        wanted = "" if s.wanted_score is None else as_text(s.wanted_score, 8)
        numbers = as_text(s.score, 8), f"{s.percentile:.2f}", f"{s.robust_z:.3f}", wanted
        motion = (f"{s.motion[name]:.6f}" for name in STATISTICS)
        writer.writerow((s.rank, s.clip_id, s.file_name, s.caption, *numbers, *motion, queries))
    path = run.folder / FILE_NAME
    write_atomically(path, text.getvalue())
    return path


def _queries(run: "Run", names: Sequence[str]) -> list[Member]:
    usable = run.usable("query")
    if not names:
        unwanted = [m for m in usable.values() if m.unwanted]
        if not unwanted:
            raise UserError(
                "no query of the run is unwanted: name one with --query, or give queries with a "
                "column polarity that says unwanted"
            )
        return unwanted
    by_name = {m.file_name: m for m in run.members if m.role == "query"}
    found: dict[str, Member] = {}
    for name in names:
        member = usable.get(name) or by_name.get(name)
        if member is None:
            some = next(iter(by_name))
            raise UserError(
                f"'{name}' is no query of {run.folder}: use a file name as its dataset has it, such as "
                f"{some}, or a clip id"
            )
        if not member.usable:
            raise UserError(f"the query {name} could not be used ({member.reason}): use another")
        found[member.clip_id] = member
    return list(found.values())


def _suspects(
    run: "Run", clip_ids: Sequence[str], score_n: np.ndarray, wanted_n: np.ndarray | None
) -> tuple[Suspect, ...]:
    motion = run.motion(columns=["key", *STATISTICS])
    order = np.lexsort((np.asarray(clip_ids), -score_n))
    ascending = np.sort(score_n)
    percentile_n = 100 * np.searchsorted(ascending, score_n, side="left") / len(score_n)
    middle = np.median(score_n)
    deviation = _GAUSSIAN * np.median(np.abs(score_n - middle))
    z_n = (score_n - middle) / deviation if deviation > 0 else np.zeros(len(score_n))
    clips = run.usable("clip").those([clip_ids[i] for i in order])
    return tuple(
        Suspect(
            rank=rank,
            clip_id=clip.clip_id,
            file_name=clip.file_name,
            caption=clip.caption,
            score=float(score_n[i]),
            percentile=float(percentile_n[i]),
            robust_z=float(z_n[i]),
            wanted_score=None if wanted_n is None else float(wanted_n[i]),
            motion={name: float(motion[clip.clip_id][name]) for name in STATISTICS},
        )
        for rank, (i, clip) in enumerate(zip(order, clips, strict=True), start=1)
    )


def as_json(diagnosis: Diagnosis) -> str:
    """The diagnosis for programs."""
    return json.dumps(
        {
            "queries": [
                {"clip_id": m.clip_id, "file_name": m.file_name, "polarity": m.polarity}
                for m in diagnosis.queries
            ],
            "left_out": [
                {"clip_id": m.clip_id, "file_name": m.file_name, "reason": reason}
                for m, reason in diagnosis.left_out
            ],
            "suspects": [s.__dict__ for s in diagnosis.suspects],
        },
        indent=1,
        ensure_ascii=False,
    )
