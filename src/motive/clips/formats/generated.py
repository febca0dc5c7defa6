"""The folder that `motive generate` writes: videos named PROMPT-i.mp4, and `generation.json`.

The record lists the videos with the prompts that they were made from, which are their captions. Any
other key of an entry is a column: `"polarity": "unwanted"` makes a query of what the model should not do.
"""

from motive.clips.formats.documents import read_json
from motive.clips.formats.entries import Entries
from motive.clips.formats.source import Source
from motive.clips.formats.tables import METADATA_NAMES, is_table
from motive.errors import UserError

NAME = "generated"

RECORD = "generation.json"


def detect(source: Source) -> bool:
    """A folder with the record and no metadata of the user's own, or the record itself."""
    if not source.is_folder:
        return source.path.name == RECORD
    own = any(is_table(path) for path in source.top(*METADATA_NAMES))
    return bool(source.top(RECORD)) and not own


def read(source: Source, entries: Entries) -> None:
    """The videos that the record lists, then those of the folder that it does not, without a caption.

    Raises UserError when the record does not list videos.
    """
    record = source.folder / RECORD
    content = read_json(record)
    videos = content.get("videos") if isinstance(content, dict) else None
    if not isinstance(videos, list):
        raise UserError(f"{record} lists no videos: make the folder with motive generate")
    for number, video in enumerate(videos, start=1):
        where = f"{RECORD}, video {number}"
        if not isinstance(video, dict):
            raise UserError(f"{record} has no object for video {number}: correct that entry")
        others = {k: v for k, v in video.items() if k not in ("file_name", "prompt")}
        entries.add(
            video.get("file_name"),
            where=where,
            folder=source.folder,
            caption=video.get("prompt", ""),
            extra=others,
        )
    if source.is_folder:
        entries.add_rest(source)
