"""Broken files through ingest and track: mutated media and metadata, at least 10,000 of them.

    python benchmarks/fuzz.py --clips ../shared/clips --cases 10000 --json fuzz.json

Cases are mutations, by a seeded generator, of real clips (`--clips`) and of small ones written here, and of
metadata tables and tars. Each batch of media is a real run directory that the product's own stages, engine
and tables work through; each metadata case is read as a dataset. Every batch runs in a process of its own,
so that a crash of the product would be counted and not end the campaign. Results are appended to
`WORK/cases.jsonl` batch by batch: the same command goes on where it was.
"""

import argparse
import io
import json
import multiprocessing
import os
import random
import re
import resource
import shutil
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

BATCH = 500
TABLE_SHARE = 0.3  # of the cases
LARGEST_BASE = 300_000  # bytes of a clip that is mutated; larger ones give their first bytes
CLIP_SECONDS, CLIP_MEMORY = 20.0, 512  # tighter than the product's own limits
BATCH_SECONDS = 3600.0  # without an end by then the parent hangs
FRAMES, SIZE = 5, 32


@dataclass(frozen=True)
class Case:
    """What became of one file. stage: the one that it failed in, or `ok`."""

    number: int
    kind: str
    base: str
    stage: str
    reason: str


# Mutations of bytes.


def flip_bits(data: bytearray, chance: random.Random) -> None:
    for _ in range(chance.choice((1, 3, 10, 100))):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def truncate(data: bytearray, chance: random.Random) -> None:
    del data[chance.randrange(len(data)) :]


