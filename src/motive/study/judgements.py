"""Judgements as they are counted: from the database, and to and from a file."""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from sqlalchemy import Row, select

from motive.errors import UserError
from motive.study.database import Database
from motive.study.design import TIE, Design
from motive.study.schema import annotators, judgements, places

Winner = Literal["a", "b", "tie"]
COLUMNS = (
    "annotator",
    "prompt",
    "seed",
    "arm_a",
    "arm_b",
    "choice",
    "left",
    "response_ms",
    "answered_at",
)
_NEEDED = ("annotator", "prompt", "arm_a", "arm_b", "choice")


@dataclass(frozen=True)
class Judgement:
    """One answer of one annotator on one pair.

    winner: `a` for arm_a, `b` for arm_b, or `tie`.
    a_left: whether arm_a stood on the left; None where it is not known.
    answered_at: in UTC; None where it is not known.
    """

    annotator: str
    prompt: str
    seed: int
    arm_a: str
    arm_b: str
    winner: Winner
    a_left: bool | None = None
    response_ms: int | None = None
    answered_at: datetime | None = None

    @property
    def choice(self) -> str:
        """The name of the arm that was preferred, or `tie`."""
        return {"a": self.arm_a, "b": self.arm_b, TIE: TIE}[self.winner]


@dataclass(frozen=True)
class CheckResult:
    """An annotator's attention checks: answered rightly, and answered."""

    passed: int
    answered: int


def read_judgements(
    database: Database, design: Design
) -> tuple[list[Judgement], dict[str, CheckResult]]:
    """All judgements of pairs, by annotator and time, and every annotator's checks, by name.

    Where no time is known, they are in the order of the design.
    """
    pairs = {pair.id: pair for pair in design.pairs}
    order = {item: number for number, item in enumerate(pairs)}
    checks = {check.id for check in design.checks}
    with database.reading() as connection:
        rows = connection.execute(
            select(
                annotators.c.id,
                annotators.c.name,
                places.c.item_id,
                places.c.a_left,
                judgements.c.winner,
                judgements.c.response_ms,
                judgements.c.answered_at,
            )
            .join(places, places.c.annotator_id == annotators.c.id)
            .join(judgements, judgements.c.place_id == places.c.id)
        ).all()
    found: list[Judgement] = []
    results: dict[str, CheckResult] = {}
    for row in sorted(rows, key=lambda row: (row.id, _time(row), order.get(row.item_id, -1))):
        if row.item_id in checks:
            old = results.get(row.name, CheckResult(0, 0))
            # A check's first video is the intact one.
            results[row.name] = CheckResult(old.passed + (row.winner == "a"), old.answered + 1)
            continue
        pair = pairs[row.item_id]
        found.append(
            Judgement(
                row.name,
                pair.prompt,
                pair.seed,
                pair.arm_a,
                pair.arm_b,
                row.winner,
                row.a_left,
                row.response_ms,
                _in_utc(row.answered_at),
            )
        )
    return found, results


def _time(row: Row) -> datetime:
    return _in_utc(row.answered_at) or datetime.max.replace(tzinfo=UTC)


def judgement_rows(found: Iterable[Judgement]) -> list[dict[str, object]]:
    """Rows of `COLUMNS`, which `parse_judgements` reads."""
    return [
        {
            "annotator": j.annotator,
            "prompt": j.prompt,
            "seed": j.seed,
            "arm_a": j.arm_a,
            "arm_b": j.arm_b,
            "choice": j.choice,
            "left": "" if j.a_left is None else (j.arm_a if j.a_left else j.arm_b),
            "response_ms": "" if j.response_ms is None else j.response_ms,
            "answered_at": "" if j.answered_at is None else j.answered_at.isoformat(),
        }
        for j in found
    ]


def parse_judgements(path: Path) -> list[Judgement]:
    """Judgements from a CSV file with the columns annotator, prompt, arm_a, arm_b, choice.

    choice is the name of the preferred arm, or `tie`. seed (0 where it is missing), left, response_ms and
    answered_at may be there. Raises UserError that names the first line which is not one.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [name for name in _NEEDED if name not in (reader.fieldnames or ())]
            if missing:
                raise UserError(f"{path} has no column {missing[0]}: it needs {', '.join(_NEEDED)}")
            found = [_parse(row, f"{path}, line {reader.line_num},") for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path} cannot be read ({reason}): give a CSV file") from None
    if not found:
        raise UserError(f"{path} has no judgement")
    return found


def _parse(row: dict[str, str | None], where: str) -> Judgement:
    text = {name: (row.get(name) or "").strip() for name in COLUMNS}
    for name in _NEEDED:
        if not text[name]:
            raise UserError(f"{where} has no {name}")
    arms = (text["arm_a"], text["arm_b"])
    if arms[0] == arms[1] or TIE in arms:
        raise UserError(f"{where} must compare two arms, neither of them called {TIE}")
    winners: dict[str, Winner] = {arms[0]: "a", arms[1]: "b", TIE: "tie"}
    if text["choice"] not in winners:
        raise UserError(
            f"{where} has the choice {text['choice']}: it must be an arm's name or {TIE}"
        )
    if text["left"] not in ("", *arms):
        raise UserError(f"{where} has {text['left']} on the left, which is none of the arms")
    for name in ("seed", "response_ms"):
        if text[name] and not text[name].isdecimal():
            raise UserError(f"{where} has a {name} that is no whole number")
    try:
        answered = datetime.fromisoformat(text["answered_at"]) if text["answered_at"] else None
    except ValueError:
        raise UserError(f"{where} has an answered_at that is no ISO 8601 time") from None
    return Judgement(
        text["annotator"],
        text["prompt"],
        int(text["seed"] or 0),
        *arms,
        winners[text["choice"]],
        text["left"] == arms[0] if text["left"] else None,
        int(text["response_ms"]) if text["response_ms"] else None,
        _in_utc(answered),
    )


def _in_utc(time: datetime | None) -> datetime | None:
    """SQLite keeps no zone; all times are written in UTC."""
    if time is None:
        return None
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
