"""Decoding in processes of their own: a file that hangs, floods or crashes the decoder ends no run.

Media files come from anywhere and FFmpeg is a million lines of C. So the first time that a file is decoded,
another process does it (`motive.clips.decoder`), under limits on time and memory; only small facts come
back, as JSON. What such a process cannot survive is recorded as the clip's failure, and another process
takes its place. The later stages decode the same bytes with the same code in the run's own process.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from dataclasses import asdict, dataclass
from multiprocessing.connection import Pipe
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from motive.clips.sampling import FrameSampler
from motive.errors import ClipError, UserError

START_SECONDS = 120.0  # a process that has not begun by then never will
PATIENCE_SECONDS = 0.3  # a clip waits so long for a process before one more is started
_LARGEST_REPLY = 2**20
# A process decodes in one thread; more of them only reserve memory.
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MALLOC_ARENA_MAX")
_MAIN = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from motive.clips.decoder import main; main(*map(int, sys.argv[2:]))"
)


@dataclass(frozen=True)
class DecodingLimits:
    """What decoding one clip may take, and in how many processes at once.

    seconds: of real time, for reading, hashing and decoding it.
    megabytes: of memory besides the frames that are kept; the kernel holds to it on Linux, other systems
        have no such limit.
    processes: None for as many as there are processors.
    """

    seconds: float = 60.0
    megabytes: int = 2048
    processes: int | None = None

    @property
    def workers(self) -> int:
        """How many processes there may be."""
        if self.processes is not None:
            return self.processes
        if hasattr(os, "sched_getaffinity"):
            return len(os.sched_getaffinity(0))
        return os.cpu_count() or 1


@dataclass(frozen=True)
class ClipFacts:
    """What the first decoding of a file found; see `motive.clips.decoding.DecodedClip`.

    digest: of its bytes. frames: how many the sampler took.
    """

    digest: str
    frames: int
    fps: float
    source_fps: float
    source_height: int
    source_width: int
    codec: str


class Decoders:
    """The processes that decode. Started when they are needed; to be closed.

    Several threads may ask at once.
    """

    def __init__(self, limits: DecodingLimits) -> None:
        self.limits = limits
        self._idle: SimpleQueue[_Child] = SimpleQueue()
        self._lock = threading.Lock()
        self._children: set[_Child] = set()
        self._closed = False

    def examine(self, path: Path, sampler: FrameSampler) -> ClipFacts:
        """Hash and decode a file in another process.

        Raises ClipError with the reason when the file cannot be decoded, or not within the limits, or
        when it crashes the decoder.
        """
        job = {"path": str(path), "sampler": asdict(sampler)}
        reply = self._ask(job)
        if "failed" in reply:
            raise ClipError(str(reply["failed"]))
        return ClipFacts(**reply["facts"])

    def close(self) -> None:
        """End all processes, those that are at work too."""
        with self._lock:
            self._closed = True
            children = list(self._children)
        for child in children:
            self._end(child)

    def _ask(self, job: dict[str, Any]) -> dict[str, Any]:
        child = self._borrow()
        while True:
            unused = child.jobs == 0
            try:
                reply = child.do(job, self.limits.seconds)
            except _LostError as lost:
                self._end(child)
                # What earlier clips left in the process is not to be held against this one.
                if unused or not lost.may_be_anothers:
                    raise ClipError(lost.reason) from None
                child = self._start()
            except BaseException:
                self._end(child)
                raise
            else:
                self._idle.put(child)
                return reply

    def _borrow(self) -> "_Child":
        # One more process only when those that are there have long work: most clips take milliseconds.
        with self._lock:
            several = len(self._children) > 0
            full = len(self._children) >= self.limits.workers
        while several:
            try:
                child = self._idle.get(timeout=PATIENCE_SECONDS)
            except Empty:
                if full:
                    continue
                break
            if child.alive():
                return child
            self._end(child)  # killed from outside, for one
            break
        return self._start()

    def _start(self) -> "_Child":
        if self._closed:
            raise RuntimeError("the decoders are closed")
        child = _Child(self.limits.megabytes)
        with self._lock:
            self._children.add(child)
            closed = self._closed
        if closed:  # by another thread, in the meantime
            self._end(child)
        return child

    def _end(self, child: "_Child") -> None:
        with self._lock:
            self._children.discard(child)
        child.end()


class _LostError(Exception):
    """The process did not come through a job.

    may_be_anothers: whether an earlier job of that process may be why.
    """

    def __init__(self, reason: str, *, may_be_anothers: bool) -> None:
        super().__init__(reason)
        self.reason, self.may_be_anothers = reason, may_be_anothers


class _Child:
    """One process that decodes one file after the other."""

    def __init__(self, megabytes: int) -> None:
        self._megabytes, self.jobs = megabytes, 0
        self._mine, theirs = Pipe()
        ends, self._life = (
            os.pipe()
        )  # it ends itself when this process is no more, whatever it does
        paths = json.dumps([p for p in sys.path if p])
        numbers = [str(n) for n in (theirs.fileno(), ends, megabytes)]
        with tempfile.TemporaryFile() as said:
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-c", _MAIN, paths, *numbers],
                    pass_fds=(theirs.fileno(), ends),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=said,
                    start_new_session=True,  # Ctrl-C and Ctrl-Z are for the run
                    env={**os.environ, **dict.fromkeys(_ONE_THREAD, "1")},
                )
            except OSError as error:
                self._mine.close()
                os.close(self._life)
                raise UserError(
                    f"no process can be started to decode clips ({error.strerror}): "
                    "close other programs; what was done is kept"
                ) from None
            finally:
                theirs.close()
                os.close(ends)
            try:
                started = self._answer(START_SECONDS) is not None
            except (OSError, EOFError):
                started = False
            if not started:
                self.end()
                said.seek(0)
                lines = said.read().decode(errors="replace").strip().splitlines()
                raise UserError(
                    "the process that decodes clips does not start "
                    f"({lines[-1][:200] if lines else 'it says nothing'}): what was done is kept"
                )

    def do(self, job: dict[str, Any], seconds: float) -> dict[str, Any]:
        """The reply to a job. Raises _LostError when there is none in so many seconds, or never."""
        self.jobs += 1
        try:
            self._mine.send_bytes(json.dumps(job).encode())
            reply = self._answer(seconds)
        except (OSError, EOFError):
            raise _LostError(self._end_in_words(), may_be_anothers=True) from None
        if reply is None:
            raise _LostError(
                f"took longer than {seconds:g} s to decode (see --clip-seconds)",
                may_be_anothers=False,
            )
        if reply.get("memory"):
            raise _LostError(
                f"needed more than {self._megabytes:,} MB to decode (see --clip-memory)",
                may_be_anothers=True,
            )
        return reply

    def _answer(self, seconds: float) -> dict[str, Any] | None:
        """None when there is none in time. Raises EOFError or OSError when there never will be one."""
        # Asked once more: a program that was stopped meanwhile (Ctrl-Z) has lost the time, not the answer.
        if not self._mine.poll(seconds) and not self._mine.poll(0):
            return None
        return dict(json.loads(self._mine.recv_bytes(_LARGEST_REPLY)))

    def alive(self) -> bool:
        return self._process.poll() is None

    def _end_in_words(self) -> str:
        code = self._process.wait()
        if code == -signal.SIGKILL:
            return "the decoder was killed (signal 9), perhaps because memory ran out"
        return f"the decoder crashed ({f'signal {-code}' if code < 0 else f'exit code {code}'})"

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        self._mine.close()
        if self._life >= 0:
            os.close(self._life)
            self._life = -1
