"""webdataset: tar shards whose members `KEY.mp4`, `KEY.txt`, `KEY.json` stand together per key.

A key is the member's path up to the first dot of its base name. Tars come from anywhere, so their
members are checked before a byte is written: regular files only, no name that leaves the folder, a
limit on the size. A video is written under a temporary name and renamed when it is whole.
"""

import io
import json
import os
import re
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from motive.clips.formats.dataset import MEDIA_SUFFIXES, Problem
from motive.clips.formats.entries import Entries
from motive.clips.formats.export import Export
from motive.clips.formats.source import Source
from motive.clips.formats.tables import CAPTION_COLUMNS
from motive.errors import UserError

NAME = "webdataset"

#: Only mp4: readers of `datasets` want the same fields in every sample.
CONTAINERS = frozenset({".mp4"})
MAX_VIDEO_BYTES = 8 * 2**30
MAX_TEXT_BYTES = 16 * 2**20
#: A shard is closed when it has this many samples or bytes (the defaults of webdataset's writer).
SHARD_SAMPLES = 100_000
SHARD_BYTES = 3_000_000_000

_MEMBER = re.compile(r"((?:.*/|)[^./]+)[.]([^/]*)", re.DOTALL)
_CAPTION_FIELDS = ("txt", *CAPTION_COLUMNS)


@dataclass
class _Sample:
    """One key's members: the videos, and the small ones by field."""

    key: str
    videos: list[tarfile.TarInfo] = field(default_factory=list)
    texts: dict[str, bytes] = field(default_factory=dict)


def detect(source: Source) -> bool:
    """A tar file, or a folder with tar files in it."""
    if source.is_folder:
        return any(path.suffix.lower() == ".tar" for path in source.files)
    return source.path.suffix.lower() == ".tar"


def read(source: Source, entries: Entries) -> None:
    """One record per sample, its video extracted to `extract_to/SHARD/KEY.mp4`.

    The caption is the member `txt` (else `caption`, `text`, `prompt`), else that field of `json`,
    whose other fields are `extra`. A video is not extracted again while it has the member's size
    and the tar's modification time. Videos that lie in the folder itself follow.

    Raises UserError without `extract_to`, for a file that is no tar, and for an unsafe member.
    """
    if source.extract_to is None:
        raise UserError(f"{source.path} is read from tar files: say where to extract them to.")
    shards = [source.path]
    if source.is_folder:
        shards = [path for path in source.files if path.suffix.lower() == ".tar"]
    for shard in shards:
        place = source.extract_to / PurePosixPath(entries.relative(shard)).with_suffix("")
        _add_shard(entries, shard, place)
    if source.is_folder:
        entries.add_rest(source)


def write(export: Export) -> str:
    """`shards/000000.tar`, ...; each sample `KEY.mp4`, `KEY.txt`, `KEY.json` (rank, scores).

    The members have no owner and no date, so equal clips make equal shards. In their own folder,
    because `datasets` takes every file beside them for a shard.
    """
    count = size = 0
    number = 0
    shard: tarfile.TarFile | None = None
    try:
        for clip, stem, path in export.sources(CONTAINERS):
            length = path.stat().st_size
            full = count >= SHARD_SAMPLES or (count and size + length > SHARD_BYTES)
            if shard is None or full:
                if shard is not None:
                    shard.close()
                target = export.folder / f"shards/{number:06d}.tar"
                target.parent.mkdir(exist_ok=True)
                shard = tarfile.open(target, "x:", format=tarfile.PAX_FORMAT)  # noqa: SIM115
                number, count, size = number + 1, 0, 0
            about = {"rank": clip.rank, "source": clip.file_name, "scores": dict(clip.scores)}
            with path.open("rb") as video:
                _add_member(shard, f"{stem}.mp4", video, length)
            for suffix, data in (
                ("txt", clip.caption.encode()),
                ("json", json.dumps(about).encode()),
            ):
                _add_member(shard, f"{stem}.{suffix}", io.BytesIO(data), len(data))
            count, size = count + 1, size + length
    finally:
        if shard is not None:
            shard.close()
    if export.link:
        export.notes.append("a tar holds no links: the clips were copied into it")
    last = f"{{000000..{number - 1:06d}}}" if number > 1 else "000000"
    return (
        "```python\nimport webdataset\n"
        f"dataset = webdataset.WebDataset({f'{export.out}/shards/{last}.tar'!r}).decode()\n```\n"
    )


