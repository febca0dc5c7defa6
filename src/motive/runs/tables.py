"""The run's tables, in Lance: appendable, versioned, each append atomic.

Every row carries `key`, what it is about, and `made_by`, the fingerprint of the stage and settings that
made it. A row counts as done only for its own `made_by`, so that nothing made with other settings is
ever taken for this run's.

Several processes may write into one table: each commit is made under a lock, after a look at what the
others have committed, so that no key gets two rows of one `made_by` whoever thinks that it is his to do.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from motive.errors import UserError
from motive.runs.checksums import Checksums
from motive.runs.fragments import Written, commit_fragments, read_fragments, write_fragments
from motive.runs.keys import KnownKeys
from motive.runs.locks import locked
from motive.runs.placed import gathered
from motive.runs.remote import RemotePath, RunPath, on_disk, taken_away
from motive.runs.texts import COMPARED, as_array, is_among

# Lance prints what it could not do and then goes on without, in lines that name its own source; what
# stops it is raised. It reads this when it is imported.
os.environ.setdefault("LANCE_LOG", "error")

Row = dict[str, Any]
Committed = TypeVar("Committed")
KEY_COLUMNS = [pa.field("key", pa.string()), pa.field("made_by", pa.string())]
# On an object store Lance itself lets no second row of a key in, if told so when the table is made.
_UNIQUE_KEY_COLUMNS = [
    pa.field(
        f.name, f.type, nullable=False, metadata={"lance-schema:unenforced-primary-key": "true"}
    )
    for f in KEY_COLUMNS
]

# Reading a table takes a millisecond or two for each fragment, and each commit lists them all. So they are
# merged in two steps, which write each row twice more, whatever the number of rows; large rows less often.
_MANY_FRAGMENTS = 64  # more of them that are smaller than the step are merged
_MERGED_ROWS = (4096, 262_144)
_MERGED_BYTES = 256 * 2**20
_TRIES = 10  # of a commit that Lance cannot reconcile with another's
_RETRIES = 100  # of a commit that others were faster with
_MAKING_SECONDS = 30.0  # in which another process has made the table that it began to make
READ_AHEAD = 16 << 20  # bytes; Lance's own choice of 2 GB would hold a whole table in memory
_LOOK_EVERY = 16  # appends between two looks at the number of fragments

# What merging and replacing leave behind is kept so long, for readers that have it open.
KEPT_VERSIONS = timedelta(days=1)


class Table:
    """One Lance table of a run.

    schema: the columns beside `key` and `made_by`. A column of lists of numbers takes flat arrays.
    """

    def __init__(self, path: RunPath, schema: pa.Schema) -> None:
        self.path = path
        keys = _UNIQUE_KEY_COLUMNS if isinstance(path, RemotePath) else KEY_COLUMNS
        self.schema = pa.schema([*keys, *schema])
        self._known: dict[str, KnownKeys] = {}
        self._appends = 0

    def __reduce__(self) -> tuple[type["Table"], tuple[RunPath, pa.Schema]]:
        # Another process has to look for itself which keys are there.
        return Table, (self.path, pa.schema(list(self.schema)[len(KEY_COLUMNS) :]))

    def exists(self) -> bool:
        versions = self.path / "_versions"
        if isinstance(versions, RemotePath):
            return versions.exists()
        # A first write that was broken off leaves the folder and no version in it.
        return any(versions.glob("*.manifest"))

    @cached_property
    def storage_options(self) -> dict[str, str] | None:
        """What Lance must be told to find the table; None on a disk."""
        return self.path.lance_options() if isinstance(self.path, RemotePath) else None

    @cached_property
    def _checksums(self) -> Checksums:
        return Checksums(on_disk(self.path))

    def append(self, rows: Sequence[Row]) -> int:
        """Commit `rows` all together or not at all; those that are there already are left as they are.

        Returns how many were not there.

        Raises UserError when the disk is full or cannot be written, or for a table of another version.
        """
        if not rows:
            return 0
        # Made here, where a value of the wrong kind is the caller's mistake and not the disk's.
        table = pa.Table.from_pylist(list(rows), schema=self.schema)
        if isinstance(self.path, RemotePath):
            with _writing(self.path):
                return self._insert(table)
        with self._writing_alone():
            first: dict[tuple[str, str], int] = {}
            for made_by in {row["made_by"] for row in rows}:
                there = self.follow(made_by).keys
                for index, row in enumerate(rows):
                    if row["made_by"] == made_by and row["key"] not in there:
                        first.setdefault((row["key"], made_by), index)
            if first:
                if len(first) < len(rows):
                    table = table.take(sorted(first.values()))
                mine = {by: [k for k, b in first if b == by] for by in {b for _, b in first}}
                self._appended(self._write(table, "append"), mine)
            return len(first)

    def write_aside(self, rows: Sequence[Row], *, at_least: int) -> Written | None:
        """Write rows beside the table, for a later `commit`, from whatever machine.

        at_least: bytes; fewer are not worth a file of their own, and None says that nothing was written.
            It says so on an object store too, where Lance has to see the rows to keep keys unique.
        """
        if not rows or isinstance(self.path, RemotePath):
            return None
        table = pa.Table.from_pylist(list(rows), schema=self.schema)
        if table.nbytes < at_least:
            return None
        with _writing(self.path):
            return write_fragments(str(self.path), table)

    def commit(self, written: Sequence[Written]) -> int:
        """Make what `write_aside` wrote part of the table, all together or not at all.

        Rows that are there already are left as they are. Returns how many were not there.

        Raises UserError as `append` does.
        """
        if not written:
            return 0
        with self._writing_alone():
            dataset = self.open()
            new: list[Written] = []
            twice: list[Written] = []
            here: set[str] = set()
            for one in written:
                there = here.union(*(self.follow(made_by).keys for made_by in one.made_by))
                (twice if there.intersection(one.keys) else new).append(one)
                here.update(one.keys)
            if new:
                makers = {name for one in new for name in one.made_by}
                mine = {
                    by: [k for one in new if by in one.made_by for k in one.keys] for by in makers
                }
                self._appended(commit_fragments(dataset, new), mine)
        # A row of these is there: another process did it meanwhile. The rest is appended row by row.
        done = sum(len(one.keys) for one in new)
        return done + sum(self.append(read_fragments(str(self.path), one)) for one in twice)

    def create(self) -> None:
        """Make the table, without rows, unless it is there: `write_aside` needs one.

        Of several processes on an object store, which has no locks, one makes it and the others wait: Lance
        lets a second creation overwrite the first one, with the rows that it has by then.
        """
        if self.exists():
            return
        if isinstance(self.path, RemotePath):
            first = (self.path.parent / "making" / self.path.name).create(b"")
            last = time.monotonic() + _MAKING_SECONDS
            while not first and not self.exists() and time.monotonic() < last:
                time.sleep(0.2)
        with self._writing_alone():
            if not self.exists():  # ours to make, or the first one was killed
                self._write(self.schema.empty_table(), "create")

    def replace(self, rows: Sequence[Row]) -> None:
        """Commit `rows` in place of all that was there."""
        table = pa.Table.from_pylist(list(rows), schema=self.schema)
        self.replace_batches(table.to_batches)

    def replace_batches(self, batches: Callable[[], Iterable[pa.RecordBatch]]) -> None:
        """As `replace`; the rows are asked for as they are written, and again if that is tried again."""
        if isinstance(self.path, RemotePath):
            self.create()  # so that of two that replace what is not there none is refused

        def write() -> Any:
            rows = (batch.cast(self.schema) for batch in batches())
            return self._write(pa.RecordBatchReader.from_batches(self.schema, rows), "overwrite")

        with self._writing_alone():
            self._insist(write)

    def follow(self, made_by: str) -> KnownKeys:
        """The keys of the rows made by `made_by`, as they are now; cheap to ask for again and again."""
        known = self._known.setdefault(made_by, KnownKeys(made_by_is(made_by)))
        with self._reading() as dataset:
            if dataset is None:
                known.forget()
            else:
                known.follow(dataset)
        return known

    def keys(self, made_by: str) -> set[str]:
        """The keys of the rows made by `made_by`."""
        return {key for batch in self.batches(made_by, ["key"]) for key in batch["key"].to_pylist()}

    def without(self, keys: pa.Array, made_by: str) -> pa.Array:
        """Those of `keys` that have no row made by `made_by`, in order; the table's own keys are not held."""
        return keys.filter(pa.array(~self.has(keys, made_by)))

    def has(self, keys: pa.Array, made_by: str) -> np.ndarray:
        """Which of `keys` have a row made by `made_by`, `(N,)` bool."""
        there = np.zeros(len(keys), bool)
        if len(keys):
            for part in gathered(self.batches(made_by, ["key"], size=COMPARED), COMPARED):
                there |= is_among(keys, as_array(part["key"]))
        return there

    def rows(
        self, made_by: str | None = None, *, columns: list[str] | None = None
    ) -> Iterator[Row]:
        """Rows in the order in which they were written, a batch at a time."""
        for batch in self._batches(made_by, columns, 64):
            yield from _as_rows(batch)

    def batches(
        self, made_by: str | None, columns: list[str], *, size: int = 4096
    ) -> Iterator[pa.RecordBatch]:
        """Columns of the rows made by `made_by`, as Arrow holds them, in the order of writing.

        At most `size` rows at a time. made_by: None is everyone.
        """
        for batch in self._batches(made_by, columns, size):
            yield batch.select(columns)

    def _batches(
        self, made_by: str | None, columns: list[str] | None, size: int
    ) -> Iterator[pa.RecordBatch]:
        with self._reading() as dataset:
            if dataset is not None:
                yield from self.scan(dataset, columns, size, made_by)

    def scan(
        self, dataset: Any, columns: list[str] | None, size: int, made_by: str | None = None
    ) -> Iterator[pa.RecordBatch]:
        """As `batches`, of what `open` gave before."""
        with self.watched():
            yield from dataset.to_batches(
                columns=columns,
                filter=None if made_by is None else made_by_is(made_by),
                batch_size=size,
                io_buffer_size=READ_AHEAD,
                batch_readahead=1,
            )

    def columns(self, made_by: str, names: list[str]) -> pa.Table:
        """Whole columns of the rows made by `made_by`, as Arrow holds them; no rows if there is no table."""
        with self._reading() as dataset:
            if dataset is None:
                fields = [self.schema.field(name) for name in names if name in self.schema.names]
                return pa.schema(fields).empty_table()
            return dataset.to_table(columns=names, filter=made_by_is(made_by))

    def lookup(
        self, keys: Sequence[str], made_by: str, *, columns: list[str] | None = None
    ) -> dict[str, Row]:
        """The rows of `keys` made by `made_by`; keys without a row are left out."""
        if not keys:
            return {}
        wanted = f"{made_by_is(made_by)} AND key IN ({_listed(keys)})"
        names = None if columns is None else sorted({"key", *columns})
        with self._reading() as dataset:
            if dataset is None:
                return {}
            found = dataset.to_table(columns=names, filter=wanted)
        return {row["key"]: row for batch in found.to_batches() for row in _as_rows(batch)}

    def count(self) -> int:
        return self.open().count_rows() if self.exists() else 0

    def drop(self, keys: Sequence[str], made_by: str | None = None) -> None:
        """Remove the rows of these keys, made by `made_by` or whoever made them."""
        if keys and self.exists():
            with self._writing_alone():
                wanted = set(keys)
                # A condition that names a million keys, to find the few that are there, takes gigabytes.
                there = [
                    r["key"] for r in self.rows(made_by, columns=["key"]) if r["key"] in wanted
                ]
                if not there:
                    return
                by = "" if made_by is None else f" AND {made_by_is(made_by)}"
                self._insist(lambda: self.open().delete(f"key IN ({_listed(there)}){by}"))

    def drop_fragment(self, fragment: int) -> None:
        """Remove the rows of a fragment whose files cannot be read."""
        import lance

        with self._writing_alone():
            dataset = self.open()
            gone = lance.LanceOperation.Delete([], [fragment], f"fragment {fragment} is damaged")
            lance.LanceDataset.commit(
                dataset.uri,
                gone,
                read_version=dataset.version,
                storage_options=self.storage_options,
            )

    def tidy(self) -> None:
        """Merge the fragments that many small appends leave behind, and remove old versions."""
        if self.exists():
            with self._writing_alone():
                dataset = self.open()
                self._merge(dataset)
                if dataset.version > _MANY_FRAGMENTS:
                    dataset.cleanup_old_versions(KEPT_VERSIONS, error_if_tagged_old_versions=False)

    def open(self) -> Any:
        """The Lance dataset as it is now.

        Raises UserError when it cannot be read, or is of another version of motive or Lance.
        """
        import lance

        try:
            dataset = lance.dataset(str(self.path), storage_options=self.storage_options)
        except (ValueError, OSError) as error:
            if "upgrade Lance" in str(error):  # its word on a format that it does not know
                raise UserError(
                    f"the table {self.path} was written by a newer version of motive or Lance: update "
                    "them, with pip install --upgrade motive-attribution pylance"
                ) from None
            raise UserError(
                f"the table {self.path} cannot be read ({_first_line(error)}): "
                "remove that folder and run again to make it anew"
            ) from None
        there = {field.name: field.type for field in dataset.schema}
        missing = any(there.get(field.name) != field.type for field in self.schema)
        # Whoever names no columns only reads, and may read those of a newer version.
        more = len(self.schema) > len(KEY_COLUMNS) and there.keys() - set(self.schema.names)
        if missing or more:
            raise UserError(
                f"the table {self.path} was written by another version of motive: "
                "remove that folder and run again to make it anew"
            )
        return dataset

    @contextmanager
    def _reading(self) -> Iterator[Any]:
        """The Lance dataset as it is now, or None where there is none.

        Raises UserError as `open` does, and when the run's folder was taken away.
        """
        with self.watched():
            yield self.open() if self.exists() else None

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Raise UserError when the run's folder was taken away by the end of this, whatever else is said."""
        try:
            yield
        except (OSError, RuntimeError, ValueError, UserError):
            _require_folder(self.path)
            raise
        _require_folder(self.path)

    def _write(self, table: pa.Table | pa.RecordBatchReader, mode: str) -> Any:
        import lance

        return lance.write_dataset(
            table,
            str(self.path),
            # Asked for anything else, Lance warns of a table that is not there yet.
            mode=mode if self.exists() else "create",
            storage_options=self.storage_options,
        )

    def _insert(self, table: pa.Table) -> int:
        """Append the rows whose key is not there, by Lance's own means. Returns how many those were."""
        self.create()

        def insert() -> int:  # those that are there are not inserted again
            merge = self.open().merge_insert(["key", "made_by"]).when_not_matched_insert_all()
            merge.conflict_retries(_RETRIES).retry_timeout(timedelta(minutes=10))
            return int(merge.execute(table)["num_inserted_rows"])

        inserted = self._insist(insert)
        self._appended(self.open(), {})  # each commit reads the keys of every fragment
        return inserted

    def _insist(self, commit: Callable[[], Committed]) -> Committed:
        """What `commit` returns: tried again when, for want of a lock, another process's came in between."""
        for attempt in range(1, _TRIES):
            try:
                return commit()
            except (OSError, RuntimeError, ValueError) as error:
                if not isinstance(self.path, RemotePath) or "transaction" not in str(error):
                    raise
                time.sleep(0.2 * attempt)
        return commit()

    def _appended(self, dataset: Any, keys: Mapping[str, list[str]]) -> None:
        """After a commit: now and then fewer fragments, and what is known of the keys.

        dataset: the table after it. keys: that were appended, by their maker.
        """
        self._appends += 1
        if self._appends % _LOOK_EVERY == 0:
            self._merge(dataset)
        for made_by, mine in keys.items():
            self._known[made_by].wrote(dataset, mine)

    def _merge(self, dataset: Any) -> None:
        """Make few fragments of many small neighbours."""
        try:
            _merge_fragments(dataset)
        except (OSError, RuntimeError, ValueError):
            if not isinstance(self.path, RemotePath):
                raise
            # Without a lock another process may have been faster. The next one to look does it.

    @contextmanager
    def _writing_alone(self) -> Iterator[None]:
        """Let no other process commit into the table, and say so when the disk refuses."""
        with _writing(self.path):
            if isinstance(self.path, RemotePath):
                yield
            else:
                with locked(self.path.with_suffix(".lock")):
                    yield
                    if self.exists():
                        self._checksums.add(self.open())


