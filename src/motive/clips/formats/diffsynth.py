"""DiffSynth-Studio: `--dataset_base_path D --dataset_metadata_path metadata.csv|json|jsonl`.

The table has the columns `video` and `prompt`; JSON is a bare list. The trainer takes the first N
frames of a clip, whatever its frame rate.
"""

from motive.clips.formats.dataset import MEDIA_SUFFIXES
from motive.clips.formats.entries import Entries
from motive.clips.formats.export import Export
from motive.clips.formats.source import Source
from motive.clips.formats.tables import add_table, find_table

NAME = "diffsynth"

#: The video and gif loaders of DiffSynth's `UnifiedDataset`; it has no MPEG program streams.
CONTAINERS = MEDIA_SUFFIXES - {".mpeg", ".mpg", ".m4v"}
COLUMN = "video"


def detect(source: Source) -> bool:
    """A table with the column `video`."""
    return find_table(source, COLUMN) is not None


def read(source: Source, entries: Entries) -> None:
    """The rows; names relative to the metadata file, else to the media root (the base path).

    For a folder, the videos that no row names follow with an empty caption.
    """
    path = find_table(source, COLUMN)
    assert path is not None, "read follows detect"
    add_table(entries, path, COLUMN, captions=("prompt", "caption", "text"))
    if source.is_folder:
        entries.add_rest(source)


def write(export: Export) -> str:
    """`metadata.json` and `videos/`. JSON, since CSV goes through pandas (see `videofolder`)."""
    rows = [
        {"video": name, "prompt": clip.caption} for clip, name in export.media("videos", CONTAINERS)
    ]
    export.write_json("metadata.json", rows)
    return (
        "```\naccelerate launch examples/wanvideo/model_training/train.py \\\n"
        f"  --dataset_base_path {export.in_shell('.')} \\\n"
        f"  --dataset_metadata_path {export.in_shell('metadata.json')} \\\n"
        "  --data_file_keys video ...\n```\n"
        "DiffSynth-Studio takes the first `--num_frames` frames at the clip's own frame rate.\n"
    )