def _add_member(shard: tarfile.TarFile, name: str, data: io.IOBase, size: int) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = size, 0o644
    shard.addfile(member, data)


class _Piecewise(io.FileIO):
    """A tar that is not read in large pieces: a header may call a name or its extensions gigabytes long."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or size < 0 or size > MAX_TEXT_BYTES + tarfile.BLOCKSIZE:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return super().read(size)


def _add_shard(entries: Entries, shard: Path, place: Path) -> None:
    if not shard.is_file():
        raise UserError(f"{shard} is no regular file: put a tar there, or take it away.")
    try:
        stamp = int(shard.stat().st_mtime)
        with _Piecewise(shard) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for sample in _samples(tar, shard):
                if not sample.videos:
                    where = f"{shard.name}, {sample.key}"
                    entries.problems.append(Problem(where, "is a sample without a video"))
                for index, member in enumerate(sample.videos):
                    path = place / member.name
                    caption, extra, fault = _about(sample)
                    if index:
                        fault = f"is a further video of the sample {sample.key}"
                    if not fault and not entries.has(path):
                        _extract(tar, member, path, stamp)
                    entries.add_file(path, caption=caption, extra=extra, fault=fault)
    except (tarfile.TarError, EOFError) as error:
        raise UserError(f"{shard} is not a whole tar file ({error}): get it again.") from error
    except OSError as error:
        raise UserError(
            f"{shard} cannot be extracted to {place} ({error.strerror or error}): check both."
        ) from error


def _samples(tar: tarfile.TarFile, shard: Path) -> Iterator[_Sample]:
    """The samples in order; members of one key that do not stand together make several."""
    sample: _Sample | None = None
    for member in tar:
        _check(member, shard)
        name = PurePosixPath(member.name)
        match = _MEMBER.fullmatch(str(name))
        if not member.isreg() or match is None:
            continue
        key, suffix = match[1], match[2].lower()
        if sample is None or sample.key != key:
            if sample is not None:
                yield sample
            sample = _Sample(key)
        if name.suffix.lower() in MEDIA_SUFFIXES:
            sample.videos.append(member)
        elif suffix in (*_CAPTION_FIELDS, "json"):
            if member.size > MAX_TEXT_BYTES:
                raise UserError(f"{shard} has a text of {member.size} bytes ({name}): remove it.")
            data = tar.extractfile(member)
            sample.texts[suffix] = data.read() if data else b""
    if sample is not None:
        yield sample


def _check(member: tarfile.TarInfo, shard: Path) -> None:
    """Raises UserError for a member that no honest shard has."""
    name = member.name
    parts = name.replace("\\", "/").split("/")
    if "\0" in name or name.startswith(("/", "\\")) or ".." in parts or re.match("[A-Za-z]:", name):
        raise UserError(f"{shard} has a member that points outside ({name!r}): do not use it.")
    if not (member.isreg() or member.isdir()) or member.issparse():
        raise UserError(
            f"{shard} has a member that is no regular file ({name!r}): pack it again without links."
        )
    if member.size > MAX_VIDEO_BYTES:
        raise UserError(f"{shard} has a member of {member.size} bytes ({name!r}): cut that video.")


def _about(sample: _Sample) -> tuple[object, dict[str, object], str | None]:
    """Caption, extra and fault of a sample."""
    try:
        value = json.loads(sample.texts["json"]) if "json" in sample.texts else {}
        about: dict[str, object] = value if isinstance(value, dict) else {"json": value}
        for name in _CAPTION_FIELDS:
            if name in sample.texts:
                return sample.texts[name].decode(), about, None
    except (ValueError, RecursionError) as error:
        return "", {}, f"has text in its shard that cannot be read: {error}"
    column = next((name for name in CAPTION_COLUMNS if name in about), None)
    return about.pop(column) if column else "", about, None


def _extract(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path, stamp: int) -> None:
    """Streams one member to `path`, which is either absent or whole at any time."""
    if path.is_file() and not path.is_symlink():
        there = path.stat()
        if there.st_size == member.size and int(there.st_mtime) == stamp:
            return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        data = tar.extractfile(member)
        assert data is not None, "a regular member has data"
        with partial.open("wb") as file:
            shutil.copyfileobj(data, file, 2**20)
        if partial.stat().st_size != member.size:
            raise EOFError(f"{member.name} is cut short")
        os.utime(partial, (stamp, stamp))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
