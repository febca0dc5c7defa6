"""Scores that were found before, by what they depend on: the video's content, the network, the formula."""

import json
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import Any, TextIO

from motive.evaluation.dimension import Dimension, VideoScore


class ResultCache:
    """One JSON object a line, added as it is found, so that a killed process loses nothing before it.

    path: of the file; None keeps nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._file: TextIO | None = None
        self._known: dict[str, Any] = {}
        if path is not None and path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                # The last line of a killed process may be cut off.
                try:
                    entry = json.loads(line)
                    self._known[entry["key"]] = entry["value"]
                except (ValueError, KeyError, TypeError):
                    continue

    def get(self, key: str) -> Any:
        """What was kept under `key`, or None."""
        return self._known.get(key)

    def put(self, key: str, value: Any, **about: str) -> None:
        """Keep a JSON value, with what a person may want to know of it."""
        self._known[key] = value
        if self._path is None:
            return
        if self._file is None:
            self._file = self._path.open("a+", encoding="utf-8")
            self._end_line()
        line = json.dumps({"key": key, **about, "value": value}, ensure_ascii=False)
        self._file.write(line + "\n")
        self._file.flush()

    def score(self, key: str) -> VideoScore | None:
        """The score kept under `key`, or None."""
        value = self.get(key)
        return None if value is None else VideoScore(**value)

    def put_score(self, key: str, score: VideoScore, **about: str) -> None:
        """Keep a score."""
        self.put(key, asdict(score), **about)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _end_line(self) -> None:
        """End a line that a killed process has not ended, so that the next begins a new one."""
        assert self._path is not None
        assert self._file is not None
        with self._path.open("rb") as file:
            file.seek(0, 2)
            if file.tell():
                file.seek(-1, 2)
                if file.read(1) != b"\n":
                    self._file.write("\n")


def score_key(content: str, dimension: Dimension, identity: str) -> str:
    """Equal only for equal scores. content: the digest of the video's file."""
    return key_of(content, dimension.name, str(dimension.formula), identity)


def key_of(*parts: str) -> str:
    """A digest of texts."""
    return blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()
