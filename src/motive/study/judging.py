"""What the page asks of the database: whose link this is, what comes next, and to keep an answer."""

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Literal

from sqlalchemy import Connection, Row, Select, func, insert, select, update

from motive.study.database import Database, now
from motive.study.design import Design
from motive.study.schema import annotators, judgements, places

Choice = Literal["left", "tie", "right"]
Side = Literal["left", "right"]
MORE_AT_ONCE = 10  # pairs of others that an annotator takes over with one click

_mine_judged = places.outerjoin(judgements, judgements.c.place_id == places.c.id)


class Answered(StrEnum):
    """What became of an answer."""

    KEPT = "kept"
    KEPT_BEFORE = "kept before"  # the same answer again: counted once
    OTHER_BEFORE = "other before"  # the first answer counts
    NOT_YOURS = "not yours"


@dataclass(frozen=True)
class Turn:
    """What an annotator sees next.

    place_id: of the pair to judge; None when there is none.
    done, total: answered and planned, checks among them.
    more: pairs that others have left and this annotator might judge, counted when all is done.
    """

    place_id: str | None
    done: int
    total: int
    more: int = 0


class Judging:
    """A study, judged by many at once. Every method is one transaction."""

    def __init__(self, design: Design, database: Database) -> None:
        self._database = database
        self._hours = design.rules.handover_hours
        self._checks = [check.id for check in design.checks]
        self._videos = {item.id: (item.video_a, item.video_b) for item in design.items}

    def annotator(self, token: str) -> int | None:
        """The annotator whose link has this secret."""
        with self._database.reading() as connection:
            found = connection.execute(_by_token(token)).scalar()
        return None if found is None else int(found)

    def turn(self, token: str) -> Turn | None:
        """What comes next; None for an unknown link. The pair now counts as opened."""
        with self._database.writing() as connection:
            annotator = _lock(connection, token)
            return None if annotator is None else self._turn(connection, annotator)

    def answer(
        self, token: str, place_id: str, choice: Choice, response_ms: int | None
    ) -> tuple[Answered, Turn] | None:
        """Keep an answer, once, and say what comes next; None for an unknown link."""
        with self._database.writing() as connection:
            annotator = _lock(connection, token)
            if annotator is None:
                return None
            outcome = _keep(connection, annotator, place_id, choice, response_ms)
            return outcome, self._turn(connection, annotator)

    def take_over(self, token: str, limit: int = MORE_AT_ONCE) -> Turn | None:
        """Up to `limit` pairs that others have left; None for an unknown link."""
        with self._database.writing() as connection:
            annotator = _lock(connection, token)
            if annotator is None:
                return None
            start = int(
                connection.scalar(
                    select(func.coalesce(func.max(places.c.position) + 1, 0)).where(
                        places.c.annotator_id == annotator
                    )
                )
                or 0
            )
            left = connection.execute(
                self._left_by_others(annotator)
                .order_by(func.random())
                .limit(limit)
                .with_for_update(of=places, skip_locked=True)
            ).all()
            for position, place in enumerate(_one_of_each_item(left), start=start):
                hand_on(connection, place, annotator, position)
            return self._turn(connection, annotator)

    def video(self, token: str, place_id: str, side: Side) -> str | None:
        """The file of the study on one side of an annotator's own place, without ending."""
        with self._database.reading() as connection:
            place = connection.execute(
                select(places.c.item_id, places.c.a_left)
                .join(annotators, annotators.c.id == places.c.annotator_id)
                .where(places.c.id == place_id, annotators.c.token_hash == token_hash(token))
            ).one_or_none()
        if place is None or place.item_id not in self._videos:
            return None
        return self._videos[place.item_id][0 if place.a_left == (side == "left") else 1]

    def _turn(self, connection: Connection, annotator: int) -> Turn:
        done, total = connection.execute(
            select(func.count(judgements.c.place_id), func.count())
            .select_from(_mine_judged)
            .where(places.c.annotator_id == annotator)
        ).one()
        place = connection.execute(
            select(places.c.id, places.c.opened_at)
            .select_from(_mine_judged)
            .where(
                places.c.annotator_id == annotator,
                judgements.c.place_id.is_(None),
                places.c.position.is_not(None),
            )
            .order_by(places.c.position)
            .limit(1)
        ).one_or_none()
        if place is None:
            left = self._left_by_others(annotator).subquery()
            items = select(func.count(func.distinct(left.c.item_id)))
            return Turn(None, done, total, connection.scalar(items) or 0)
        if place.opened_at is None:
            connection.execute(
                update(places).where(places.c.id == place.id).values(opened_at=now())
            )
        return Turn(place.id, done, total)

    def _left_by_others(self, annotator: int) -> Select:
        return left_over(self._hours, self._checks).where(
            places.c.annotator_id != annotator,
            places.c.item_id.not_in(
                select(places.c.item_id).where(places.c.annotator_id == annotator)
            ),
        )


