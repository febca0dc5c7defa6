"""`motive check`: is everything in a run that should be there, once, and made with the run's settings?

The tables' files and rows are looked at in `motive.runs.check`; here, what they mean together.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

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
from motive.runs.placed import gathered
from motive.runs.stage import Stage
from motive.runs.tables import Table
from motive.runs.texts import COMPARED, Texts, as_array, ascending, is_among

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
    table = run.store.table(run.objective.feature_table, pa.schema([]))
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
        keys = pa.array(sorted(failed), pa.string())
        both = keys.filter(pa.array(run.store.results(stage).has(keys, stage.fingerprint())))
        both = both.to_pylist()
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
    usable = run.members.usable()
    for stage, column in _asked_of(run):
        wanted = ascending(usable.column(column))[0]
        lost = run.store.failed(stage).keys()
        if missing := _missing(run.store.results(stage), wanted, stage.fingerprint(), lost):
            yield Finding(
                "unfinished",
                stage.table + ".lance",
                f"{missing} of {len(wanted)} are not through {stage.name}",
                _command(run),
            )
        if unused := _unused(run, stage, column):
            yield Finding(
                "remark",
                stage.table + ".lance",
                f"{unused} rows of {stage.name} are of clips that the datasets no longer name",
                "nothing: they are not ranked, and serve again if the clips come back",
            )
        usable = usable.without("clip_id", lost).without("caption_id", lost)
    for role in ("clip", "query"):
        objective = run.plan.objective_of(role)
        table = run.store.table(objective.feature_table, pa.schema([]))
        wanted = ascending(usable.usable(role).column("feature_key"))[0]
        failed = run.store.failures.keys(objective.id)
        if missing := _missing(table, wanted, objective.id, failed):
            yield Finding(
                "unfinished",
                table.path.name,
                f"{missing} of {len(wanted)} {role} features are missing",
                _command(run),
            )


def _missing(table: Table, wanted: pa.Array, made_by: str, lost: Collection[str]) -> int:
    """How many of the keys have no row, and are not lost either."""
    left = table.without(wanted, made_by)
    return int(np.count_nonzero(~is_among(left, lost)))


def _unused(run: "Run", stage: Stage, column: str) -> int:
    """How many of the stage's rows no member asks for."""
    asked, unused = run.members.column(column), 0
    for part in gathered(run.store.results(stage).batches(stage.fingerprint(), ["key"]), COMPARED):
        unused += int(np.count_nonzero(~is_among(as_array(part["key"]), asked)))
    return unused


def _outputs(run: "Run", mend: bool) -> Iterator[Finding]:
    """Scores, selection and stamps against what the features give now."""
    if not run.stamps.read():
        return  # nothing was scored yet
    found = list(_differing(run))
    if found and mend:
        run.stamps.forget()
        for finding in found:
            finding.mended = "the next run makes it again"
    yield from found


def _differing(run: "Run") -> Iterator[Finding]:
    """Outputs that are not what the run would make today, the first of them and what follows from it."""
    stamp, stamps, how = run.stamp(), run.stamps.read(), _command(run)
    for stage, output in OUTPUTS.items():
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
    ranked = pa.array((row["clip_id"] for row in stream_selection(run)), pa.string())
    failed = {name for name, _, reason in run.failures() if not reason.startswith("as a query: ")}
    clips = run.members.of_role("clip").without("file_name", failed)
    fine = is_among(clips.column("reason"), [""]) & is_among(clips.column("clip_id"), ranked)
    return [m.file_name for m in clips.take(~fine)]


def _scores_differ(run: "Run") -> str:
    """What is wrong with the scores; empty when they are those that the features give, bit for bit."""
    file, queries = open_scores(run), used_queries(run)
    clips = run.featured("clip").sorted_by("clip_id")
    if file.clip_ids != Texts(clips.column("clip_id")):
        return f"has {len(file.clip_ids)} clips, and the run has features of {len(clips)}"
    if file.query_ids != [m.clip_id for m in queries.members]:
        return f"has {len(file.query_ids)} queries, and the run has {len(queries.members)}"
    with run.score_features(queries) as scores:
        made_anew = scores.rows(Texts(clips.column("feature_key")))
        for query, stored, anew in zip(file.query_ids, file.rows(), made_anew, strict=True):
            if not np.array_equal(stored, anew):
                return f"the scores of the query {query} are not those that the features give"
    return ""


def _stages(run: "Run") -> list[Stage]:
    plan = run.plan
    return [plan.ingest_stage, plan.track_stage, plan.encode_stage, plan.text_stage]


def _asked_of(run: "Run") -> tuple[tuple[Stage, str], ...]:
    """Stages, and which column of the members their keys are."""
    plan = run.plan
    return (
        (plan.ingest_stage, "file"),
        (plan.track_stage, "clip_id"),
        (plan.encode_stage, "clip_id"),
        (plan.text_stage, "caption_id"),
    )


def _command(run: "Run") -> str:
    return f"motive run {run.folder / RECORD}"
