"""Who a process is, among all that work on a run on this machine and on others."""

import hashlib
import os
import re
import socket
import subprocess
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class ProcessName:
    """A process among all that ever ran: its number alone is given to another one day.

    host: the machine since it was started, and the container; processes of one host see each other.
    started: in ticks since then; empty where the system does not tell.
    """

    host: str
    pid: int
    started: str

    def as_dict(self) -> dict[str, str | int]:
        return asdict(self)

    @staticmethod
    def of(values: dict[str, object]) -> "ProcessName":
        """Raises KeyError or ValueError when `values` is no such name."""
        return ProcessName(str(values["host"]), int(str(values["pid"])), str(values["started"]))


def this_process() -> ProcessName:
    return ProcessName(this_host(), os.getpid(), _started(os.getpid()))


def is_gone(process: ProcessName) -> bool | None:
    """Whether a process has ended; None when it is another host's and cannot be asked for."""
    if process.host != this_host():
        return None
    return not _runs(process.pid) or _started(process.pid) != process.started


def _runs(pid: int) -> bool:
    """Whether there is a process of this number, be it somebody else's."""
    try:
        os.kill(pid, 0)  # signal 0 is only asked for, not sent
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


@cache
def this_host() -> str:
    """Of this machine since its start and of this container: 12 hexadecimal digits."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text())
    with suppress(OSError):
        parts.append(str(os.stat("/proc/self/ns/pid").st_ino))
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=6).hexdigest()


def _started(pid: int) -> str:
    """When a process was started, in a form that only compares; empty when there is none."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        if Path("/proc/self/stat").exists():
            return ""
        asked = ["ps", "-o", "lstart=", "-p", str(pid)]
        try:
            return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
        except OSError:
            return ""
    # The name of the program, in brackets, may hold spaces and brackets of its own.
    fields = status.rpartition(")")[2].split()
    state, started = fields[0], fields[19]
    return "" if state in "ZX" else started


_PART = re.compile(r"\..+\.([0-9]{1,9})(?:-([0-9a-f]{12}))?\.part")


def part_name(name: str) -> str:
    """What a file is called that becomes `name` when it is whole: it names the process that writes it."""
    return f".{name}.{os.getpid()}-{this_host()}.part"


def is_leftover(part: str) -> bool:
    """Whether a file of this name was left half-written by a process of this host that is gone.

    Older names have no host and are taken for this one's. Of another host's process nothing is known.
    """
    match = _PART.fullmatch(part)
    if match is None or match[2] not in (None, this_host()):
        return False
    pid = int(match[1])
    # In a container the process that was killed may have had this one's number.
    return not _runs(pid) or pid == os.getpid()
