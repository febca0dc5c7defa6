"""What a run leaves for people and other programs: scores, selection, failures, export, summary."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from motive.clips.formats import ExportClip, ExportReport, write_dataset
from motive.errors import UserError
from motive.gradients.objective import Objective, require_same
from motive.influence.score_file import ScoreFile, write_score_file
from motive.influence.scores import available_threads
from motive.influence.selection import Ranking, rank_clips
from motive.motion.track import STATISTICS
from motive.runs.csv_text import csv_parts, write_csv
from motive.runs.members import Members
from motive.runs.remote import RemotePath
from motive.runs.texts import Texts, as_array, is_among

if TYPE_CHECKING:
    from motive.influence.features import Features
    from motive.pipeline import Run

SELECTION_COLUMNS = (
    "rank",
    "clip_id",
    "file_name",
    "caption",
    "votes",
    "mean_score",
    "best_query",
    "selected",
)
_SHOWN = ["clip_id", "file_name", "caption"]  # of the clip itself
# Beside `votes`, which is their difference, where some queries are unwanted.
POLARITY_COLUMNS = ("votes_for", "votes_against")


def used_queries(run: "Run") -> "Features":
    """The queries that have a direction: a query without motion cannot vote.

    Raises UserError when none is left.
    """
    queries = run.features("query")
    keep = np.flatnonzero(~queries.static)
    if len(keep) == 0:
        raise UserError(
            "no query shows any motion, so every gradient is zero: "
            "give --queries that move, or a smaller --static-below"
        )
    return queries.take(keep)


def write_scores(run: "Run") -> int:
    """`scores.parquet`: clip_id, query_id, score, by query and then clip id. Returns their number."""
    queries = used_queries(run)
    clips = run.featured("clip").sorted_by("clip_id")
    with run.score_features(queries) as scores:
        return write_score_file(
            run.folder / "scores.parquet",
            scores.rows(Texts(clips.column("feature_key"))),
            [m.clip_id for m in queries.members],
            Texts(clips.column("clip_id")),
            run.objective.to_json(),
            run.plan.objective_of("query").to_json(),
            run.plan.estimator.name,
        )


def open_scores(run: "Run") -> ScoreFile:
    """The run's `scores.parquet`.

    Raises UserError when there is none yet, or when another estimator or objective made it.
    """
    path = run.folder / "scores.parquet"
    if not path.is_file():
        raise UserError(f"{run.folder} has no scores yet: run motive score {run.folder}")
    scores = ScoreFile(path)
    mine = run.plan.estimator.name
    if scores.estimator != mine:
        raise UserError(
            f"scores.parquet was made by the estimator {scores.estimator}, and the run's is {mine}: "
            f"run motive score {run.folder}"
        )
    for wanted, objective in (
        (run.objective, scores.objective),
        (run.plan.objective_of("query"), scores.query_objective),
    ):
        made_with = Objective.from_json(objective)
        require_same(wanted, made_with, mine_is="this run's settings", other_is="scores.parquet")
    return scores


def rank_scores(run: "Run", scores: ScoreFile) -> Ranking:
    """The ranking that the run's settings give; memory grows with the clips, not with the queries."""
    chosen, queries = run.config.selection, run.usable("query")
    return rank_clips(
        scores.rows(),
        scores.clip_ids,
        fraction=chosen.fraction,
        percentile=chosen.percentile,
        eligible=~is_among(scores.clip_ids.array, held_back(run)),
        unwanted=[queries[query_id].unwanted for query_id in scores.query_ids],
        threads=run.config.compute.threads or available_threads(),
    )


def held_back(run: "Run") -> set[str]:
    """The ids of the tracked clips whose motion keeps them out of the selection."""
    chosen = run.config.selection
    if chosen.max_camera_share is None and chosen.min_speed is None:
        return set()
    stage, columns = run.plan.track_stage, ["key", "camera_share", "mean_speed"]
    found = run.store.results(stage).columns(stage.fingerprint(), columns)
    out = np.zeros(found.num_rows, bool)
    if chosen.max_camera_share is not None:
        out |= found["camera_share"].to_numpy().astype(float) > chosen.max_camera_share
    if chosen.min_speed is not None:
        out |= found["mean_speed"].to_numpy().astype(float) < chosen.min_speed
    keys = as_array(found["key"].filter(pa.array(out)))
    clips = run.members.usable("clip").column("clip_id")
    return set(keys.filter(pa.array(is_among(keys, clips))).to_pylist())


def write_motion(run: "Run") -> int:
    """`motion.csv`: the statistics of every tracked clip, the most object motion first.

    Ties go to the smaller clip id. Returns the number of clips.
    """
    count, rows = _motion(run)
    columns = ("file_name", "clip_id", *STATISTICS)
    shown = ({**row, **{name: f"{row[name]:.6f}" for name in STATISTICS}} for row in rows)
    write_csv(run.folder / "motion.csv", columns, shown)
    return count


def motion_rows(run: "Run") -> list[dict[str, Any]]:
    """File name, clip id and statistics of every tracked clip, the most object motion first."""
    return list(_motion(run)[1])


def _motion(run: "Run") -> tuple[int, Iterator[dict[str, Any]]]:
    """How many rows there are, and the rows; only their ids and numbers are held."""
    clips, stage = run.usable("clip"), run.plan.track_stage
    found = run.store.results(stage).columns(stage.fingerprint(), ["key", *STATISTICS])
    mine = is_among(as_array(found["key"]), clips.members.column("clip_id"))
    found = found.filter(pa.array(mine))
    order = pc.sort_indices(found, [("object_speed", "descending"), ("key", "ascending")])
    found = found.take(order)

    def rows() -> Iterator[dict[str, Any]]:
        start = 0
        for batch in clips.those(as_array(found["key"])).batches(["file_name"]):
            some = found.slice(start, batch.num_rows).to_pylist()
            for name, row in zip(batch["file_name"].to_pylist(), some, strict=True):
                yield {"file_name": name, "clip_id": row.pop("key"), **row}
            start += batch.num_rows

    return found.num_rows, rows()


