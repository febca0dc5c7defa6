"""What the database keeps, on SQLite and on PostgreSQL: nothing lost, nothing twice, nothing of others."""

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import func, insert, select, update
from sqlalchemy.exc import IntegrityError

from motive.errors import UserError
from motive.study import roster
from motive.study.database import Database, alembic_config, now, open_database
from motive.study.design import Design, Pair, Rules, read_design
from motive.study.judgements import read_judgements
from motive.study.judging import Answered, Judging, new_id, token_hash
from motive.study.schema import annotators, judgements, metadata, places

NAMES = ("ann", "bob", "cleo", "dan")


@pytest.fixture
def design() -> Design:
    """Six pairs, four annotators, three judgements of each pair; there are no videos behind it."""
    pairs = [
        Pair(
            id=f"pair{k}", prompt=f"p{k}", seed=0, arm_a="motive", arm_b="base",
            video_a=f"m{k}", video_b=f"b{k}",
        )
        for k in range(6)
    ]  # fmt: skip
    return Design(
        id=new_id(), arms={}, rules=Rules(per_pair=3), pairs=tuple(pairs), annotators=NAMES
    )


@pytest.fixture
def database(tmp_path: Path, database_url: str | None) -> Iterator[Database]:
    held = Database(database_url or f"sqlite:///{tmp_path / 'study.db'}")
    yield held
    held.close()


@pytest.fixture
def judging(database: Database, design: Design) -> Judging:
    roster.fill(database, design, {name: f"secret of {name}" for name in NAMES})
    return Judging(design, database)


def count(database: Database) -> int:
    with database.reading() as connection:
        return connection.scalar(select(func.count()).select_from(judgements)) or 0


def away(database: Database, name: str, hours: float) -> None:
    with database.writing() as connection:
        connection.execute(
            update(annotators)
            .where(annotators.c.name == name)
            .values(seen_at=now() - timedelta(hours=hours))
        )


def answer_all(judging: Judging, token: str) -> int:
    """Answer whatever comes, with ties; returns how many."""
    turn, answered = judging.turn(token), 0
    while turn is not None and turn.place_id is not None:
        kept = judging.answer(token, turn.place_id, "tie", 1000)
        assert kept is not None
        assert kept[0] is Answered.KEPT
        turn, answered = kept[1], answered + 1
    return answered


def test_an_answer_is_kept_once_whatever_comes_again(judging: Judging, database: Database) -> None:
    turn = judging.turn("secret of ann")
    assert turn is not None
    assert (turn.done, turn.total) in {(0, 4), (0, 5)}
    assert judging.turn("secret of ann") == turn  # reloading the page shows the same pair
    assert turn.place_id is not None
    first = judging.answer("secret of ann", turn.place_id, "left", 1200)
    assert first is not None
    assert first[0] is Answered.KEPT
    assert first[1].done == 1
    assert first[1].place_id != turn.place_id
    again = judging.answer("secret of ann", turn.place_id, "left", 9999)
    assert again == (Answered.KEPT_BEFORE, first[1])
    other = judging.answer("secret of ann", turn.place_id, "right", 9999)
    assert other == (Answered.OTHER_BEFORE, first[1])
    assert count(database) == 1


def test_nobody_answers_or_sees_what_is_anothers(judging: Judging, database: Database) -> None:
    turn = judging.turn("secret of ann")
    assert turn is not None
    assert turn.place_id is not None
    stolen = judging.answer("secret of bob", turn.place_id, "left", None)
    assert stolen is not None
    assert stolen[0] is Answered.NOT_YOURS
    assert judging.video("secret of bob", turn.place_id, "left") is None
    assert judging.answer("no secret", turn.place_id, "left", None) is None
    assert judging.turn("no secret") is None
    assert judging.take_over("") is None
    assert judging.video("", turn.place_id, "left") is None
    assert count(database) == 0
    names = {judging.video("secret of ann", turn.place_id, side) for side in ("left", "right")}
    assert len(names) == 2
    assert {str(name)[0] for name in names} == {"m", "b"}


def test_the_answer_is_that_of_the_side_shown(
    judging: Judging, database: Database, design: Design
) -> None:
    shown = {}
    turn = judging.turn("secret of ann")
    while turn is not None and turn.place_id is not None:
        left = judging.video("secret of ann", turn.place_id, "left")
        assert left is not None
        shown[left[1:]] = left[0]
        kept = judging.answer("secret of ann", turn.place_id, "left", None)
        assert kept is not None
        turn = kept[1]
    found, _ = read_judgements(database, design)
    assert len(found) == len(shown) >= 4
    for judgement in found:
        preferred = {"m": "motive", "b": "base"}[shown[judgement.prompt[1:]]]
        assert judgement.choice == preferred
        assert judgement.a_left == (preferred == "motive")
        assert judgement.answered_at is not None


