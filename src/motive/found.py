"""What a run has found: features and their scores, and the files that came to nothing."""

from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np

from motive.errors import UserError
from motive.gradients.objective import Objective, require_same
from motive.influence.estimated import EstimatedScores, estimated_scores
from motive.influence.features import Features
from motive.influence.scores import Scores
from motive.runs.members import Members, Role
from motive.runs.tables import Row
from motive.runs.texts import is_among

if TYPE_CHECKING:
    from motive.pipeline import Run

_LOOKED_UP = 1024  # features that are asked for by name; of more the whole table is read


def features(run: "Run", role: Role, objective: Objective | None) -> Features:
    """As `Run.features`."""
    objective = objective or run.plan.objective_of(role)
    have = featured(run, role, objective)
    keys = have.column("feature_key").to_pylist()
    table, columns = run.feature_table(objective), ["key", "feature", "norm", "static"]
    rows: dict[str, Row]
    if len(keys) <= _LOOKED_UP:
        rows = table.lookup(keys, objective.id, columns=columns)
    else:
        wanted, all_rows = set(keys), table.rows(objective.id, columns=columns)
        rows = {row["key"]: row for row in all_rows if row["key"] in wanted}
    mine = [rows[key] for key in keys]
    return Features(
        objective,
        list(have),
        np.stack([r["feature"] for r in mine]),
        np.array([r["norm"] for r in mine]),
        np.array([r["static"] for r in mine], bool),
    )


def featured(run: "Run", role: Role, objective: Objective | None) -> Members:
    """As `Run.featured`."""
    objective = objective or run.plan.objective_of(role)
    wanted = run.members.usable(role)
    has = run.feature_table(objective).has(wanted.column("feature_key"), objective.id)
    missing = wanted.take(~has)
    if len(missing):
        failed = _failures_by_key(run, objective)
        if any(m.feature_key not in failed and m.clip_id not in failed for m in missing):
            _explain_missing(run, objective, len(missing), role)
    if not has.any():
        raise UserError(f"no {role} has a gradient feature: see failures.csv in {run.folder}")
    return wanted.take(has)


def score_features(run: "Run", queries: Features) -> Scores | EstimatedScores:
    """As `Run.score_features`."""
    wanted = run.plan.objective_of("query")
    require_same(wanted, queries.objective, mine_is="this run", other_is="the queries")
    return estimated_scores(
        run.plan.estimator,
        run.feature_table(run.objective),
        run.objective.id,
        queries,
        lambda: featured(run, "clip", None).column("feature_key"),
        folder=run.folder if isinstance(run.folder, Path) else None,
        threads=run.config.compute.threads,
    )


def failures(run: "Run") -> list[tuple[str, str, str]]:
    """As `Run.failures`."""
    by_role = {
        "clip": _failures_by_key(run, run.plan.objective_of("clip")),
        "query": _failures_by_key(run, run.plan.objective_of("query")),
    }
    objective = run.plan.objective_of("query")
    static = set[str]()
    for batch in run.feature_table(objective).batches(objective.id, ["key", "static"]):
        static.update(batch.filter(batch["static"])["key"].to_pylist())
    listed: dict[tuple[str, str], tuple[str, str, str]] = {}
    for member in _perhaps_failed(run.members, static.union(*by_role.values())):
        stage, reason, by_key = "ingest", member.reason, by_role[member.role]
        if not reason:
            stage, reason = (
                by_key.get(member.clip_id)
                or by_key.get(member.caption_id)
                or by_key.get(member.feature_key)
                or ("", "")
            )
        if not reason and member.role == "query" and member.feature_key in static:
            stage, reason = "score", "it shows no motion, so its gradient is zero"
        if reason:
            said = reason if member.role == "clip" else f"as a query: {reason}"
            listed.setdefault((member.file_name, member.path), (member.file_name, stage, said))
    return list(listed.values())


def _perhaps_failed(members: Members, keys: set[str]) -> Members:
    """The members that ingest could not use, or that these keys are about."""
    found = ~is_among(members.column("reason"), [""])
    for column in ("clip_id", "caption_id", "feature_key") if keys else ():
        found |= is_among(members.column(column), keys)
    return members.take(found)


def _failures_by_key(run: "Run", objective: Objective) -> dict[str, tuple[str, str]]:
    made_by = {
        run.plan.track_stage.fingerprint(),
        run.plan.encode_stage.fingerprint(),
        run.plan.text_stage.fingerprint(),
        objective.id,
    }
    rows = [r for r in run.store.failures.rows() if r["made_by"] in made_by]
    # What failed in two stages is listed with the first of them.
    return {r["key"]: (r["stage"], r["reason"]) for r in reversed(rows)}


def _explain_missing(run: "Run", objective: Objective, missing: int, role: Role) -> NoReturn:
    # Another estimator's objectives differ in what makes the estimator: to name it would say nothing.
    others = run.store.other_objectives(objective.id)
    for other in others if run.plan.estimator.name == "paper" else []:
        require_same(
            objective,
            Objective.from_json(other),
            mine_is="this run's settings",
            other_is="the features that are there",
        )
    noun = role if missing == 1 else {"clip": "clips", "query": "queries"}[role]
    raise UserError(
        f"{missing} {noun} have no gradient feature yet: run motive gradients {run.folder}"
    )