def left_over(hours: float, checks: list[str]) -> Select:
    """Unanswered pairs of annotators who have not been seen for so long."""
    return (
        select(places.c.id, places.c.item_id, places.c.a_left, places.c.opened_at)
        .join(annotators, annotators.c.id == places.c.annotator_id)
        .outerjoin(judgements, judgements.c.place_id == places.c.id)
        .where(
            judgements.c.place_id.is_(None),
            places.c.handed_on.is_(False),
            places.c.item_id.not_in(checks),
            annotators.c.seen_at < now() - timedelta(hours=hours),
        )
    )


def hand_on(connection: Connection, place: Row, annotator: int, position: int) -> None:
    """Give a left place to another annotator.

    One that was opened may still be answered by its first owner, so it stays, and the other gets a copy.
    """
    if place.opened_at is None:
        connection.execute(
            update(places)
            .where(places.c.id == place.id)
            .values(annotator_id=annotator, position=position)
        )
        return
    connection.execute(update(places).where(places.c.id == place.id).values(handed_on=True))
    connection.execute(
        insert(places).values(
            id=new_id(),
            annotator_id=annotator,
            item_id=place.item_id,
            a_left=place.a_left,
            position=position,
        )
    )


def new_id() -> str:
    """A name for a place, a pair or a video, out of which nothing can be read."""
    return secrets.token_hex(12)


def token_hash(token: str) -> str:
    """What is stored of a link's secret. It is 256 random bits, so that one round is enough."""
    return hashlib.sha256(token.encode()).hexdigest()


def _by_token(token: str) -> Select:
    return select(annotators.c.id).where(annotators.c.token_hash == token_hash(token))


def _lock(connection: Connection, token: str) -> int | None:
    """The annotator, for whom nothing else happens until the transaction ends; now seen."""
    found = connection.execute(_by_token(token).with_for_update()).scalar()
    if found is not None:
        connection.execute(update(annotators).where(annotators.c.id == found).values(seen_at=now()))
    return found


def _keep(
    connection: Connection, annotator: int, place_id: str, choice: Choice, response_ms: int | None
) -> Answered:
    place = connection.execute(
        select(places.c.a_left, places.c.position, judgements.c.winner)
        .select_from(_mine_judged)
        .where(
            places.c.id == place_id,
            places.c.annotator_id == annotator,
            places.c.position.is_not(None),
        )
    ).one_or_none()
    if place is None:
        return Answered.NOT_YOURS
    if choice == "tie":
        winner = "tie"
    else:
        winner = "a" if place.a_left == (choice == "left") else "b"
    if place.winner is not None:
        return Answered.KEPT_BEFORE if place.winner == winner else Answered.OTHER_BEFORE
    connection.execute(
        insert(judgements).values(
            place_id=place_id, winner=winner, response_ms=response_ms, answered_at=now()
        )
    )
    return Answered.KEPT


def _one_of_each_item(left: Sequence[Row]) -> list[Row]:
    return list({place.item_id: place for place in left}.values())