def test_everybody_at_once_and_everything_twice_gives_what_was_planned(
    judging: Judging, database: Database, design: Design
) -> None:
    def work(name: str) -> None:
        token = f"secret of {name}"
        turn = judging.turn(token)
        while turn is not None and turn.place_id is not None:
            with ThreadPoolExecutor(3) as pool:  # the same answer, sent three times at once
                kept = list(
                    pool.map(
                        lambda place: judging.answer(token, place, "right", 5), [turn.place_id] * 3
                    )
                )
            outcomes = Counter(one[0] for one in kept if one is not None)
            assert outcomes == {Answered.KEPT: 1, Answered.KEPT_BEFORE: 2}
            assert kept[0] is not None
            turn = kept[0][1]

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, NAMES))
    found, _ = read_judgements(database, design)
    assert Counter(j.prompt for j in found) == {f"p{k}": 3 for k in range(6)}
    assert len({(j.annotator, j.prompt) for j in found}) == len(found) == 18


def test_the_database_itself_refuses_a_second_judgement(
    judging: Judging, database: Database
) -> None:
    turn = judging.turn("secret of ann")
    assert turn is not None
    assert turn.place_id is not None
    judging.answer("secret of ann", turn.place_id, "tie", None)
    with pytest.raises(IntegrityError), database.writing() as connection:
        connection.execute(insert(judgements).values(place_id=turn.place_id, winner="a"))
    with database.reading() as connection:
        place = connection.execute(select(places).where(places.c.id == turn.place_id)).one()
    with pytest.raises(IntegrityError), database.writing() as connection:
        connection.execute(
            insert(places).values(
                id="another", annotator_id=place.annotator_id, item_id=place.item_id, a_left=True
            )
        )


def test_pairs_of_one_who_left_go_to_the_others_and_all_is_judged(
    judging: Judging, database: Database, design: Design
) -> None:
    opened = judging.turn("secret of dan")  # opens a pair and is gone
    assert opened is not None
    for name in NAMES[:3]:
        answer_all(judging, f"secret of {name}")
    waiting = judging.turn("secret of ann")
    assert waiting is not None
    assert (waiting.place_id, waiting.more) == (None, 0)  # dan may still come
    away(database, "dan", design.rules.handover_hours + 1)
    for name in NAMES[:3]:
        judging.take_over(f"secret of {name}")
        answer_all(judging, f"secret of {name}")
    found, _ = read_judgements(database, design)
    assert Counter(j.prompt for j in found) == {f"p{k}": 3 for k in range(6)}
    # What dan had open was handed on as a copy: a late answer is not lost either.
    assert opened.place_id is not None
    late = judging.answer("secret of dan", opened.place_id, "left", None)
    assert late is not None
    assert late[0] is Answered.KEPT
    assert late[1].place_id is None
    assert count(database) == 19


def test_links_are_hashed_renewed_released_and_added(
    judging: Judging, database: Database, design: Design, tmp_path: Path
) -> None:
    with database.reading() as connection:
        hashes = set(connection.execute(select(annotators.c.token_hash)).scalars())
    assert hashes == {token_hash(f"secret of {name}") for name in NAMES}
    roster.renew(tmp_path, database, "ann")
    assert judging.annotator("secret of ann") is None
    assert judging.annotator(roster.read_tokens(tmp_path)["ann"]) is not None
    with pytest.raises(UserError, match="no annotator zoe"):
        roster.renew(tmp_path, database, "zoe")
    with pytest.raises(UserError, match="nothing for eve"):
        roster.add(tmp_path, database, design, "eve")
    roster.release(database, "bob")
    given = roster.add(tmp_path, database, design, "eve")
    assert given in (4, 5)
    assert answer_all(judging, roster.read_tokens(tmp_path)["eve"]) == given
    assert (tmp_path / roster.LINKS_FILE).stat().st_mode & 0o077 == 0
    with pytest.raises(UserError, match="an annotator bob already"):
        roster.add(tmp_path, database, design, "bob")
    standing = {one.name: one for one in roster.standings(database)}
    assert standing["eve"].done == standing["eve"].total == given
    assert standing["bob"].total == 0


def test_a_database_is_filled_once_and_belongs_to_one_study(
    judging: Judging, database: Database, design: Design
) -> None:
    roster.fill(database, design, dict.fromkeys(NAMES, "other"))  # does nothing
    assert judging.annotator("secret of ann") is not None
    another = design.model_copy(update={"id": new_id()})
    with pytest.raises(UserError, match="another study"):
        roster.fill(database, another, {})


def test_migrations_make_the_tables_and_take_them_away(database: Database) -> None:
    with database.writing() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, metadata) == []
        command.downgrade(alembic_config(connection), "base")
    with database.writing() as connection:
        command.upgrade(alembic_config(connection), "head")
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    held = Database(url)
    with held.writing() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    held.close()
    with pytest.raises(UserError, match="newer version"):
        Database(url)


def test_bad_databases_are_one_sentence(
    make_study: Callable[..., Path], tmp_path: Path, arms: dict[str, Path]
) -> None:
    for url, reason in [
        ("nonsense", "must be a URL"),
        ("mysql://host/name", "use PostgreSQL"),
        ("postgresql://nobody@127.0.0.1:1/none", "cannot be opened"),
    ]:
        with pytest.raises(UserError, match=reason):
            Database(url)
    study = make_study()
    (study / "study.db").unlink()
    with pytest.raises(UserError, match="is empty"):
        open_database(study, read_design(study))