def swap_chunks(data: bytearray, chance: random.Random) -> None:
    size = chance.randrange(1, max(2, len(data) // 4))
    a, b = (chance.randrange(max(1, len(data) - size)) for _ in range(2))
    data[a : a + size], data[b : b + size] = data[b : b + size], data[a : a + size]


def double_chunk(data: bytearray, chance: random.Random) -> None:
    start = chance.randrange(len(data))
    part = data[start : start + chance.randrange(1, 4096)]
    where = chance.randrange(len(data))
    data[where:where] = part * chance.choice((1, 1, 2, 50))


def zero_chunk(data: bytearray, chance: random.Random) -> None:
    start, size = chance.randrange(len(data)), chance.randrange(1, 2048)
    data[start : start + size] = bytes(len(data[start : start + size]))


def random_chunk(data: bytearray, chance: random.Random) -> None:
    start, size = chance.randrange(len(data)), chance.randrange(1, 512)
    data[start : start + size] = chance.randbytes(len(data[start : start + size]))


_EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x4000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_BOXES = re.compile(
    rb"moov|trak|mdia|minf|stbl|stsd|stsz|stco|stts|stss|ctts|stsc|elst|edts|tkhd|mvhd|mdhd|avc1|avcC|hvc1|"
    rb"mdat|avih|strh|strf|idx1|movi|RIFF|LIST|GIF8|\x1a\x45\xdf\xa3|\x16\x54\xae\x6b|\x1f\x43\xb6\x75"
)


def extreme_header(data: bytearray, chance: random.Random) -> None:
    """A number near a box's name, or in the first bytes, becomes as large or small as it can."""
    boxes = [m.start() for m in _BOXES.finditer(data)]
    for _ in range(chance.choice((1, 1, 2, 5))):
        near = chance.choice(boxes) if boxes else 0
        where = max(0, near + chance.choice((-4, 4, 8, 12, 16, 20, 24, 28, 32, 76, 80, 84)))
        width = chance.choice((1, 2, 4, 8))
        value = chance.choice(_EXTREMES) & ((1 << 8 * width) - 1)
        order = chance.choice(("little", "big"))
        data[where : where + width] = value.to_bytes(width, order)


MUTATIONS: tuple[Callable[[bytearray, random.Random], None], ...] = (
    flip_bits, truncate, swap_chunks, double_chunk, zero_chunk, random_chunk, extreme_header,
)  # fmt: skip


def mutate(bases: list[tuple[str, bytes]], chance: random.Random) -> tuple[str, str, bytes]:
    """Kind, base and bytes of a case."""
    name, content = chance.choice(bases)
    if chance.random() < 0.1:
        other, more = chance.choice(bases)
        cut = chance.randrange(len(content))
        return "splice", f"{name}+{other}", content[:cut] + more[chance.randrange(len(more)) :]
    data = bytearray(content)
    change = chance.choice(MUTATIONS)
    change(data, chance)
    kind = change.__name__
    if data and chance.random() < 0.25:
        again = chance.choice(MUTATIONS)
        again(data, chance)
        kind += f"+{again.__name__}"
    return kind, name, bytes(data)


# What is mutated.


def media_bases(clips: Path, work: Path) -> list[tuple[str, bytes]]:
    """Real clips, the small ones whole, and clips of 16 to 64 pixels written here."""
    bases = []
    for path in sorted(clips.iterdir()):
        if path.suffix.lower() in {".mp4", ".mov", ".mkv", ".webm", ".avi", ".gif"}:
            with path.open("rb") as file:
                content = file.read(LARGEST_BASE)
            if content:
                bases.append((path.name, content))
    for path in write_small_clips(work / "bases"):
        # As often as the real ones, and shorter: most mutations hit their headers.
        bases += [(path.name, path.read_bytes())] * 4
    return bases


def write_small_clips(folder: Path) -> list[Path]:
    """Clips in every container and codec that the installed PyAV can write."""
    import av
    import numpy as np

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for suffix, codec, size in (
        ("mp4", "libx264", 64), ("mp4", "mpeg4", 32), ("mov", "libx264", 32), ("mkv", "libx264", 32),
        ("webm", "libvpx", 32), ("webm", "libvpx-vp9", 64), ("avi", "mjpeg", 32), ("avi", "mpeg4", 16),
        ("gif", "gif", 32), ("mpg", "mpeg2video", 64), ("mkv", "ffv1", 16), ("mp4", "libx265", 64),
    ):  # fmt: skip
        path = folder / f"small_{codec}_{size}.{suffix}"
        frames = np.random.default_rng(0).integers(0, 256, (9, size, size, 3), np.uint8)
        try:
            with av.open(str(path), "w") as container:
                stream: Any = container.add_stream(codec, rate=8)
                stream.width = stream.height = size
                stream.pix_fmt = {"gif": "rgb8", "mjpeg": "yuvj420p"}.get(codec, "yuv420p")
                for image in frames:
                    frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                    container.mux(stream.encode(frame))
                container.mux(stream.encode())
        except (av.FFmpegError, ValueError):
            path.unlink(missing_ok=True)
            continue
        written.append(path)
    return written


def table_bases() -> list[tuple[str, bytes]]:
    """Metadata of each kind that names the two clips that lie beside it."""
    import pyarrow as pa
    from pyarrow import parquet

    rows = [
        {"file_name": "a.mp4", "caption": "a ball, bouncing", "motion": "bounce"},
        {"file_name": "b.mp4", "caption": "ein Würfel \u2028 rollt", "motion": "roll"},
    ]
    stored = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(rows * 20), stored)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:", format=tarfile.PAX_FORMAT) as tar:
        for key in ("x/000", "x/001" + "y" * 120):
            for suffix, data in (("mp4", b"no video" * 40), ("txt", b"caption"), ("json", b"{}")):
                member = tarfile.TarInfo(f"{key}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    toml = (
        '[[datasets]]\nvideo_directory = "."\ncaption_extension = ".txt"\ntarget_frames = [1, 5]\n'
    )
    pipe = '[[directory]]\npath = "."\nnum_repeats = 1\n'
    yaml = "config:\n  process:\n    - datasets:\n        - folder_path: .\n          caption_ext: txt\n"
    listed = json.dumps(rows).encode()
    lines = "\n".join(json.dumps(row) for row in rows).encode()
    comma = b'file_name,caption,motion\r\na.mp4,"a ball, bouncing",bounce\r\nb.mp4,rolls,roll\r\n'
    deep = b'[{"file_name": "a.mp4", "caption": ' + b"[" * 3000 + b"]" * 3000 + b"}]"
    return [
        ("metadata.csv", comma), ("metadata.jsonl", lines), ("metadata.json", listed),
        ("metadata.parquet", stored.getvalue()), ("shard.tar", packed.getvalue()),
        ("dataset.toml", toml.encode()), ("pipe.toml", pipe.encode()), ("toolkit.yaml", yaml.encode()),
        ("metadata.json", deep), ("metadata.jsonl", deep[1:-1]),
    ]  # fmt: skip


# The runs.


def run_media(work: Path, clips: Path, seed: int, first: int, count: int) -> list[Case]:
    """A run over `count` mutated clips, through the stages up to tracking."""
    from motive.clips.ingest import IngestStage, file_key
    from motive.clips.isolation import DecodingLimits
    from motive.clips.sampling import FrameSampler
    from motive.motion.track import TrackStage
    from motive.motion.trackers import make_tracker
    from motive.runs.progress import Progress
    from motive.runs.store import Store
    from motive.runs.wanted import Wanted

    folder = work / f"batch-{first}-{os.getpid()}"
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("clips", "run"):
        (folder / name).mkdir(parents=True)
    bases, made = media_bases(clips, work), {}
    for number in range(first, first + count):
        kind, base, content = mutate(bases, random.Random(f"{seed} {number}"))
        path = folder / "clips" / f"{number:06d}{Path(base.split('+')[0]).suffix}"
        path.write_bytes(content)
        made[file_key(path)] = (number, kind, base, path)
    sampler = FrameSampler(FRAMES, SIZE, SIZE, length_step=4)
    ingest = IngestStage(sampler, DecodingLimits(CLIP_SECONDS, CLIP_MEMORY, 1))
    track = TrackStage(make_tracker("dis", None, "cpu"), sampler, 8)
    store, quiet = Store(folder / "run"), Progress(quiet=True)
    wanted = {
        key: {"key": key, "path": str(path), "file_name": path.name}
        for key, (*_, path) in made.items()
    }
    store.work(ingest, Wanted.of(wanted), quiet)
    found = {r["key"]: r["clip_id"] for r in store.results(ingest).rows(ingest.fingerprint())}
    rows = {c: {**wanted[key], "key": c, "file": key} for key, c in found.items()}
    store.work(track, Wanted.of(rows), quiet)
    refused, lost, tracked = store.failed(ingest), store.failed(track), store.done(track)
    cases = []
    for key, (number, kind, base, _) in made.items():
        if key in refused:
            stage, reason = "ingest", refused[key]
        elif found[key] in lost:
            stage, reason = "track", lost[found[key]]
        else:
            stage, reason = "ok", ""
            assert found[key] in tracked, f"case {number} is neither done nor failed"
        cases.append(Case(number, kind, base, stage, reason))
    shutil.rmtree(folder)
    return cases


def run_tables(work: Path, clips: Path, seed: int, first: int, count: int) -> list[Case]:
    """Datasets with mutated metadata, read one after the other as `motive curate` reads them."""
    from motive.clips.formats import read_dataset
    from motive.errors import UserError
    from motive.rows import dataset_entries
    from motive.runs.config import make_config

    bases, cases = table_bases(), []
    for number in range(first, first + count):
        kind, base, content = mutate(bases, random.Random(f"{seed} {number}"))
        folder = work / f"table-{first}-{os.getpid()}"
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "data").mkdir(parents=True)
        for name in ("a.mp4", "b.mp4"):
            (folder / "data" / name).write_bytes(b"not looked into")
        name = base.split("+")[0]
        path = folder / "data" / name
        path.write_bytes(content)
        alone = name.endswith((".toml", ".yaml"))
        source = path if alone else path.parent
        try:
            config = make_config({"clips": str(source), "queries": "q", "model": "m"})
            entries = dataset_entries(config, "clip", folder / "unpacked")
            stage, reason = "ok", f"{sum(e.usable for e in entries)} usable"
            for entry in entries:
                inside = Path(entry.path or path).resolve().is_relative_to(folder.resolve())
                assert inside, f"case {number} reads {entry.path}"
        except UserError as error:
            stage, reason = "refused", str(error)
        if not alone:
            read_dataset_again(read_dataset, path, folder)
        cases.append(Case(number, f"table {kind}", base, stage, reason))
        shutil.rmtree(folder)
    return cases


