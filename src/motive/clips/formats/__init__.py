"""Reading and writing the clip datasets of the field's trainers.

Each format is one module with `NAME`, `detect(source)`, `read(source, entries)` and, if it can be
exported, `write(export)`; adding one is writing that module and listing it in `FORMATS`.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from motive.clips.formats import (
    ai_toolkit,
    cosmos_curate,
    data_juicer,
    diffsynth,
    diffusion_pipe,
    fiftyone,
    finetrainers,
    folder,
    generated,
    musubi,
    videofolder,
    webdataset,
)
from motive.clips.formats.dataset import (
    MEDIA_SUFFIXES,
    CaptionChange,
    Dataset,
    ExportClip,
    ExportedClip,
    ExportReport,
    Problem,
)
from motive.clips.formats.entries import Entries
from motive.clips.formats.export import Export, run_export
from motive.clips.formats.source import Source
from motive.clips.formats.tables import METADATA_NAMES
from motive.clips.record import ClipRecord
from motive.errors import UserError

__all__ = [
    "EXPORT_FORMATS",
    "FORMATS",
    "MEDIA_SUFFIXES",
    "CaptionChange",
    "Dataset",
    "ExportClip",
    "ExportReport",
    "ExportedClip",
    "Problem",
    "read_dataset",
    "write_dataset",
]


class Format(Protocol):
    """What a format's module has, besides an optional `write(export: Export) -> str`.

    `detect` looks at names and headers only. `read` adds what it finds to the entries, in the
    dataset's order. `write` returns the part of the export's README that tells how to use it.
    """

    NAME: str

    def detect(self, source: Source) -> bool: ...

    def read(self, source: Source, entries: Entries) -> None: ...


#: In the order in which they are asked: `folder`, which takes any folder, is last.
FORMATS: tuple[Format, ...] = (
    generated,
    fiftyone,
    cosmos_curate,
    videofolder,
    diffsynth,
    musubi,
    data_juicer,
    webdataset,
    diffusion_pipe,
    finetrainers,
    ai_toolkit,
    folder,
)

# In the order in which people are offered them: a dataset that many read, the trainers, the rest.
_WRITERS: dict[str, Callable[[Export], str]] = {
    module.NAME: module.write
    for module in (
        videofolder,
        diffsynth,
        musubi,
        finetrainers,
        diffusion_pipe,
        ai_toolkit,
        webdataset,
        data_juicer,
        fiftyone,
    )
}

#: The formats that `write_dataset` knows, as they are offered.
EXPORT_FORMATS: tuple[str, ...] = tuple(_WRITERS)


def read_dataset(
    source: Path,
    *,
    media_root: Path | None = None,
    extract_to: Path | None = None,
    keep: Callable[[ClipRecord], object] | None = None,
) -> Dataset:
    """Reads a clip dataset; nothing is decoded, so empty and corrupt files are records too.

    source: a folder, a metadata file (csv, json, jsonl, parquet), a trainer's dataset
        configuration (toml, yaml, json), a tar, or a single video.
    media_root: a second folder in which metadata may name files, absolutely or relatively.
    extract_to: where videos in tar files are extracted to; needed for those only.
    keep: is given each record as it is read, and the dataset has none then; for datasets so large that
        their records fill the memory.

    The format is the first of `FORMATS` that recognises the source; which one is a matter of names
    and columns alone. In a folder, video files that its metadata does not name are kept, with an
    empty caption: none is lost, none comes twice. A metadata file given by itself is a choice, and
    only what it names is read. Hidden files and files that are no videos are never records.

    An entry that cannot be used (missing, a folder, named twice, no name ...) becomes a problem and
    does not stop the rest. Raises UserError for a source that is missing, empty or not valid, and
    for the whole dataset when any name in it points outside its folder and the media root.
    """
    path = _absolute(source)
    if not path.exists():
        raise UserError(f"{source} does not exist: check the path.")
    if not os.access(path, os.R_OK):
        raise UserError(f"{source} cannot be read: check its rights.")
    if media_root is not None and not Path(media_root).is_dir():
        raise UserError(f"The media root {media_root} is no folder: check the path.")
    opened = Source(
        path,
        None if media_root is None else _absolute(media_root),
        None if extract_to is None else _absolute(extract_to),
    )
    for module in FORMATS:
        if module.detect(opened):
            entries = Entries(opened, keep)
            module.read(opened, entries)
            return entries.dataset(module.NAME)
    columns = ", ".join(
        str(column) for module in FORMATS if (column := getattr(module, "COLUMN", None))
    )
    for table in opened.top(*METADATA_NAMES) if opened.is_folder else []:
        raise UserError(f"{table} has none of the columns {columns}: rename the right one.")
    raise UserError(
        f"{source} is no dataset that motive knows: pass a folder of videos, a table with one of "
        f"the columns {columns}, or a trainer's dataset configuration."
    )


def write_dataset(
    format: str, clips: Sequence[ExportClip], out: Path, *, link: bool = False
) -> ExportReport:
    """Writes clips, best first, as a dataset that a trainer reads, with its configuration.

    format: one of `EXPORT_FORMATS`.
    out: a folder that is empty or does not exist; it appears when it is complete, never before.
    link: symbolic links to the clips instead of copies.

    Clips are called `RANK_STEM.ext`, so that every reader that sorts keeps the order. A clip whose
    container the format cannot read is re-encoded to H.264 mp4, and a caption that the format
    cannot hold is changed; the report, README.md and export.json in the folder list each of them,
    and the clips whose re-encoding failed.

    Raises UserError for an unknown format, an `out` that holds something, no clips, a clip whose
    file is gone, and a disk that is full or cannot be written.
    """
    if format not in _WRITERS:
        known = ", ".join(EXPORT_FORMATS)
        raise UserError(f"There is no export format {format!r}: choose one of {known}.")
    return run_export(format, _WRITERS[format], clips, Path(out), link)


def _absolute(path: Path) -> Path:
    """Without `..` and without following links."""
    return Path(os.path.abspath(path))
