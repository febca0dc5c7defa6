"""The report of a study: CSV for tables, JSON for programs, text for people."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from motive.errors import UserError
from motive.runs.csv_text import csv_text, write_csv
from motive.runs.provenance import write_atomically
from motive.study.analysis import Analysis, Comparison, analyse
from motive.study.clustered import Share
from motive.study.database import open_database
from motive.study.design import read_design
from motive.study.judgements import COLUMNS, judgement_rows, read_judgements

_SHARES = ("win", "tie", "loss", "preference")


def report_study(
    study: Path,
    *,
    out: Path | None = None,
    exclude: dict[str, str] | None = None,
    database: str | None = None,
) -> Analysis:
    """Write `report.json`, `report.csv`, `ranking.csv` and `judgements.csv`, and return what they say.

    out: a folder; None is the study's own.
    exclude: annotators who are not to be counted, with reasons.

    Raises UserError when nobody has judged yet, or when an excluded annotator is not one of the study's.
    """
    design = read_design(study)
    held = open_database(study, design, database)
    try:
        judgements, checks = read_judgements(held, design)
    finally:
        held.close()
    known = {j.annotator for j in judgements} | set(checks)
    if unknown := sorted(set(exclude or {}) - known):
        raise UserError(f"{unknown[0]} has judged nothing: there is nobody of that name to exclude")
    analysis = analyse(design, judgements, checks, exclude=exclude)
    if not analysis.judgements:
        raise UserError(
            f"{study} has no judgement to report yet: motive study links says who is how far"
        )
    folder = out or study
    folder.mkdir(parents=True, exist_ok=True)
    rows = judgement_rows(judgements)
    write_csv(folder / "judgements.csv", COLUMNS, rows)
    write_atomically(folder / "report.csv", _csv_of(comparison_rows(analysis)))
    if analysis.ranking:
        write_atomically(folder / "ranking.csv", _csv_of([asdict(s) for s in analysis.ranking]))
    content = json.dumps(as_json(analysis), indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(folder / "report.json", content + "\n")
    return analysis


def as_json(analysis: Analysis) -> dict[str, Any]:
    """All of the analysis; what is not known is null."""
    return dict(_without_nan(asdict(analysis)))


def comparison_rows(analysis: Analysis) -> list[dict[str, object]]:
    """One flat row for each pair of arms; shares from 0 to 1, empty where nothing is known."""
    return [_flat(row) for row in analysis.comparisons]


def report_text(analysis: Analysis) -> str:
    """The report as lines of plain text."""
    lines = [analysis.question, _counts(analysis), ""]
    names = [f"{row.arm_a} against {row.arm_b}" for row in analysis.comparisons]
    width = max([len(name) for name in names] + [len("percent, with 95% intervals")])
    heads = (f"{head:^18}" for head in (*_SHARES[:3], "preference"))
    lines.append(f"{'percent, with 95% intervals':{width}}  {' '.join(heads)}".rstrip())
    for name, row in zip(names, analysis.comparisons, strict=True):
        shares = (f"{_percent(getattr(row, share)):^18}" for share in _SHARES)
        lines.append(f"{name:{width}}  {' '.join(shares)}".rstrip())
    lines.append(
        "preference: wins and half the ties; intervals with annotators and videos as clusters"
    )
    for name, row in zip(names, analysis.comparisons, strict=True):
        lines += ["", name, *(f"  {line}" for line in _details(row))]
    lines += _ranking_lines(analysis)
    if analysis.excluded:
        lines += ["", "not counted"]
        lines += [
            f"  {one.annotator} ({one.judgements} judgements): {one.reason}"
            for one in analysis.excluded
        ]
    return "\n".join(lines)


def _counts(analysis: Analysis) -> str:
    excluded = f", {len(analysis.excluded)} excluded" if analysis.excluded else ""
    return (
        f"{analysis.judgements} judgements of {analysis.planned_judgements} planned, "
        f"{analysis.annotators} annotators{excluded}"
    )


def _details(row: Comparison) -> list[str]:
    lines = [
        f"{row.judgements} judgements, {row.annotators} annotators, {row.videos} videos; "
        f"{row.wins} wins, {row.ties} ties, {row.losses} losses",
        f"preference against 50%: {_p(row.p)}, adjusted for all pairs of arms {_p(row.p_holm)} "
        f"(sign test as if independent: {_p(row.sign_test_p)})",
        f"two-way cluster bootstrap of the preference: {100 * row.bootstrap[0]:.1f} to "
        f"{100 * row.bootstrap[1]:.1f}; design effect {_number(row.preference.design_effect, 2)}",
        f"agreement (Krippendorff's alpha): {_number(row.alpha, 3)} ordinal, "
        f"{_number(row.alpha_nominal, 3)} nominal",
        f"power to tell {row.planned.preference:.0%} from 50%: {_number(row.planned.power, 2)} planned, "
        f"{_number(row.reached_power, 2)} reached; 80% power from a preference of "
        f"{_number(100 * row.detectable, 1)}%",
    ]
    if not math.isnan(row.left_share):
        lines.append(
            f"the left video was preferred in {row.left_share:.1%} of the answers but ties"
        )
    return lines


def _ranking_lines(analysis: Analysis) -> list[str]:
    if analysis.ranking_note:
        return ["", f"no Bradley-Terry ranking: {analysis.ranking_note}"]
    if not analysis.ranking:
        return []
    width = max(len(one.arm) for one in analysis.ranking)
    return [
        "",
        "Bradley-Terry strengths (log odds that sum to 0; a tie is half a win for each)",
        *(
            f"  {one.rank}. {one.arm:{width}} {one.strength:+.3f} ({one.low:+.3f} to {one.high:+.3f})"
            for one in analysis.ranking
        ),
    ]


def _percent(share: Share) -> str:
    if math.isnan(share.low):
        return f"{100 * share.value:.1f}"
    return f"{100 * share.value:.1f} ({100 * share.low:.1f}–{100 * share.high:.1f})"


def _number(value: float, digits: int) -> str:
    if math.isnan(value):
        return "unknown"
    return f"{value:.{digits}f}"


def _p(value: float) -> str:
    return "p < 0.0001" if value < 1e-4 else f"p = {_number(value, 4)}"


def _flat(row: Comparison) -> dict[str, object]:
    flat: dict[str, Any] = {
        name: getattr(row, name)
        for name in (
            "arm_a",
            "arm_b",
            "annotators",
            "videos",
            "judgements",
            "wins",
            "ties",
            "losses",
        )
    }
    for name in _SHARES:
        share: Share = getattr(row, name)
        flat |= {name: share.value, f"{name}_low": share.low, f"{name}_high": share.high}
    flat |= {
        "standard_error": row.preference.standard_error,
        "design_effect": row.preference.design_effect,
        "bootstrap_low": row.bootstrap[0],
        "bootstrap_high": row.bootstrap[1],
        "p": row.p,
        "p_holm": row.p_holm,
        "sign_test_p": row.sign_test_p,
        "alpha": row.alpha,
        "alpha_nominal": row.alpha_nominal,
        "left_share": row.left_share,
        "planned_preference": row.planned.preference,
        "planned_power": row.planned.power,
        "reached_power": row.reached_power,
        "detectable": row.detectable,
    }
    return {name: _cell(value) for name, value in flat.items()}


def _cell(value: Any) -> object:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.6g}"
    return value


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_nan(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    if isinstance(value, float) and math.isnan(value):
        return None
    return value


def _csv_of(rows: list[dict[str, object]]) -> str:
    return csv_text(list(rows[0]), rows)
