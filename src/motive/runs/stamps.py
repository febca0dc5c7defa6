"""What a run's outputs were made from: a digest for each, kept in `outputs.json`."""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from motive.runs.locks import locked
from motive.runs.provenance import write_atomically
from motive.runs.remote import RunPath


def stamp_of(settings: list[str], parts: Iterable[Any]) -> str:
    """The digest of the settings and of everything else, each on a line of its own."""
    # The parts are of all clips, and their texts are never all there at once.
    digest = hashlib.blake2b("\n".join(settings).encode(), digest_size=10)
    for part in parts:
        digest.update(f"\n{part!r}".encode())
    return digest.hexdigest()


class Stamps:
    """The stamps of the outputs of the run in `folder`, by the stage that made them."""

    def __init__(self, folder: RunPath) -> None:
        self._file = folder / "outputs.json"
        self._lock = folder / "claims" / "outputs.lock"

    def read(self) -> dict[str, str]:
        return json.loads(self._file.read_text()) if self._file.is_file() else {}

    def set(self, stage: str, stamp: str) -> None:
        """Note what an output was made from."""
        with locked(self._lock):
            self._write({**self.read(), stage: stamp})

    def forget(self) -> None:
        """Let the next `curate` make all outputs anew."""
        with locked(self._lock):
            self._write({})

    def _write(self, stamps: dict[str, str]) -> None:
        write_atomically(self._file, json.dumps(stamps, indent=1) + "\n")
