"""The annotators of a study: their links, how far they are, and what to do when one leaves."""

import csv
import io
import os
import random
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from motive.errors import UserError
from motive.study.database import Database, now
from motive.study.design import Design
from motive.study.judging import hand_on, left_over, new_id, token_hash
from motive.study.plan import Place, plan_checks, plan_places
from motive.study.schema import annotators, judgements, places, studies

LINKS_FILE = "links.csv"
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Standing:
    """How far an annotator is: answered and planned, checks among them."""

    name: str
    done: int
    total: int


def make_tokens(study: Path, names: list[str]) -> dict[str, str]:
    """The secrets of all links, by name, from `links.csv`, which is made when it is not there.

    The file is the only place that has them, and only its owner may read it: the database keeps hashes.
    """
    known = read_tokens(study)
    missing = [name for name in names if name not in known]
    if missing:
        known |= {name: secrets.token_urlsafe(32) for name in missing}
        _write_tokens(study, known)
    return known


def read_tokens(study: Path) -> dict[str, str]:
    """What `links.csv` holds; empty when the organiser has taken it away."""
    path = study / LINKS_FILE
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {row["annotator"]: row["token"] for row in csv.DictReader(file)}


def fill(database: Database, design: Design, tokens: dict[str, str]) -> None:
    """Write annotators and their places into an empty database, all or nothing; twice does no harm.

    Raises UserError when the database belongs to another study.
    """
    with database.writing() as connection:
        fill_within(connection, design, tokens)


def fill_within(connection: Connection, design: Design, tokens: dict[str, str]) -> None:
    """The same as part of a transaction."""
    held = connection.execute(select(studies.c.id)).scalars().all()
    if held and held != [design.id]:
        raise UserError("the database belongs to another study: name one of its own")
    if held:
        return
    connection.execute(insert(studies).values(id=design.id))
    ids = [_insert_annotator(connection, name, token) for name, token in tokens.items()]
    planned = plan_places(design) if ids else []
    if planned:
        connection.execute(insert(places), [_row(place, ids[place.annotator]) for place in planned])


def standings(database: Database) -> list[Standing]:
    """Of all annotators, in the order of their coming."""
    with database.reading() as connection:
        rows = connection.execute(
            select(annotators.c.name, func.count(judgements.c.place_id), func.count(places.c.id))
            .outerjoin(places, places.c.annotator_id == annotators.c.id)
            .outerjoin(judgements, judgements.c.place_id == places.c.id)
            .group_by(annotators.c.id)
            .order_by(annotators.c.id)
        ).all()
    return [Standing(*row) for row in rows]


def renew(study: Path, database: Database, name: str) -> None:
    """A new link for an annotator; the old one ends."""
    token = secrets.token_urlsafe(32)
    with database.writing() as connection:
        _change(connection, name, token_hash=token_hash(token))
        _write_tokens(study, read_tokens(study) | {name: token})


def release(database: Database, name: str) -> None:
    """Let others have an annotator's unanswered pairs at once; if they come back, it is undone."""
    with database.writing() as connection:
        _change(connection, name, seen_at=_LONG_AGO)


def add(study: Path, database: Database, design: Design, name: str) -> int:
    """One more annotator, who gets the checks and pairs that others have left; returns how many pairs.

    Raises UserError when there is nobody whose pairs could be had, or when the name is taken.
    """
    check_name(name)
    token = secrets.token_urlsafe(32)
    share = -(-len(design.pairs) * design.rules.per_pair // max(1, len(design.annotators)))
    with database.writing() as connection:
        annotator = _insert_annotator(connection, name, token)
        left = connection.execute(
            left_over(design.rules.handover_hours, [check.id for check in design.checks])
            .order_by(func.random())
            .with_for_update(of=places, skip_locked=True)
        ).all()
        pairs = {place.item_id: place for place in left}
        chosen = {item: pairs[item] for item in list(pairs)[:share]}
        if not chosen:
            raise UserError(
                f"there is nothing for {name} to judge: nobody has been away for "
                f"{design.rules.handover_hours:g} hours with pairs left, so --release somebody first"
            )
        order = plan_checks(design, [(item, True) for item in chosen], random.Random(name))
        for position, (item, a_left) in enumerate(order):
            if item in chosen:
                hand_on(connection, chosen[item], annotator, position)
            else:
                place = Place(0, item, a_left, position)
                connection.execute(insert(places).values(_row(place, annotator)))
        _write_tokens(study, read_tokens(study) | {name: token})
    return len(chosen)


def check_name(name: str) -> None:
    """Raises UserError for a name that cannot stand in a line of its own."""
    if not name.strip() or name != name.strip() or not name.isprintable() or len(name) > 200:
        raise UserError(f"{name!r} cannot name an annotator: use up to 200 printable characters")


def _change(connection: Connection, name: str, **values: object) -> None:
    changed = connection.execute(
        update(annotators).where(annotators.c.name == name).values(**values)
    )
    if changed.rowcount != 1:
        raise UserError(f"the study has no annotator {name}: motive study links names them all")


def _insert_annotator(connection: Connection, name: str, token: str | None) -> int:
    try:
        made = connection.execute(
            insert(annotators).values(
                name=name,
                token_hash=None if token is None else token_hash(token),
                created_at=now(),
                seen_at=now(),
            )
        )
    except IntegrityError:
        raise UserError(f"there is an annotator {name} already: take another name") from None
    return int(made.inserted_primary_key[0])  # type: ignore[index]


def _row(place: Place, annotator: int) -> dict[str, object]:
    return {
        "id": new_id(),
        "annotator_id": annotator,
        "item_id": place.item_id,
        "a_left": place.a_left,
        "position": place.position,
        "handed_on": False,
    }


def _write_tokens(study: Path, tokens: dict[str, str]) -> None:
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(("annotator", "token"))
    writer.writerows(tokens.items())
    # Not for a moment may others read it.
    part = study / f".{LINKS_FILE}.{os.getpid()}.part"
    with os.fdopen(os.open(part, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w") as file:
        file.write(buffer.getvalue())
    part.replace(study / LINKS_FILE)
