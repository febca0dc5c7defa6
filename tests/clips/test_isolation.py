"""Decoding in processes of their own: what a file does to its decoder is that file's failure alone."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from motive.clips.decoding import content_digest, decode_clip
from motive.clips.ingest import IngestStage, file_key
from motive.clips.isolation import Decoders, DecodingLimits
from motive.clips.sampling import FrameSampler
from motive.errors import ClipError
from motive.runs.engine import run_local
from motive.runs.progress import Progress
from motive.runs.store import FAILURE_SCHEMA
from motive.runs.tables import Table
from motive.zoo.render import write_mp4

SAMPLER = FrameSampler(max_frames=9, height=32, width=32, length_step=4)


@pytest.fixture
def decoders() -> Iterator[Decoders]:
    made = Decoders(DecodingLimits(seconds=60, processes=1))
    yield made
    made.close()


@pytest.fixture
def clip(zoo: Path) -> Path:
    return zoo / "clips/000000.mp4"


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    """To open it is to wait for a writer, and there is none: a decoder that hangs."""
    os.mkfifo(tmp_path / "pipe.mp4")
    return tmp_path / "pipe.mp4"


def pids(decoders: Decoders) -> list[int]:
    return [child._process.pid for child in decoders._children]


def examine_beside(decoders: Decoders, file: Path) -> tuple[threading.Thread, list[str]]:
    """A thread that examines the file, and where it puts the reason if that fails."""
    said: list[str] = []

    def examine() -> None:
        try:
            decoders.examine(file, SAMPLER)
        except ClipError as error:
            said.append(str(error))

    thread = threading.Thread(target=examine)
    thread.start()
    return thread, said


def wait_for_process(decoders: Decoders) -> int:
    """The process that is at work in another thread."""
    for _ in range(600):
        if found := [c._process.pid for c in list(decoders._children) if c.jobs]:
            return found[0]
        time.sleep(0.05)
    raise AssertionError("no process was started")


def test_the_facts_are_those_of_decoding_in_this_process(decoders: Decoders, clip: Path) -> None:
    facts, decoded = decoders.examine(clip, SAMPLER), decode_clip(clip, SAMPLER)
    assert facts.digest == content_digest(clip)
    assert facts.frames == len(decoded.frames_fhw3)
    for name in ("fps", "source_fps", "source_height", "source_width", "codec"):
        assert getattr(facts, name) == getattr(decoded, name)


def test_one_process_serves_many_clips(decoders: Decoders, zoo: Path) -> None:
    for path in sorted(zoo.glob("clips/*.mp4")):
        decoders.examine(path, SAMPLER)
    assert len(pids(decoders)) == 1


def test_a_file_that_is_no_clip_has_its_reason(decoders: Decoders, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("no video")
    with pytest.raises(ClipError, match=r"^not a readable media file"):
        decoders.examine(tmp_path / "a.mp4", SAMPLER)


def test_a_decoder_that_hangs_is_replaced(clip: Path, pipe: Path) -> None:
    decoders = Decoders(DecodingLimits(seconds=1.0, processes=1))
    with pytest.raises(ClipError, match=r"^took longer than 1 s to decode \(see --clip-seconds\)$"):
        decoders.examine(pipe, SAMPLER)
    assert pids(decoders) == []
    decoders.limits = DecodingLimits(seconds=60, processes=1)
    assert decoders.examine(clip, SAMPLER).frames == 9
    decoders.close()


def test_a_decoder_that_crashes_fails_its_clip_and_no_other(
    decoders: Decoders, clip: Path, pipe: Path
) -> None:
    thread, said = examine_beside(decoders, pipe)
    os.kill(wait_for_process(decoders), signal.SIGSEGV)
    thread.join(60)
    assert said == ["the decoder crashed (signal 11)"]
    assert decoders.examine(clip, SAMPLER).frames == 9


def test_a_process_that_was_killed_between_two_clips_costs_nothing(
    decoders: Decoders, clip: Path
) -> None:
    decoders.examine(clip, SAMPLER)
    os.kill(pids(decoders)[0], signal.SIGKILL)
    assert decoders.examine(clip, SAMPLER).frames == 9


def test_a_crash_in_a_used_process_is_tried_again_in_a_fresh_one(
    decoders: Decoders, clip: Path, pipe: Path
) -> None:
    """An earlier clip may have harmed the process; only a fresh one's end is the clip's own."""
    decoders.examine(clip, SAMPLER)
    used = pids(decoders)[0]
    thread, said = examine_beside(decoders, pipe)
    time.sleep(0.2)
    os.kill(used, signal.SIGSEGV)
    fresh = used
    while fresh == used:
        fresh = wait_for_process(decoders)
    assert said == []
    os.kill(fresh, signal.SIGABRT)
    thread.join(60)
    assert said == ["the decoder crashed (signal 6)"]


@pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="the kernel limits memory on Linux"
)
def test_a_clip_that_needs_too_much_memory_is_refused(tmp_path: Path, clip: Path) -> None:
    write_mp4(tmp_path / "large.mp4", np.zeros((5, 2160, 3840, 3), np.uint8), 8)
    decoders = Decoders(DecodingLimits(megabytes=60, processes=1))
    with pytest.raises(
        ClipError, match=r"^needed more than 60 MB to decode \(see --clip-memory\)$"
    ):
        decoders.examine(tmp_path / "large.mp4", SAMPLER)
    assert decoders.examine(clip, SAMPLER).frames == 9
    decoders.limits = DecodingLimits(megabytes=2048, processes=1)
    decoders.close()
    enough = Decoders(DecodingLimits(processes=1))
    assert enough.examine(tmp_path / "large.mp4", SAMPLER).source_width == 3840
    enough.close()


def test_decoders_end_with_the_process_that_started_them(pipe: Path) -> None:
    program = f"""
