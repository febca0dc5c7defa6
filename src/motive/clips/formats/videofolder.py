"""The `videofolder` format of Hugging Face `datasets`.

`metadata.csv`, `.jsonl` or `.parquet` beside the videos, column `file_name` relative to the
metadata file. One such file may lie in each subfolder, as in `train/` and `test/`.
"""

from itertools import pairwise
from pathlib import Path

from motive.clips.formats.entries import Entries
from motive.clips.formats.export import Export
from motive.clips.formats.source import Source
from motive.clips.formats.tables import METADATA_NAMES, add_table, columns_of, find_table
from motive.errors import UserError

NAME = "videofolder"

#: What `datasets` takes for a video (`VideoFolder.EXTENSIONS`); it has neither webm nor gif.
CONTAINERS = frozenset({".mkv", ".mp4", ".avi", ".mpeg", ".mov"})
COLUMN = "file_name"


def detect(source: Source) -> bool:
    """A table with the column `file_name`, or a folder with such a table somewhere in it."""
    if not source.is_folder:
        return find_table(source, COLUMN) is not None
    return any(COLUMN in columns_of(path) for path in _governing(source))


def read(source: Source, entries: Entries) -> None:
    """The rows of the metadata, then the videos of the folder that no row names.

    Those videos are kept, with an empty caption; a metadata file given by itself is a choice of
    files, so then nothing is added to its rows.
    """
    if source.is_folder:
        for path in _governing(source):
            add_table(entries, path, COLUMN)
        entries.add_rest(source)
    else:
        add_table(entries, source.path, COLUMN)


def write(export: Export) -> str:
    """`train/metadata.jsonl` with the clips beside it.

    JSON lines and not CSV: `datasets` reads CSV through pandas, which turns an empty caption and a
    caption like `NA` into nothing and `123` into a number. The folder is called `train` because
    `datasets` guesses splits from file names: a clip called `x_test_1.mp4` would become a test
    split that holds nothing else, but a folder name comes before the file names.
    """
    rows = [
        {
            "file_name": Path(name).name,
            "caption": clip.caption,
            "rank": clip.rank,
            # Not `source_file_name`: `datasets` takes every column that ends so for a video.
            "source": clip.file_name,
            **({"scores": dict(clip.scores)} if clip.scores else {}),
        }
        for clip, name in export.media("train", CONTAINERS)
    ]
    export.write_json_lines("train/metadata.jsonl", rows)
    return (
        "```python\nfrom datasets import load_dataset\n"
        f'dataset = load_dataset("videofolder", data_dir={str(export.out)!r}, split="train")\n```\n'
    )


def _governing(source: Source) -> list[Path]:
    """The metadata files of a folder and its subfolders, the outer ones first."""
    names = [name for name in METADATA_NAMES if not name.endswith(".json")]
    found = source.called(names)
    found.sort(key=lambda path: (len(path.parts), path.parts))
    for one, other in pairwise(found):
        if one.parent == other.parent:
            raise UserError(
                f"{one.parent} holds {one.name} and {other.name}: pass the one that you mean."
            )
    return found
