"""`motive check`: is everything in a run that should be there, once, and made with the run's settings?

The tables' files and rows are looked at in `motive.runs.check`; here, what they mean together.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from motive.errors import UserError
from motive.pipeline import OUTPUTS
from motive.record import NAME as RECORD
from motive.record import read_record
from motive.results import is_selection, open_scores, stream_selection, used_queries
from motive.runs.check import (
    AGAIN,
    Finding,
    check_claims,
    check_parts,
    check_table,
    stored_tables,
)
from motive.runs.members import Member
from motive.runs.stage import Stage

if TYPE_CHECKING:
    from motive.pipeline import Run


@dataclass(frozen=True)
class Check:
    """What was found, and how much was looked at.

    counts: rows of each table.
    working: processes that are at work on the run.
    """

    findings: list[Finding]
    counts: dict[str, int]
    working: int

    @property
    def is_sound(self) -> bool:
        """Whether nothing is left to be mended."""
        return all(f.level == "remark" or f.mended for f in self.findings)

    def as_dict(self) -> dict[str, Any]:
        return {
            "sound": self.is_sound,
            "working": self.working,
            "rows": self.counts,
            "findings": [finding.as_dict() for finding in self.findings],
        }


def check_run(run: "Run", *, mend: bool = False) -> Check:
    """Look at everything in a run's folder.

    mend: do what is safe. What is dropped was computed once and is computed again by the next run; what
        another process may be at work on is left alone.

    On an object store checksums and files that no version names are not looked at, and it says so.
    """
    folder = run.folder
    findings, working = check_claims(folder, mend=mend)
    alone = not working
    findings += check_parts(folder, mend=mend, alone=alone)
    counts: dict[str, int] = {}
    damaged = False
    for table in stored_tables(folder):
        found = list(check_table(table, mend=mend, alone=alone))
        findings += found
        damaged = damaged or any(f.level == "damage" and not f.mended for f in found)
        if not damaged:
            counts[table.path.name.removesuffix(".lance")] = table.count()
    if not damaged:  # else what follows would trip over the same damage again
        for part in (_settings, _both, _members, _outputs):
            try:
                findings += part(run, mend)
            except UserError as error:
                what, _, how = str(error).partition(": ")
                findings.append(Finding("damage", RECORD, what, how or AGAIN))
                break
    return Check(findings, counts, working)


def _settings(run: "Run", mend: bool) -> Iterator[Finding]:
    """The run's record against what its settings mean today, and against its tables."""
    record = read_record(run.folder / RECORD)
    if record.objective_id and record.objective_id != run.objective.id:
        yield Finding(
            "damage",
            RECORD,
            f"its objective is {record.objective_id}, and its settings and model give {run.objective.id}: "
            "the model's files are not what they were",
            "put the model's files back, or make a run of their own for the new ones",
        )
    known = {row["key"] for row in run.store.objectives.rows()}
    table = run.store.table(run.objective.feature_table, _nothing())
    if table.exists():
        makers: set[str] = set()
        for batch in table.batches(None, ["made_by"]):
            makers.update(batch["made_by"].unique().to_pylist())
        for unknown in sorted(makers - known):
            yield Finding(
                "damage", table.path.name, f"features of the unknown objective {unknown}", AGAIN
            )


def _both(run: "Run", mend: bool) -> Iterator[Finding]:
    """A clip that is done and failed at once."""
    for stage in _stages(run):
        failed = run.store.failed(stage)
        both = sorted(failed.keys() - run.store.without(stage, failed))
        if both:
            finding = Finding(
                "damage", "failures.lance", f"{len(both)} failed and done in {stage.name}", AGAIN
            )
            if mend:
                run.store.failures.drop(both, stage.fingerprint())
                finding.mended = "the failures were dropped"
            yield finding


def _members(run: "Run", mend: bool) -> Iterator[Finding]:
    """Each stage's keys against the members: what is missing, and what nobody asks for any more."""
    if not run.store.members.exists():
        yield Finding("unfinished", "members.lance", "nothing was ingested yet", _command(run))
        return
    usable = [m for m in run.members if m.usable]
    failed: set[str] = set()
    for stage, key in _asked_of(run):
        lost = run.store.failed(stage).keys()
        wanted = {key(m) for m in usable if m.clip_id not in failed and m.caption_id not in failed}
        missing = run.store.without(stage, wanted) - lost
        if missing:
            yield Finding(
                "unfinished",
                stage.table + ".lance",
                f"{len(missing)} of {len(wanted)} are not through {stage.name}",
                _command(run),
            )
        if unused := _unused(run, stage, key):
            yield Finding(
                "remark",
                stage.table + ".lance",
                f"{unused} rows of {stage.name} are of clips that the datasets no longer name",
                "nothing: they are not ranked, and serve again if the clips come back",
            )
        failed |= lost
    yield from _objectives(run, usable, failed)


