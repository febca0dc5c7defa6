"""Judgements that were collected elsewhere, into a study."""

from pathlib import Path
from typing import Literal

from sqlalchemy import Connection, insert, select, update

from motive.errors import UserError
from motive.study.database import DATABASE_FILE, Database, database_url, now, open_database
from motive.study.design import (
    DESIGN_FILE,
    DRAFT_FILE,
    Design,
    Pair,
    Rules,
    parse_design,
    read_design,
)
from motive.study.judgements import Judgement, parse_judgements
from motive.study.judging import new_id
from motive.study.roster import check_name, fill_within
from motive.study.schema import annotators, judgements, places

Key = tuple[str, int, str, str]  # prompt, seed, and the arms in order of their names


def import_judgements(file: Path, study: Path, *, database: str | None = None) -> tuple[int, int]:
    """Bring a file of judgements into a study; returns how many are new and how many were there.

    A study that does not exist is made of the file alone: its pairs are those that are judged in it.
    Everything is taken or nothing. A judgement that is there already, with the same answer, is not
    counted again.

    Raises UserError for a pair that the study does not have, and for an annotator's second, other
    answer on a pair.
    """
    found = parse_judgements(file)
    design, held = _open(study, found, database)
    draft = study / DRAFT_FILE
    try:
        with held.writing() as connection:
            fill_within(connection, design, {})
            new = _insert(connection, design, found)
        if not (study / DESIGN_FILE).exists():
            draft.replace(study / DESIGN_FILE)
    except UserError:
        draft.unlink(missing_ok=True)  # of it nothing is in the database
        raise
    finally:
        held.close()
    return new, len(found) - new


def _open(study: Path, found: list[Judgement], database: str | None) -> tuple[Design, Database]:
    """A study's design and database.

    The design of a new study is left as a draft before the database is written, so that an attempt which
    ends between the two is taken up: the database knows the draft's id then, and otherwise nothing of it.
    """
    if (study / DESIGN_FILE).exists():
        design = read_design(study)
        return design, open_database(study, design, database)
    if study.exists() and (not study.is_dir() or set(_names(study)) - {DATABASE_FILE, DRAFT_FILE}):
        raise UserError(f"{study} is no study and not empty: name a new folder or a study")
    draft = study / DRAFT_FILE
    if draft.is_file():
        design = parse_design(draft)
        held = Database(database_url(study, design.database, database))
        if held.studies() == [design.id]:
            draft.replace(study / DESIGN_FILE)
            return design, held
        held.close()
    design = _design_of(found, "url" if database else "sqlite")
    study.mkdir(parents=True, exist_ok=True)
    design.write(draft)
    return design, Database(database_url(study, design.database, database))


def _names(folder: Path) -> list[str]:
    return [path.name.removesuffix("-wal").removesuffix("-shm") for path in folder.iterdir()]


def _design_of(found: list[Judgement], database: Literal["sqlite", "url"]) -> Design:
    pairs: dict[Key, Pair] = {}
    sides: dict[tuple[str, ...], tuple[str, str]] = {}
    judges: dict[Key, set[str]] = {}
    for j in found:
        # Of one pair of arms the first line says which comes first.
        arm_a, arm_b = sides.setdefault(tuple(sorted((j.arm_a, j.arm_b))), (j.arm_a, j.arm_b))
        pairs.setdefault(
            _key(j), Pair(id=new_id(), prompt=j.prompt, seed=j.seed, arm_a=arm_a, arm_b=arm_b)
        )
        judges.setdefault(_key(j), set()).add(j.annotator)
    arms = dict.fromkeys(arm for pair in pairs.values() for arm in reversed(pair.arms))
    return Design(
        id=new_id(),
        arms=dict.fromkeys(arms, ""),
        rules=Rules(per_pair=max(len(names) for names in judges.values())),
        pairs=tuple(pairs.values()),
        annotators=tuple(dict.fromkeys(j.annotator for j in found)),
        database=database,
    )


def _key(j: Judgement | Pair) -> Key:
    first, second = sorted((j.arm_a, j.arm_b))
    return j.prompt, j.seed, first, second


def _insert(connection: Connection, design: Design, found: list[Judgement]) -> int:
    pairs = {_key(pair): pair for pair in design.pairs}
    known = _known(connection)
    people = {
        row.name: row.id for row in connection.execute(select(annotators.c.name, annotators.c.id))
    }
    new = 0
    for j in found:
        pair = pairs.get(_key(j))
        if pair is None:
            raise UserError(
                f"the study has no pair of {j.arm_a} and {j.arm_b} for '{j.prompt}', seed {j.seed}: "
                f"correct the file, or import it into a study of its own"
            )
        flipped = pair.arm_a != j.arm_a
        winner = {"a": "b", "b": "a"}.get(j.winner, j.winner) if flipped else j.winner
        if j.annotator not in people:
            check_name(j.annotator)
            made = connection.execute(
                insert(annotators).values(name=j.annotator, created_at=now(), seen_at=now())
            )
            people[j.annotator] = made.inserted_primary_key[0]  # type: ignore[index]
        place, before = known.get((j.annotator, pair.id), (None, None))
        if before is not None:
            if before != winner:
                raise UserError(
                    f"{j.annotator} has two answers on {j.arm_a} and {j.arm_b} for '{j.prompt}', "
                    f"seed {j.seed}: keep one of them"
                )
            continue
        a_left = j.a_left if j.a_left is None else j.a_left ^ flipped
        if place is None:
            place = new_id()
            connection.execute(
                insert(places).values(
                    id=place, annotator_id=people[j.annotator], item_id=pair.id, a_left=a_left
                )
            )
        else:
            # The side that was planned is not the one that it was judged on.
            connection.execute(update(places).where(places.c.id == place).values(a_left=a_left))
        connection.execute(
            insert(judgements).values(
                place_id=place,
                winner=winner,
                response_ms=j.response_ms,
                answered_at=j.answered_at,
            )
        )
        known[j.annotator, pair.id] = (place, winner)
        new += 1
    return new


def _known(connection: Connection) -> dict[tuple[str, str], tuple[str, str | None]]:
    """Place and answer, if there is one, of each annotator and pair."""
    rows = connection.execute(
        select(annotators.c.name, places.c.item_id, places.c.id, judgements.c.winner)
        .join(places, places.c.annotator_id == annotators.c.id)
        .outerjoin(judgements, judgements.c.place_id == places.c.id)
    )
    return {(row[0], row[1]): (row[2], row[3]) for row in rows}
