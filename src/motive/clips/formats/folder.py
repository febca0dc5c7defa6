"""A bare folder of video files, with or without `.txt` sidecars, at any depth.

This is also what ai-toolkit, finetrainers, diffusion-pipe and musubi-tuner read when they are
given `a.mp4` + `a.txt`. It is asked last and takes any folder that no other format claims.
"""

from collections.abc import Iterable
from pathlib import Path

from motive.clips.formats.dataset import MEDIA_SUFFIXES
from motive.clips.formats.documents import read_text
from motive.clips.formats.entries import Entries
from motive.clips.formats.source import Source
from motive.clips.formats.tables import METADATA_NAMES, is_table
from motive.errors import UserError

NAME = "folder"


def detect(source: Source) -> bool:
    """Any folder that has no metadata file, and a single video file."""
    if source.is_folder:
        return not any(is_table(path) for path in source.top(*METADATA_NAMES))
    return source.path.suffix.lower() in MEDIA_SUFFIXES


def read(source: Source, entries: Entries) -> None:
    """Captions come from the sidecar with the video's stem, stripped as the trainers do.

    Raises UserError for metadata deeper in the folder, whose captions would be lost.
    """
    if not source.is_folder:
        add_with_sidecars(entries, [source.path])
        return
    for path in source.called(METADATA_NAMES):
        if is_table(path):
            raise UserError(
                f"{path} describes only a part of {source.path}: pass {path.parent} by itself, or "
                "rename the file if it is not meant."
            )
    add_with_sidecars(entries, source.media)
    entries.problems.extend(source.unreadable)


def add_with_sidecars(
    entries: Entries,
    files: Iterable[Path],
    *,
    extension: str | None = ".txt",
    extra: dict[str, object] | None = None,
) -> None:
    """Adds video files, each with the text of the file that has `extension` in place of its own.

    A video without a sidecar has an empty caption. None as extension: no captions at all.
    """
    for path in files:
        caption, fault = "", None
        sidecar = path.with_suffix(extension) if extension else None
        if sidecar is not None and sidecar.is_file():
            try:
                caption = sidecar_text(sidecar)
            except UserError as error:
                fault = f"has a caption file that cannot be used: {error}"
        entries.add_file(path, caption=caption, extra=extra, fault=fault)


def sidecar_text(path: Path) -> str:
    """A caption as every sidecar trainer reads it: line ends become line feeds, ends stripped."""
    return read_text(path).replace("\r\n", "\n").replace("\r", "\n").strip()
