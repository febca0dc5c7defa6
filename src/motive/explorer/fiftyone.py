"""The `FiftyOneDataset` layout, which FiftyOne imports by itself and any JSON reader can read.

`metadata.json` without a version is the layout that FiftyOne's importer infers the fields of from the
samples themselves, so that no version of its database schema is written down here:

    metadata.json   {"name", "media_type": "video", "info"}
    samples.json    {"samples": [{"filepath", "tags", "caption", "motive_rank", …, "frames"}]}
    frames/none.json  labels of single frames: there are none
    data/           the clips
"""

from pathlib import Path
from typing import Any

from motive.clips.formats import ExportClip, ExportReport
from motive.clips.formats.export import Export, run_export

NAME = "fiftyone"

#: What FiftyOne takes for a video by its name and its app can play; other containers are re-encoded.
CONTAINERS = frozenset({".mp4", ".m4v", ".webm"})
_NO_FRAMES = "frames/none.json"


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
    export.write_json("samples.json", {"samples": samples})
    export.write_json(_NO_FRAMES, {"frames": {}})
    return (
        "```python\nimport fiftyone as fo\n\n"
        "dataset = fo.Dataset.from_dir(\n"
        f"    dataset_dir={str(export.out)!r},\n"
        "    dataset_type=fo.types.FiftyOneDataset,\n)\n"
        'fo.launch_app(dataset.sort_by("motive_rank"))\n```\n'
    )


def write_fiftyone(clips: list[ExportClip], out: Path, *, link: bool = False) -> ExportReport:
    """As `motive.clips.formats.write_dataset`, in this layout."""
    return run_export(NAME, write, clips, out, link)
