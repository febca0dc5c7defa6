"""Several processes on one run: who works on what, and whose work is taken over.

A process claims a few keys at a time by writing them into a file of its own, which it touches again and
again for as long as it lives. Claims keep two from doing the same work; that no row is there twice is the
tables' affair, so that a claim that was lost costs time and nothing else.
"""

import hashlib
import json
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from motive.runs.locks import locked
from motive.runs.processes import ProcessName, is_gone, this_process
from motive.runs.remote import RunPath

BEAT_SECONDS = 15.0  # between two touches of a claim
# Without a touch for so long a process is taken for dead: one on another machine, or one that hangs.
LOST_SECONDS = 120.0
# A claim is about so many seconds of work: what others must wait for at the end, and do again after a kill.
CLAIM_SECONDS, FIRST_CLAIM, LARGEST_CLAIM = 10.0, 8, 512


@dataclass(frozen=True)
class Claim:
    """What a process has taken upon itself.

    file: where it says so.
    beat: when it last did, by the clock of the file's disk, in seconds.
    """

    file: Path
    process: ProcessName
    keys: frozenset[str]
    beat: float


class Claims:
    """The claims of all processes on one stage's keys, and this process' own.

    A context: while it is open the own claim is kept alive, after it the claim is gone.

    run: the run's folder. On an object store nobody sees another's claims: several processes there would
        do the same work, each row of which is kept once.
    stage, made_by: whose keys they are.
    """

    def __init__(self, run: RunPath, stage: str, made_by: str) -> None:
        self._seen = isinstance(run, Path)
        folder = run if isinstance(run, Path) else Path()
        self._lock = folder / "claims" / "claims.lock"
        digest = hashlib.blake2b(f"{stage}\n{made_by}".encode(), digest_size=6).hexdigest()
        self._folder = folder / "claims" / f"{stage.replace(' ', '-')}-{digest}"
        self._process = this_process()
        # One file a process and stage; the random part tells threads and forks apart.
        self._file = self._folder / f"{self._process.pid}-{secrets.token_hex(4)}.json"
        self._keys: frozenset[str] = frozenset()
        self._ended = threading.Event()
        self._beating: threading.Thread | None = None

    def __enter__(self) -> "Claims":
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        if self._beating is None:
            return
        with suppress(OSError), locked(self._lock):
            self._file.unlink(missing_ok=True)
            self._folder.rmdir()  # when it was the last one there

    def take(self, choose: Callable[[list[Claim]], Collection[str]]) -> frozenset[str]:
        """Claim what `choose` picks, given the claims of the other living processes; only that.

        No other process claims anything meanwhile. What was claimed before and is not picked is free.
        """
        if not self._seen:
            return frozenset(choose([]))
        with locked(self._lock):
            others = self._others()
            self._keys = frozenset(choose(others))
            self._write()
        return self._keys

    def _write(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        content = {**self._process.as_dict(), "keys": sorted(self._keys)}
        self._file.write_text(json.dumps(content))  # nobody reads it without the lock
        if self._beating is None:
            self._beating = threading.Thread(target=self._beat, name="claims", daemon=True)
            self._beating.start()

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            # It is gone when it was taken over: this process must have hung.
            with suppress(OSError):
                os.utime(self._file)

    def _others(self) -> list[Claim]:
        """The claims of the others that live. Those of the dead are removed."""
        self._write()  # its time is now, by the clock that the others' times are of
        now = self._file.stat().st_mtime
        living = []
        found = {claim.file: claim for claim in read_claims(self._folder)}
        for file in self._folder.glob("*.json"):
            if file == self._file:
                continue
            claim = found.get(file)
            if claim is None:
                file.unlink(missing_ok=True)  # its writer was killed in the middle of it
                continue
            if is_over(claim, now):
                claim.file.unlink(missing_ok=True)
            else:
                living.append(claim)
        return living


class Queue:
    """What is left of a stage's keys, handed out in order, so much at a time as is claimed at a time.

    keys: that are to be done; asked for as they are needed.
    settled: sets of keys that are done, brought up to date whenever it is called.
    """

    def __init__(
        self, claims: Claims, keys: Collection[str], settled: Callable[[], Collection[set[str]]]
    ) -> None:
        self._claims, self._settled = claims, settled
        self._new, self._unseen = iter(keys), len(keys)
        self._passed: deque[str] = deque()  # over, since others had claimed them; they come first
        self._mine: set[str] = set()  # claimed, and not settled yet
        self.others: list[Claim] = []
        self.taken = 0
        self._committed, self._start = 0, time.monotonic()

    def __len__(self) -> int:
        """How many keys this process has not taken and has not seen done by others."""
        return len(self._passed) + self._unseen

    def take(self) -> list[str]:
        """The next keys, now claimed; none when all that is left is done, or claimed by others."""
        if not len(self):
            return []
        chosen: list[str] = []

        def choose(others: list[Claim]) -> set[str]:
            # Asked for what is settled after the claims were read: who lets go of a claim has committed.
            self.others, settled = others, self._settled()
            claimed = frozenset().union(*(claim.keys for claim in others))
            self._mine = {k for k in self._mine if not any(k in done for done in settled)}
            passed: list[str] = []
            size = self._size()
            while len(self) and len(chosen) < size:
                key = self._next()
                if any(key in done for done in settled):
                    continue
                (passed if key in claimed else chosen).append(key)
            self._passed.extendleft(reversed(passed))
            self._mine |= set(chosen)
            return self._mine

        self._claims.take(choose)
        self.taken += len(chosen)
        return chosen

    def committed(self, count: int) -> None:
        """So many rows more are done; by how fast that goes the next claims are as large."""
        self._committed += count

    def _size(self) -> int:
        per_second = self._committed / max(1e-3, time.monotonic() - self._start)
        size = int(per_second * CLAIM_SECONDS) if self._committed else FIRST_CLAIM
        if self.others:
            # Near the end the claims get smaller, so that all processes end at about the same time.
            size = min(size, len(self) // (2 * (len(self.others) + 1)))
        return max(1, min(size, LARGEST_CLAIM))

    def _next(self) -> str:
        if self._passed:
            return self._passed.popleft()
        self._unseen -= 1
        return next(self._new)


def read_claims(folder: Path) -> list[Claim]:
    """All claims on one stage. A file that is none, or is gone by now, is left out."""
    found = []
    for file in sorted(folder.glob("*.json")):
        try:
            content = json.loads(file.read_text())
            process, keys = ProcessName.of(content), frozenset(map(str, content["keys"]))
            found.append(Claim(file, process, keys, file.stat().st_mtime))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return found


def is_over(claim: Claim, now: float) -> bool:
    """Whether the process of a claim is dead, or has been silent for too long.

    now: by the clock that the claim's `beat` is of.
    """
    return is_gone(claim.process) is True or now - claim.beat > LOST_SECONDS
