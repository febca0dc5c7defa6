"""The `FiftyOneDataset` layout, which FiftyOne imports by itself and any JSON reader can read.

`metadata.json` without a version is the layout that FiftyOne's importer infers the fields of from the
samples themselves, so that no version of its database schema is written down here:

    metadata.json   {"name", "media_type": "video", "info"}
    samples.json    {"samples": [{"filepath", "tags", "caption", "motive_rank", …, "frames"}]}
    frames/none.json  labels of single frames: there are none
    data/           the clips
"""

from typing import Any

from motive.clips.formats.documents import read_json
from motive.clips.formats.entries import Entries
from motive.clips.formats.export import Export
from motive.clips.formats.source import Source
from motive.errors import UserError

NAME = "fiftyone"

#: What FiftyOne takes for a video by its name and its app can play; other containers are re-encoded.
CONTAINERS = frozenset({".mp4", ".m4v", ".webm"})
_NO_FRAMES = "frames/none.json"
_SAMPLES = "samples.json"


def detect(source: Source) -> bool:
    """A folder with the samples beside their metadata, or the samples themselves."""
    if not source.is_folder:
        return source.path.name == _SAMPLES
    return bool(source.top(_SAMPLES)) and bool(source.top("metadata.json"))


def read(source: Source, entries: Entries) -> None:
    """The samples with their `caption`, where they have one, then the folder's other videos.

    Raises UserError when the file does not list samples.
    """
    file = source.folder / _SAMPLES
    content = read_json(file)
    samples = content.get("samples") if isinstance(content, dict) else None
    if not isinstance(samples, list) or not all(isinstance(sample, dict) for sample in samples):
        raise UserError(f"{file} lists no samples: export the dataset from FiftyOne again")
    for number, sample in enumerate(samples, start=1):
        others = {k: v for k, v in sample.items() if k not in ("filepath", "caption")}
        entries.add(
            sample.get("filepath"),
            where=f"{_SAMPLES}, sample {number}",
            folder=source.folder,
            caption=sample.get("caption") or "",
            extra=others,
        )
    if source.is_folder:
        entries.add_rest(source)


def write(export: Export) -> str:
    """`samples.json` and `data/`, the fields of each sample beside its path."""
    samples = []
    for clip, name in export.media("data", CONTAINERS):
        samples.append(
            {
                "filepath": name,
                "tags": ["motive"],
                "caption": clip.caption,
                "source_name": clip.file_name,
                "motive_rank": clip.rank,
                **{field: float(value) for field, value in clip.scores.items()},
                "frames": _NO_FRAMES,
            }
        )
    info: dict[str, Any] = {"made_by": "motive", "order": "motive_rank, 1 is the best"}
    metadata = {"name": export.out.name, "media_type": "video", "info": info}
    export.write_json("metadata.json", metadata)
    export.write_json(_SAMPLES, {"samples": samples})
    export.write_json(_NO_FRAMES, {"frames": {}})
    return (
        "```python\nimport fiftyone as fo\n\n"
        "dataset = fo.Dataset.from_dir(\n"
        f"    dataset_dir={str(export.out)!r},\n"
        "    dataset_type=fo.types.FiftyOneDataset,\n)\n"
        'fo.launch_app(dataset.sort_by("motive_rank"))\n```\n'
    )