def read_dataset_again(read: Callable[..., Any], path: Path, folder: Path) -> None:
    """The file itself as the source, not its folder."""
    from motive.errors import UserError

    with suppress(UserError):
        read(path, extract_to=folder / "alone")


def _batch(
    pipe: Any, kind: str, work: Path, clips: Path, seed: int, first: int, count: int
) -> None:
    since = time.monotonic()
    if kind == "media":
        from motive.clips import isolation

        watched = _watch(isolation)
        cases = run_media(work, clips, seed, first, count)
    else:
        watched = {}
        cases = run_tables(work, clips, seed, first, count)
    mine = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    theirs = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    facts = {
        "first": first, "count": count, "kind": kind, "seconds": time.monotonic() - since,
        "parent_peak_mb": mine, "decoder_peak_mb": theirs, **watched,
        "cases": [asdict(case) for case in cases],
    }  # fmt: skip
    pipe.send(facts)


def _watch(isolation: Any) -> dict[str, Any]:
    """Count how decoders end and how long a clip takes at most, by wrapping the real ones."""
    seen = {"slowest_s": 0.0, "decoders_started": 0, "decoders_lost": 0}
    start, do = isolation._Child.__init__, isolation._Child.do

    def counted(self: Any, megabytes: int) -> None:
        seen["decoders_started"] += 1
        start(self, megabytes)

    def timed(self: Any, job: dict[str, Any], seconds: float) -> dict[str, Any]:
        since = time.monotonic()
        try:
            return do(self, job, seconds)  # type: ignore[no-any-return]
        except isolation._LostError:
            seen["decoders_lost"] += 1
            raise
        finally:
            seen["slowest_s"] = max(seen["slowest_s"], time.monotonic() - since)

    isolation._Child.__init__, isolation._Child.do = counted, timed
    return seen


