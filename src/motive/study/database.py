"""Where a study's judgements are kept: SQLite in the study's folder, or PostgreSQL by URL."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy import Connection, Engine, create_engine, event, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, OperationalError

from motive.errors import UserError
from motive.study.design import Design
from motive.study.schema import studies

DATABASE_FILE = "study.db"
_BUSY_SECONDS = 30
_POOL = 12  # connections to a server


class Database:
    """A study's database with its tables up to date.

    Several processes may use one at once. Raises UserError when it cannot be reached, belongs to another
    study, or was written by a newer version.
    """

    def __init__(self, url: str) -> None:
        self.engine = _make_engine(url)
        # SQLite has one writer at a time. Threads of one process wait for each other here, in order,
        # rather than in SQLite's sleep and retry.
        is_sqlite = self.engine.dialect.name == "sqlite"
        self._one_writer = threading.Lock() if is_sqlite else nullcontext()
        _upgrade(self.engine)

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that may write; what it did is on the disk when it ends without an error."""
        with self._one_writer, self.engine.connect() as connection:
            connection = connection.execution_options(motive_writes=True)
            with connection.begin():
                yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that only reads, and waits for no writer."""
        with self.engine.connect() as connection, connection.begin():
            yield connection

    def studies(self) -> list[str]:
        """The id of the study that it belongs to, or none."""
        with self.reading() as connection:
            return list(connection.execute(select(studies.c.id)).scalars())

    def close(self) -> None:
        self.engine.dispose()


def open_database(study: Path, design: Design, url: str | None = None) -> Database:
    """The database of a study, which must be filled already.

    url: of the database server, where the design says that there is one.

    Raises UserError when the database is empty or another study's.
    """
    database = Database(database_url(study, design.database, url))
    held = database.studies()
    if held != [design.id]:
        database.close()
        whose = "another study's" if held else "empty"
        raise UserError(f"the database of {study} is {whose}: name its own with --database")
    return database


def database_url(study: Path, kind: str, url: str | None) -> str:
    """The URL of a study's database; raises UserError when a server's is needed and missing."""
    if kind == "sqlite":
        return f"sqlite:///{(study / DATABASE_FILE).resolve()}"
    if not url:
        raise UserError(
            f"{study} keeps its judgements on a database server: give --database its URL"
        )
    return url


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)


def _make_engine(url: str) -> Engine:
    try:
        address = make_url(url)
        if address.drivername in ("postgres", "postgresql"):
            address = address.set(drivername="postgresql+psycopg")
        if address.get_backend_name() == "sqlite":
            # A thread keeps its connection; transactions begin where `begin` below says.
            engine = create_engine(address, connect_args={"timeout": _BUSY_SECONDS})
            event.listen(engine, "connect", _prepare_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
            return engine
        if address.get_backend_name() != "postgresql":
            raise UserError(f"{address.drivername} is no database for a study: use PostgreSQL")
        return create_engine(address, pool_size=_POOL, max_overflow=0, pool_pre_ping=True)
    except (ArgumentError, NoSuchModuleError):
        raise UserError("--database must be a URL such as postgresql://user@host/name") from None
    except ImportError:
        raise UserError("PostgreSQL needs psycopg: pip install 'psycopg[binary]'") from None


def _prepare_sqlite(connection: Any, _record: object) -> None:
    # Python's own transactions would begin too late, after the first read.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=FULL")  # an acknowledged judgement survives a power cut
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("motive_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _upgrade(engine: Engine) -> None:
    """Bring the tables to this version's, by the migrations that ship with the package."""
    try:
        with engine.connect() as connection:
            connection = connection.execution_options(motive_writes=True)
            with connection.begin():
                command.upgrade(alembic_config(connection), "head")
    except OperationalError as error:
        engine.dispose()
        reason = str(error.orig).strip().splitlines()[-1]
        raise UserError(f"the study's database cannot be opened: {reason}") from None
    except CommandError:
        engine.dispose()
        raise UserError(
            "the study's database was made by a newer version of motive: use that version"
        ) from None


def alembic_config(connection: Connection) -> Any:
    """Alembic's configuration for one connection, without a file or an output."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    config.attributes["connection"] = connection
    return config