def _merge_fragments(dataset: Any) -> None:
    """Make few fragments of many small neighbours; the rows and their order stay."""
    merged = 0  # rows of what the step before makes
    for step in _MERGED_ROWS:
        fragments = [f.metadata for f in dataset.get_fragments()]
        recent = fragments[-_MANY_FRAGMENTS:]
        size = sum(file.file_size_bytes or 0 for f in recent for file in f.files)
        row_bytes = max(1, size // max(1, sum(f.physical_rows for f in recent)))
        most = max(2, min(step, _MERGED_BYTES // row_bytes))
        if sum(merged <= f.physical_rows < most for f in fragments) > _MANY_FRAGMENTS:
            dataset.optimize.compact_files(
                target_rows_per_fragment=most,
                num_threads=1,
                batch_size=max(1, min(1024, most // 8)),
            )
            dataset.checkout_latest()  # else the next step would see the fragments as they were
        merged = most


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _listed(keys: Sequence[str]) -> str:
    return ", ".join(_quoted(key) for key in sorted(set(keys)))


def made_by_is(made_by: str) -> str:
    """An SQL condition."""
    return f"made_by = {_quoted(made_by)}"


@contextmanager
def _writing(path: RunPath) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        _require_folder(path)
        raise UserError(
            f"{path} cannot be written ({_first_line(error)}): free space or choose another place, "
            "and run the same command again; what was done is kept"
        ) from None


def _require_folder(path: RunPath) -> None:
    # Of the run: it is there before any table.
    if isinstance(path, Path) and not path.parent.parent.exists():
        raise taken_away(path) from None


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return text[:200]


def _as_rows(batch: pa.RecordBatch) -> Iterator[Row]:
    """Rows of Python values, but lists of numbers as numpy arrays that were not copied item by item."""
    columns: list[tuple[str, Any]] = []
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        numeric = pa.types.is_list(column.type) or pa.types.is_fixed_size_list(column.type)
        columns.append((name, column if numeric else column.to_pylist()))
    for i in range(batch.num_rows):
        yield {
            name: column[i].values.to_numpy(zero_copy_only=False)
            if isinstance(column, pa.Array)
            else column[i]
            for name, column in columns
        }