def write_selection(run: "Run") -> int:
    """`selection.csv`, all ranked clips, best first. Returns how many are selected."""
    selected, columns, rows = _ranked(run)
    write_csv(run.folder / "selection.csv", columns, rows)
    return selected


def is_selection(run: "Run") -> bool:
    """Whether `selection.csv` is, byte for byte, what the scores that are there give."""
    _, columns, rows = _ranked(run)
    path = run.folder / "selection.csv"
    with path.open_parts() if isinstance(path, RemotePath) else path.open("rb") as file:
        for part in csv_parts(columns, rows):
            data = part.encode()
            if file.read(len(data)) != data:
                return False
        return not file.read(1)


def _ranked(run: "Run") -> tuple[int, tuple[str, ...], Iterator[dict[str, Any]]]:
    """How many clips the scores that are there select, and the columns and rows of `selection.csv`.

    Where some queries are unwanted, `votes` is the difference of `votes_for` and `votes_against`.
    """
    scores = open_scores(run)
    ranking, query_ids, clip_ids = rank_scores(run, scores), scores.query_ids, scores.clip_ids
    clips, queries = run.usable("clip"), run.usable("query")
    columns: tuple[str, ...] = SELECTION_COLUMNS
    if any(queries[query_id].unwanted for query_id in query_ids):
        after = columns.index("votes") + 1
        columns = (*columns[:after], *POLARITY_COLUMNS, *columns[after:])

    query_names = [queries[query_id].file_name for query_id in query_ids]

    def rows() -> Iterator[dict[str, Any]]:
        in_order = clips.those(clip_ids.array.take(pa.array(ranking.order)))
        shown = (row for part in in_order.batches(_SHOWN) for row in part.to_pylist())
        for rank, (i, clip) in enumerate(zip(ranking.order, shown, strict=True), start=1):
            votes, against = int(ranking.votes[i]), int(ranking.votes_against[i])
            best = int(ranking.best_query[i])
            row = {
                "rank": rank,
                **clip,
                "votes": votes,
                "votes_for": votes + against,
                "votes_against": against,
                "mean_score": run.plan.estimator.as_text(ranking.mean_score[i], 8),
                "best_query": "" if best < 0 else query_names[best],
                "selected": "true" if ranking.selected[i] else "false",
            }
            yield {name: row[name] for name in columns}

    return int(ranking.selected.sum()), columns, rows()


def write_failures(run: "Run") -> int:
    """`failures.csv`: every file that is not ranked, with its stage and reason."""
    columns = ("file_name", "stage", "reason")
    failures = run.failures()
    rows = (dict(zip(columns, failure, strict=True)) for failure in failures)
    write_csv(run.folder / "failures.csv", columns, rows)
    return len(failures)


def read_selection(run: "Run") -> list[dict[str, str]]:
    """The rows of `selection.csv`.

    Raises UserError when there is none yet.
    """
    return list(stream_selection(run))


def stream_selection(run: "Run") -> Iterator[dict[str, str]]:
    """As `read_selection`, one after the other."""
    path = run.folder / "selection.csv"
    if not path.is_file():
        raise UserError(f"{run.folder} has no selection yet: run motive select {run.folder}")
    with path.open(newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)


def export_selection(run: "Run", format: str, out: Path, *, link: bool = False) -> ExportReport:
    """The selected clips, best first, as a dataset of `format` in `out`."""
    chosen = [row for row in stream_selection(run) if row["selected"] == "true"]
    members = run.usable("clip").those([row["clip_id"] for row in chosen])
    clips = [
        ExportClip(
            path=Path(member.path),
            file_name=row["file_name"],
            caption=row["caption"],
            rank=int(row["rank"]),
            scores={
                "motive_score": float(row["mean_score"]),
                "motive_votes": float(row["votes"]),
            },
        )
        for row, member in zip(chosen, members, strict=True)
    ]
    return write_dataset(format, clips, out, link=link)


def describe(run: "Run") -> dict[str, Any]:
    """What `motive info` shows."""
    from motive.runs.config import flatten
    from motive.runs.provenance import versions

    members = Members.stored(run.store.members)
    ranked = selected = 0
    for row in stream_selection(run) if (run.folder / "selection.csv").is_file() else ():
        ranked, selected = ranked + 1, selected + (row["selected"] == "true")
    return {
        "run": str(run.folder),
        "clips": len(members.of_role("clip")),
        "clips_ranked": ranked,
        "queries": len(members.of_role("query")),
        "selected": selected,
        "failures": [
            {"file_name": name, "stage": stage, "reason": reason}
            for name, stage, reason in (run.failures() if len(members) else [])
        ],
        "objective_id": run.objective.id,
        "objective": json.loads(run.objective.to_json()),
        "query_objective": json.loads(run.plan.objective_of("query").to_json()),
        "estimator": {
            "name": run.plan.estimator.name,
            "passes": {
                "clip": len(run.objective.timesteps),
                "query": len(run.plan.objective_of("query").timesteps),
            },
        },
        "config": flatten(run.config.model_dump(mode="json")),
        "stages": run.store.log.read(),
        "versions": versions(),
    }
