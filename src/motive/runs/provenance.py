"""What made a run: versions, revision, the memory and seconds of its stages."""

import json
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from motive.runs.locks import locked
from motive.runs.processes import is_leftover
from motive.runs.remote import RemotePath, RunPath, whole_file

_PACKAGES = (
    "torch",
    "diffusers",
    "transformers",
    "av",
    "opencv-python-headless",
    "pylance",
    "numba",
)


def versions() -> dict[str, str]:
    """Version of Python and of every package that the numbers depend on."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def revision() -> str | None:
    """The git revision of a source checkout; None for an installed package."""
    here = Path(__file__).resolve().parent
    # Asked for this very file too: an environment may lie inside somebody else's checkout.
    command = ["git", "-C", str(here), "rev-parse", "HEAD", f"HEAD:./{Path(__file__).name}"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.split()[0] if answer.returncode == 0 else None


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def write_atomically(path: RunPath, content: str | bytes) -> None:
    """Write a whole file or nothing."""
    data = content.encode() if isinstance(content, str) else content
    if isinstance(path, RemotePath):
        path.write_bytes(data)
        return
    with whole_file(path) as part:
        part.write_bytes(data)


def remove_leftovers(folder: RunPath) -> None:
    """Remove the files that killed processes of this host left half-written in `folder`.

    Those of other hosts' processes stay, which may be in the middle of writing (`motive check` names them).
    """
    if isinstance(folder, RemotePath):
        return  # an object is there whole or not at all
    for part in folder.glob(".*.part"):
        if is_leftover(part.name):
            part.unlink(missing_ok=True)


class StageLog:
    """Seconds and peak memory of each stage, added up over all times that the run was worked on, and the
    rows that it has done and failed.
    """

    def __init__(self, path: RunPath) -> None:
        self.path = path

    def read(self) -> dict[str, dict[str, float]]:
        return json.loads(self.path.read_text()) if self.path.is_file() else {}

    @contextmanager
    def measure(self, stage: str) -> Iterator["Measurement"]:
        """Measures the block, which may say what it did in what it is given.

        What a killed process left half-written in the log's folder is removed first.
        """
        remove_leftovers(self.path.parent)
        measurement = Measurement(self, stage)
        try:
            yield measurement
        finally:
            measurement.save()


class Measurement:
    """One time that a stage is worked on.

    done, failed: rows of the stage, of all times; None leaves what the log says.
    """

    def __init__(self, log: StageLog, stage: str) -> None:
        self._log, self._stage = log, stage
        self.done: int | None = None
        self.failed: int | None = None
        _reset_peak_memory()
        self._since = time.monotonic()

    def save(self) -> None:
        """Write down what was done up to now, so that a kill loses no more than what comes after."""
        # Other processes add their seconds to the same file.
        with locked(self._log.path.parent / "claims" / "log.lock"):
            self._save()

    def _save(self) -> None:
        log: dict[str, Any] = self._log.read()
        entry = log.setdefault(
            self._stage, {"seconds": 0.0, "peak_mb": 0.0, "done": 0, "failed": 0}
        )
        since, self._since = self._since, time.monotonic()
        entry["seconds"] = round(entry["seconds"] + self._since - since, 3)
        entry["peak_mb"] = max(entry["peak_mb"], round(peak_memory_mb(), 1))
        entry["done"] = entry["done"] if self.done is None else self.done
        entry["failed"] = entry["failed"] if self.failed is None else self.failed
        write_atomically(self._log.path, json.dumps(log, indent=1) + "\n")


def _reset_peak_memory() -> None:
    """Start a new peak where the kernel can (Linux); elsewhere the peak is the process's so far."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mb() -> float:
    """Largest resident memory of this process, in MB, since the last reset."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
