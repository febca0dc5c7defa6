"""What a person decided about a run's clips, in `curation.sqlite` beside the run's own files.

The computed selection is never written to. Every decision is one transaction: a crash leaves it whole or
not there. What was decided can be undone and done again, also after a restart.
"""

import json
import sqlite3
import threading
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from motive.errors import UserError

NAME = "curation.sqlite"
Field = Literal["decision", "note", "setting"]
Decision = Literal["include", "exclude"]
_LAYOUT = 1
_TABLES = """
create table if not exists state (
    field text not null, item text not null, value text not null, primary key (field, item)
) without rowid;
create table if not exists events (
    id integer primary key autoincrement, at text not null, what text not null, undone integer not null
);
create table if not exists changes (
    event integer not null references events (id) on delete cascade,
    field text not null, item text not null, before text, after text
);
create index if not exists changes_by_event on changes (event);
"""


@dataclass(frozen=True)
class History:
    """What can be undone and done again next, in words; None for nothing."""

    undo: str | None
    redo: str | None
    events: list[dict[str, str]]


class Curation:
    """Decisions, notes and settings of one run; of several processes at once, each sees the others'.

    Raises UserError when the file cannot be read or written.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self._lock = threading.RLock()
        try:
            self._db = sqlite3.connect(self.path, check_same_thread=False, isolation_level=None)
            self._db.execute("pragma foreign_keys = on")
            self._db.execute("pragma synchronous = full")
            layout = self._db.execute("pragma user_version").fetchone()[0]
            if layout not in (0, _LAYOUT):
                raise UserError(
                    f"{self.path} was written by a newer version of motive: update motive"
                )
            self._db.executescript(_TABLES)
            self._db.execute(f"pragma user_version = {_LAYOUT}")
        except sqlite3.Error as error:
            raise UserError(
                f"{self.path} cannot be used ({error}): make the run's folder writable, "
                "or move that file away to begin anew"
            ) from None
        self._changes_here = 0

    def version(self) -> tuple[int, int]:
        """Differs whenever something was decided, by this process or another."""
        with self._lock:
            return self._changes_here, self._db.execute("pragma data_version").fetchone()[0]

    def values(self, field: Field) -> dict[str, str]:
        """What holds now: `decision` and `note` by clip id, `setting` by name."""
        with self._lock:
            rows = self._db.execute("select item, value from state where field = ?", (field,))
            return dict(rows.fetchall())

    def setting(self, name: str) -> dict[str, object]:
        """A setting as it was saved; empty when it never was."""
        return json.loads(self.values("setting").get(name, "{}"))

    def decide(self, clip_ids: Iterable[str], decision: Decision | None) -> int:
        """Include or exclude clips by hand, or take the decision back with None. Returns how many changed."""
        ids = list(dict.fromkeys(clip_ids))
        verb = {"include": "include", "exclude": "exclude", None: "clear"}[decision]
        what = f"{verb} {len(ids)} clip{'' if len(ids) == 1 else 's'}"
        return self._apply("decision", dict.fromkeys(ids, decision), what)

    def note(self, clip_id: str, text: str) -> int:
        """Keep a note on a clip; empty text removes it."""
        return self._apply("note", {clip_id: text.strip() or None}, "note on a clip")

    def set(self, name: str, value: dict[str, object], what: str) -> int:
        """Keep a setting; an empty one removes it."""
        return self._apply("setting", {name: json.dumps(value) if value else None}, what)

    def undo(self) -> str | None:
        """Take back the last event that stands. Returns what it was, None when there is none."""
        return self._turn("undone = 0", "desc", "before", 1)

    def redo(self) -> str | None:
        """Do again the first event that was taken back. Returns what it was, None when there is none."""
        return self._turn("undone = 1", "asc", "after", 0)

    def history(self, limit: int = 50) -> History:
        """The last events, the newest first."""
        with self._lock:
            done = self._one("select what from events where undone = 0 order by id desc limit 1")
            taken = self._one("select what from events where undone = 1 order by id asc limit 1")
            rows = self._db.execute(
                "select at, what, undone from events order by id desc limit ?", (limit,)
            ).fetchall()
        names = ("at", "what", "undone")
        events = [dict(zip(names, map(str, row), strict=True)) for row in rows]
        return History(done, taken, events)

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def _apply(self, field: Field, wanted: dict[str, str | None], what: str) -> int:
        with self._transaction():
            now = self.values(field)
            changed = [(i, now.get(i), v) for i, v in wanted.items() if now.get(i) != v]
            if not changed:
                return 0
            # What was taken back is forgotten once something else is decided.
            self._db.execute("delete from events where undone = 1")
            at = datetime.now(UTC).isoformat(timespec="seconds")
            made = self._db.execute(
                "insert into events (at, what, undone) values (?, ?, 0)", (at, what)
            )
            rows = [(made.lastrowid, field, item, before, after) for item, before, after in changed]
            self._db.executemany("insert into changes values (?, ?, ?, ?, ?)", rows)
            self._write((field, item, after) for item, _, after in changed)
            return len(changed)

    def _turn(self, which: str, direction: str, side: str, undone: int) -> str | None:
        with self._transaction():
            found = self._db.execute(
                f"select id, what from events where {which} order by id {direction} limit 1"
            ).fetchone()
            if found is None:
                return None
            rows = self._db.execute(
                f"select field, item, {side} from changes where event = ?", (found[0],)
            ).fetchall()
            self._write(rows)
            self._db.execute("update events set undone = ? where id = ?", (undone, found[0]))
            return str(found[1])

    def _write(self, rows: Iterable[tuple[str, str, str | None]]) -> None:
        rows = list(rows)
        self._db.executemany(
            "delete from state where field = ? and item = ?", [(f, i) for f, i, _ in rows]
        )
        kept = [row for row in rows if row[2] is not None]
        self._db.executemany("insert into state values (?, ?, ?)", kept)

    def _one(self, statement: str) -> str | None:
        with closing(self._db.execute(statement)) as cursor:
            row = cursor.fetchone()
        return None if row is None else str(row[0])

    def _transaction(self) -> "_Transaction":
        return _Transaction(self)


class _Transaction:
    """All or nothing, of one thread at a time."""

    def __init__(self, curation: Curation) -> None:
        self._of = curation

    def __enter__(self) -> None:
        self._of._lock.acquire()
        try:
            self._of._db.execute("begin immediate")
        except sqlite3.Error as error:
            self._of._lock.release()
            raise self._refusal(error) from None

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: object) -> None:
        try:
            self._of._db.execute("commit" if kind is None else "rollback")
            self._of._changes_here += 1
        except sqlite3.Error as problem:
            self._of._db.execute("rollback")
            raise self._refusal(problem) from None
        finally:
            self._of._lock.release()

    def _refusal(self, error: sqlite3.Error) -> UserError:
        return UserError(f"{self._of.path} cannot be written ({error}): nothing was changed")
