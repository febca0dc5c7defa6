"""The process that `motive.clips.isolation` starts: decodes files that it is told of, until nobody asks.

It may read files and answer; it writes none, leaves no core, and lives no longer than who started it.
"""

import json
import os
import resource
import threading
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from motive.clips.decoding import content_digest, decode_clip
from motive.clips.sampling import FrameSampler
from motive.errors import ClipError


def main(connection: int, life: int, megabytes: int) -> None:
    """Answer jobs until the other side is gone.

    connection, life: file descriptors: of the jobs and their replies, and one that ends with the parent.
    megabytes: of memory that a job may take.
    """
    # Loaded before the limit is set, so that it is one on the clips alone.
    import av  # noqa: F401
    import cv2

    cv2.setNumThreads(1)
    threading.Thread(target=_end_with, args=(life,), daemon=True).start()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what libraries print of broken files
    for limit in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE):
        resource.setrlimit(limit, (0, 0))
    at_rest = _address_space()
    jobs = Connection(connection)
    jobs.send_bytes(b"{}")
    while True:
        try:
            job = json.loads(jobs.recv_bytes())
        except (EOFError, OSError):
            return
        sampler = FrameSampler(**job["sampler"])
        # The frames that are kept, and once more while they are put together.
        kept = 2 * 3 * sampler.max_frames * sampler.height * sampler.width
        _limit_memory(at_rest, megabytes * 2**20 + kept)
        reply = json.dumps(_reply(Path(job["path"]), sampler)).encode()
        _limit_memory(at_rest, None)
        jobs.send_bytes(reply)


def _reply(path: Path, sampler: FrameSampler) -> dict[str, Any]:
    try:
        digest = content_digest(path)
        clip = decode_clip(path, sampler)
    except ClipError as error:
        return {"failed": str(error)}
    except MemoryError:
        return {"memory": True}
    except Exception as error:  # one clip's fault, whatever library it trips
        text = str(error).strip().splitlines()
        if "insufficient memory" in str(error).lower():
            return {"memory": True}
        return {"failed": f"{type(error).__name__}: {text[0] if text else ''}"[:300]}
    facts = {
        "digest": digest,
        "frames": len(clip.frames_fhw3),
        "fps": clip.fps,
        "source_fps": clip.source_fps,
        "source_height": clip.source_height,
        "source_width": clip.source_width,
        "codec": clip.codec,
    }
    return {"facts": facts}


def _end_with(life: int) -> None:
    """End this process when the other end of `life` is closed, be it in the middle of a clip."""
    with suppress(OSError):
        os.read(life, 1)
    os._exit(0)


def _address_space() -> int | None:
    """Bytes of address space that this process has; None where the system does not tell (not Linux)."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def _limit_memory(at_rest: int | None, more: int | None) -> None:
    if at_rest is None:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = hard if more is None else at_rest + more
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_AS, (wanted, hard))
