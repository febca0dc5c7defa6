"""Which keys a table has, followed as it grows, by whoever writes into it."""

import threading
from collections.abc import Iterable, Iterator
from typing import Any


class KnownKeys:
    """The keys of the rows of one `made_by`, kept up to date at the cost of what is new.

    keys: grows in place, so that who holds it sees what others wrote. Several threads may follow at once:
        a key that the table has is never missing in between.
    """

    def __init__(self, condition: str) -> None:
        self.keys: set[str] = set()
        self._condition = condition
        self._version = -1
        self._seen: dict[int, int] = {}  # fragments that were read, with their deleted rows
        self._following = threading.Lock()

    def follow(self, dataset: Any) -> None:
        """Take in what was written since the last time.

        dataset: the table as it is now.
        """
        with self._following:
            if dataset.version <= self._version:
                return
            fragments = dataset.get_fragments()
            there = {f.fragment_id: f.num_deletions for f in fragments}
            if all(there.get(fragment) == deleted for fragment, deleted in self._seen.items()):
                self.keys.update(self._read(dataset, set(there) - set(self._seen)))
            else:
                # Rows were taken away, or fragments merged: what is left is read as a whole.
                left = set(self._read(dataset, set(there)))
                self.keys.intersection_update(left)
                self.keys.update(left)
            self._seen, self._version = there, dataset.version

    def wrote(self, dataset: Any, keys: Iterable[str]) -> None:
        """Take in what the holder of the table's lock has just written, after `follow`.

        dataset: the table after it.
        """
        with self._following:
            self.keys.update(keys)
            self._seen = {f.fragment_id: f.num_deletions for f in dataset.get_fragments()}
            self._version = dataset.version

    def forget(self) -> None:
        """The table is not there."""
        with self._following:
            self.keys.clear()
            self._seen.clear()
            self._version = -1

    def _read(self, dataset: Any, fragments: set[int]) -> Iterator[str]:
        if not fragments:
            return
        scanner = dataset.scanner(
            columns=["key"],
            filter=self._condition,
            fragments=[dataset.get_fragment(fragment) for fragment in sorted(fragments)],
        )
        for batch in scanner.to_batches():
            yield from batch["key"].to_pylist()
