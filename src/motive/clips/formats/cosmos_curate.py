"""The output of cosmos-curate's split pipeline (read only).

`clips/{uuid}.mp4` and `metas/v0/{uuid}.json`. `clip_location` in the metadata is where the pipeline
wrote (often a bucket), so the clip is taken from this folder, by its uuid.
"""

from pathlib import Path, PurePosixPath

from motive.clips.formats.documents import read_json, tables_of
from motive.clips.formats.entries import Entries
from motive.clips.formats.source import Source
from motive.errors import UserError

NAME = "cosmos-curate"


def detect(source: Source) -> bool:
    """A folder with `clips` and `metas/v0`."""
    folder = source.folder
    return source.is_folder and (folder / "clips").is_dir() and (folder / "metas/v0").is_dir()


def read(source: Source, entries: Entries) -> None:
    """One record per metadata file, then the clips without one.

    The caption is the first window's; the captions of further windows and models are in
    `extra["captions"]`, the rest of the metadata (motion and aesthetic score, window bounds,
    `valid`) in `extra`. A clip that the pipeline filtered out is a problem, not a record.
    """
    for path in sorted((source.folder / "metas/v0").glob("*.json")):
        meta, fault = _meta(path)
        place = "clips"
        if PurePosixPath(str(meta.get("clip_location"))).parent.name == "filtered_clips":
            place, fault = "filtered_clips", "was filtered out by cosmos-curate"
        entries.add(
            f"{place}/{path.stem}.mp4",
            where=f"metas/v0/{path.name}",
            caption=_captions(meta),
            extra=meta,
            fault=fault,
        )
    entries.add_rest(source)


def _meta(path: Path) -> tuple[dict[str, object], str | None]:
    try:
        meta = read_json(path)
    except UserError as error:
        return {}, f"has metadata that cannot be used: {error}"
    if not isinstance(meta, dict):
        return {}, f"has metadata that is no object (metas/v0/{path.name})"
    return meta, None


def _captions(meta: dict[str, object]) -> list[str]:
    """All captions in window order; the enhanced ones after the plain ones of their window."""
    captions = []
    for window in tables_of(meta.get("windows")):
        keys = [key for key in window if key.endswith("_caption")]
        keys.sort(key=lambda key: key.endswith("_enhanced_caption"))
        captions += [text for key in keys if isinstance(text := window[key], str) and text]
    return captions