def _unused(run: "Run", stage: Stage, key: Callable[[Member], str]) -> int:
    """How many of the stage's rows no member asks for."""
    asked = {key(m) for m in run.members}
    batches = run.store.results(stage).batches(stage.fingerprint(), ["key"])
    return sum(key not in asked for batch in batches for key in batch["key"].to_pylist())


def _objectives(run: "Run", usable: list[Any], failed: set[str]) -> Iterator[Finding]:
    for role in ("clip", "query"):
        objective = run.plan.objective_of(role)
        table = run.store.table(objective.feature_table, _nothing())
        lost = run.store.failures.keys(objective.id)
        wanted = {
            m.feature_key
            for m in usable
            if m.role == role and m.clip_id not in failed and m.caption_id not in failed
        }
        if missing := table.without(wanted, objective.id) - lost:
            yield Finding(
                "unfinished",
                table.path.name,
                f"{len(missing)} of {len(wanted)} {role} features are missing",
                _command(run),
            )


def _outputs(run: "Run", mend: bool) -> Iterator[Finding]:
    """Scores, selection and stamps against what the features give now."""
    if not run.stamps():
        return  # nothing was scored yet
    found = list(_differing(run))
    if found and mend:
        run.forget_stamps()
        for finding in found:
            finding.mended = "the next run makes it again"
    yield from found


def _differing(run: "Run") -> Iterator[Finding]:
    """Outputs that are not what the run would make today, the first of them and what follows from it."""
    stamp, stamps, how = run.stamp(), run.stamps(), _command(run)
    for output, stage in OUTPUTS.items():
        if stage in stamps and not (run.folder / output).is_file():
            yield Finding("damage", output, "is not there", how)
            return
        if stage in stamps and stamps[stage] != stamp:
            yield Finding("unfinished", output, "is of the run as it was before", how)
            return
    try:
        wrong = _scores_differ(run)
    except UserError as error:
        wrong = str(error)
    except (OSError, ValueError, LookupError) as error:
        wrong = f"cannot be read ({error})"[:160]
    if wrong:
        yield Finding("damage", "scores.parquet", wrong, how)
    elif "select" in stamps:
        if not is_selection(run):
            yield Finding("damage", "selection.csv", "is not the ranking that the scores give", how)
        elif lost := _unaccounted(run):
            what = f"{len(lost)} clips are neither ranked nor failed, such as {lost[0]}"
            yield Finding("damage", "selection.csv", what, how)


def _unaccounted(run: "Run") -> list[str]:
    ranked = {row["clip_id"] for row in stream_selection(run)}
    failed = {name for name, _, reason in run.failures() if not reason.startswith("as a query: ")}
    return [
        m.file_name
        for m in run.members
        if m.role == "clip" and m.file_name not in failed and not (m.usable and m.clip_id in ranked)
    ]


def _scores_differ(run: "Run") -> str:
    """What is wrong with the scores; empty when they are those that the features give, bit for bit."""
    file, queries = open_scores(run), used_queries(run)
    clips = sorted(run.featured("clip"), key=lambda member: member.clip_id)
    if file.clip_ids != [m.clip_id for m in clips]:
        return f"has {len(file.clip_ids)} clips, and the run has features of {len(clips)}"
    if file.query_ids != [m.clip_id for m in queries.members]:
        return f"has {len(file.query_ids)} queries, and the run has {len(queries.members)}"
    with run.score_features(queries) as scores:
        made_anew = scores.rows([m.feature_key for m in clips])
        for query, stored, anew in zip(file.query_ids, file.rows(), made_anew, strict=True):
            if not np.array_equal(stored, anew):
                return f"the scores of the query {query} are not those that the features give"
    return ""


def _stages(run: "Run") -> list[Stage]:
    plan = run.plan
    return [plan.ingest_stage, plan.track_stage, plan.encode_stage, plan.text_stage]


def _asked_of(run: "Run") -> Iterable[tuple[Stage, Any]]:
    plan = run.plan
    return (
        (plan.ingest_stage, lambda m: m.file),
        (plan.track_stage, lambda m: m.clip_id),
        (plan.encode_stage, lambda m: m.clip_id),
        (plan.text_stage, lambda m: m.caption_id),
    )


def _command(run: "Run") -> str:
    return f"motive run {run.folder / RECORD}"


def _nothing() -> Any:
    import pyarrow as pa

    return pa.schema([])
