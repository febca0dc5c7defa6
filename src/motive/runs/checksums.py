"""What a table's data files were when they were written, so that a flipped bit is found years later."""

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_LINE = re.compile(r"([0-9a-f]{32}) ([^/\n]+\.lance)\n")
_SPARE_LINES = 1000  # of files that are gone, before the list is written anew


class Checksums:
    """The list of checksums beside a table that lies on a disk. Whoever writes holds the table's lock.

    table: the table's folder.
    """

    def __init__(self, table: Path) -> None:
        self._list = table.with_suffix(".sums")
        self._data = table / "data"
        self._listed: set[str] | None = None

    def read(self) -> dict[str, str]:
        """Checksum by name of the file. A last line that was broken off is none."""
        if not self._list.is_file():
            return {}
        with self._list.open(encoding="utf-8") as lines:
            return {m[2]: m[1] for line in lines if (m := _LINE.fullmatch(line))}

    def of(self, name: str) -> str:
        """The checksum of a file as it is now. Raises OSError when it cannot be read."""
        with (self._data / name).open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()

    def add(self, dataset: Any) -> None:
        """List the files of the table that are not listed yet.

        dataset: the table as it is now.
        """
        if self._listed is None:
            self._listed = set(self.read())
        names = data_files(dataset)
        if new := [name for name in names if name not in self._listed]:
            lines = "".join(f"{self.of(name)} {name}\n" for name in new)
            with self._list.open("a", encoding="utf-8") as file:
                # After a line that was broken off a new one begins.
                file.write(("\n" if self._is_broken_off() else "") + lines)
            self._listed.update(new)
        if len(self._listed) > 2 * len(names) + _SPARE_LINES:
            self._forget_others(names)

    def _is_broken_off(self) -> bool:
        with self._list.open("rb") as file:
            if file.seek(0, os.SEEK_END) == 0:
                return False
            file.seek(-1, os.SEEK_END)
            return file.read() != b"\n"

    def _forget_others(self, names: Iterable[str]) -> None:
        from motive.runs.provenance import write_atomically

        known = self.read()
        kept = [name for name in names if name in known]
        write_atomically(self._list, "".join(f"{known[name]} {name}\n" for name in kept))
        self._listed = set(kept)


def data_files(dataset: Any) -> list[str]:
    """Names of the files that the rows of the table lie in."""
    return [file.path for fragment in dataset.get_fragments() for file in fragment.data_files()]
