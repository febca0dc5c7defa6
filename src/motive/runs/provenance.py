"""What made a run: versions, revision, the memory and seconds of its stages."""

import json
import os
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


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a whole file or nothing."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


class StageLog:
    """Seconds and peak memory of each stage, added up over all times that the run was worked on."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, dict[str, float]]:
        return json.loads(self.path.read_text()) if self.path.is_file() else {}

    @contextmanager
    def measure(self, stage: str) -> Iterator[dict[str, float]]:
        """Measures the block; the block may set `done` and `failed` in what it is given."""
        _reset_peak_memory()
        start = time.monotonic()
        counts: dict[str, float] = {"done": 0, "failed": 0}
        try:
            yield counts
        finally:
            log: dict[str, Any] = self.read()
            entry = log.setdefault(stage, {"seconds": 0.0, "peak_mb": 0.0, "done": 0, "failed": 0})
            entry["seconds"] = round(entry["seconds"] + time.monotonic() - start, 3)
            entry["peak_mb"] = max(entry["peak_mb"], round(peak_memory_mb(), 1))
            entry["done"] += counts["done"]
            entry["failed"] += counts["failed"]
            write_atomically(self.path, json.dumps(log, indent=1) + "\n")


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