import threading, time
from pathlib import Path
from motive.clips.isolation import Decoders, DecodingLimits
from motive.clips.sampling import FrameSampler
decoders = Decoders(DecodingLimits(seconds=600, processes=1))
sampler = FrameSampler(max_frames=9, height=32, width=32)
threading.Thread(target=decoders.examine, args=(Path({str(pipe)!r}), sampler), daemon=True).start()
while not [c for c in list(decoders._children) if c.jobs]:
    time.sleep(0.05)
print(next(iter(decoders._children))._process.pid, flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        os.kill(child, 0)
        parent.kill()
    for _ in range(600):
        if not Path(f"/proc/{child}").exists() or is_dead(child):
            return
        time.sleep(0.05)
    raise AssertionError("the decoder outlived its parent")


def is_dead(pid: int) -> bool:
    try:
        return " Z " in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True


def test_a_run_goes_on_after_a_clip_that_hangs(zoo: Path, pipe: Path, tmp_path: Path) -> None:
    paths = [zoo / "clips/000000.mp4", pipe, *sorted(zoo.glob("clips/*.mp4"))[1:6]]
    stage = IngestStage(SAMPLER, DecodingLimits(seconds=3.0, processes=2))
    results = Table(tmp_path / "files.lance", stage.schema)
    failures = Table(tmp_path / "failures.lance", FAILURE_SCHEMA)
    rows = [{"key": file_key(path), "path": str(path)} for path in paths]
    before = threading.active_count()
    ran = run_local(stage, rows, len(rows), results, failures, Progress(quiet=True))
    assert (ran.done, ran.failed) == (6, 1)
    assert [row["key"] for row in results.rows()] == [r["key"] for r in rows if r is not rows[1]]
    assert [row["reason"] for row in failures.rows()] == [
        "took longer than 3 s to decode (see --clip-seconds)"
    ]
    assert threading.active_count() < before + 8  # Lance keeps some of its own