def campaign(
    clips: Path, work: Path, cases: int, seed: int, *, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Run what is not there yet in `work/cases.jsonl`, and sum up.

    Raises SystemExit when `clips` holds no media.
    """
    if not clips.is_dir() or not any(clips.glob("*.mp4")):
        raise SystemExit(f"{clips} holds no clips: give --clips a folder of real videos")
    work.mkdir(parents=True, exist_ok=True)
    log = work / "cases.jsonl"
    there = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    done = {n for batch in there for n in range(batch["first"], batch["first"] + batch["count"])}
    tables = int(cases * TABLE_SHARE)  # the first ones
    context = multiprocessing.get_context("spawn")
    while left := [n for n in range(cases) if n not in done]:
        first, kind = left[0], "table" if left[0] < tables else "media"
        count = min(BATCH, (tables if kind == "table" else cases) - first)
        done.update(range(first, first + count))
        mine, theirs = context.Pipe()
        process = context.Process(
            target=_batch, args=(theirs, kind, work, clips, seed, first, count)
        )
        process.start()
        theirs.close()
        facts: dict[str, Any] = {"first": first, "count": count, "kind": kind}
        try:
            if mine.poll(BATCH_SECONDS):
                facts = mine.recv()
            else:
                facts["parent"] = "hang"
                process.kill()
        except EOFError:
            process.join()
            facts["parent"] = f"crash, exit code {process.exitcode}"
        process.join()
        with log.open("a") as file:
            file.write(json.dumps(facts) + "\n")
        there.append(facts)
        say(f"{kind} {first + count}/{cases}, {facts.get('seconds', 0):.1f} s")
    return summary(there, seed)


def reason_class(case: dict[str, Any]) -> str:
    """The reason without names and numbers."""
    text = re.sub(r"(?<![\w])/\S+", "PATH", case["reason"])
    text = re.sub(r"'[^']*'|\"[^\"]*\"", "'…'", text)
    text = re.sub(r"\(.*\)", "(…)", text)
    return re.sub(r"\d[\d.,×]*", "#", text)[:90]


def summary(batches: list[dict[str, Any]], seed: int) -> dict[str, Any]:
    """The figures of the whole campaign."""
    cases = [case for batch in batches for case in batch.get("cases", ())]
    kinds = Counter(case["kind"].partition("+")[0] for case in cases)
    reasons = Counter(f"{case['stage']}: {reason_class(case)}" for case in cases)

    def most(name: str) -> float:
        return round(max((batch.get(name, 0.0) for batch in batches), default=0.0), 1)

    return {
        "seed": seed,
        "cases": len(cases),
        "media": sum(not case["kind"].startswith("table") for case in cases),
        "tables": sum(case["kind"].startswith("table") for case in cases),
        "outcomes": dict(Counter(case["stage"] for case in cases)),
        "decoder_crashes": sum("decoder crashed" in case["reason"] for case in cases),
        "over_time": sum("took longer than" in case["reason"] for case in cases),
        "over_memory": sum("needed more than" in case["reason"] for case in cases),
        "parent_crashes": sum("crash" in batch.get("parent", "") for batch in batches),
        "parent_hangs": sum("hang" in batch.get("parent", "") for batch in batches),
        "slowest_clip_s": most("slowest_s"),
        "decoder_peak_mb": most("decoder_peak_mb"),
        "parent_peak_mb": most("parent_peak_mb"),
        "decoders_started": sum(batch.get("decoders_started", 0) for batch in batches),
        "seconds": round(sum(batch.get("seconds", 0.0) for batch in batches), 1),
        "limits": {"seconds": CLIP_SECONDS, "megabytes": CLIP_MEMORY},
        "kinds": dict(kinds.most_common()),
        "reasons": dict(reasons.most_common()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--clips", type=Path, default=Path("../shared/clips"))
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("runs/fuzz"))
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found = campaign(given.clips.resolve(), given.work.resolve(), given.cases, given.seed)
    print(json.dumps(found, indent=1, ensure_ascii=False))
    if given.json:
        given.json.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    sys.exit(1 if found["parent_crashes"] or found["parent_hangs"] else 0)


if __name__ == "__main__":
    main()
