"""`motive` as a user runs it: another process, its exit code and what it printed."""

import gc
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

# What a command imports on its way. The fork server has them ready, so that a test of twenty commands
# does not import torch and diffusers twenty times. Nothing here starts a thread or touches a file.
PRELOADED = [
    "motive.cli",
    "motive.pipeline",
    "motive.backbones.wan",
    "motive.gradients.stage",
    "motive.web.run_report",
    "motive.motion.dis",
    "pandas",
]
KILLED = -9


@dataclass(frozen=True)
class Outcome:
    """What is left of a command. code: negative for the signal that ended it."""

    code: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """The one sentence of a refused command; fails unless that is what the outcome is."""
        assert self.code == 2, f"exit code {self.code}\n{self.out}\n{self.err}"
        lines = self.err.splitlines()
        assert len(lines) == 1, f"not one line but {len(lines)}:\n{self.err}"
        assert lines[0].startswith("motive: "), self.err
        assert self.out == "", self.out
        return lines[0].removeprefix("motive: ")

    def succeeded(self) -> "Outcome":
        """Itself; fails with what was printed unless the exit code is 0."""
        assert self.code == 0, f"exit code {self.code}\n{self.out}\n{self.err}"
        return self


@dataclass(frozen=True)
class SignalAt:
    """A signal that a command gives itself: always in the same place, however fast the machine is.

    event: of Python's audit events, whose first argument is a path (`open`, `os.rename`).
    count: the how manieth such event, from 1, of a path with this ending.
    """

    event: str
    count: int
    signal: int = signal.SIGKILL
    ending: str = ""


class Started:
    """A command that runs."""

    def __init__(self, process: BaseProcess, out: Path, err: Path) -> None:
        self.process, self._out, self._err = process, out, err

    def kill_after(self, seconds: float) -> Outcome:
        """SIGKILL after so many seconds, unless it ended by itself before."""
        self.process.join(seconds)
        self.process.kill()
        return self.outcome()

    def outcome(self, timeout: float = 300) -> Outcome:
        """Wait for its end. Fails when there is none in `timeout` seconds."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.process.kill()
            raise AssertionError(f"no end after {timeout} s:\n{self._err.read_text()}")
        return Outcome(
            self.process.exitcode,
            self._out.read_text(errors="replace"),
            self._err.read_text(errors="replace"),
        )


class Terminal:
    """Runs commands, each in a process of its own that a warm server forks.

    The process has the exit code, the two streams and the signals of a real one; only the imports were
    done before. `in_python` runs the same without the server.

    streams: a folder for what the commands print.
    """

    def __init__(self, streams: Path) -> None:
        self._streams = streams
        self._count = 0
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(PRELOADED)

    def start(
        self,
        *words: object,
        largest_file: int | None = None,
        signal_at: SignalAt | None = None,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> Started:
        """Begin a command.

        largest_file: RLIMIT_FSIZE in bytes: a longer file cannot be written, as on a full disk.
        environment: added to the server's. folder: where the command is given; None is the server's.
        """
        self._count += 1
        out, err = (self._streams / f"{self._count}.{name}" for name in ("out", "err"))
        for stream in (out, err):
            stream.touch()  # a command may be killed before it has said anything
        text = [str(word) for word in words]
        arguments = (text, str(out), str(err), largest_file, signal_at, environment, folder)
        process = self._context.Process(target=_command, args=arguments)
        process.start()
        return Started(process, out, err)

    def __call__(
        self,
        *words: object,
        largest_file: int | None = None,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> Outcome:
        return self.start(
            *words, largest_file=largest_file, environment=environment, folder=folder
        ).outcome()


def _command(
    words: list[str],
    out: str,
    err: str,
    largest_file: int | None,
    signal_at: SignalAt | None,
    environment: Mapping[str, str] | None,
    folder: Path | None,
) -> None:
    for stream, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), stream)
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # ignored where tests run in background
    os.environ.update(environment or {})
    if folder is not None:
        os.chdir(folder)
    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    if signal_at is not None:
        _arm(signal_at)
    gc.freeze()  # the command's own collections need not walk through what was imported before it
    from motive.cli import main

    main(words)


def _arm(signal_at: SignalAt) -> None:
    seen = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        if event == signal_at.event and str(arguments[0]).endswith(signal_at.ending):
            seen += 1
            if seen == signal_at.count:
                os.kill(os.getpid(), signal_at.signal)

    sys.addaudithook(hook)


def in_python(words: Sequence[object], *, threads: int = 1, timeout: float = 300) -> Outcome:
    """`python -m motive.cli` with these words, in a fresh interpreter."""
    command = [sys.executable, "-m", "motive.cli", *(str(word) for word in words)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        # Threads that spin while they wait take the other processes' cores from them.
        env={**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"},
    )
    return Outcome(done.returncode, done.stdout, done.stderr)
