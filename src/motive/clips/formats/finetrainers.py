"""finetrainers: a training JSON whose `datasets[].data_root` name folders.

A folder is probed as finetrainers probes it: videofolder metadata, tar shards, `a.mp4` + `a.txt`,
and `prompts.txt` + `videos.txt`, line by line.
"""

from motive.clips.formats import folder, videofolder, webdataset
from motive.clips.formats.documents import read_json, read_text, tables_of
from motive.clips.formats.entries import Entries
from motive.clips.formats.export import Export
from motive.clips.formats.source import Source
from motive.errors import UserError

NAME = "finetrainers"

#: What its sidecar reader looks for beside `a.txt`.
CONTAINERS = frozenset({".mp4", ".mov"})
CAPTION_LISTS = ("prompt.txt", "prompts.txt", "caption.txt", "captions.txt")
VIDEO_LISTS = ("video.txt", "videos.txt")


def detect(source: Source) -> bool:
    """A JSON file with `datasets[].data_root`, or a folder with the two line-aligned lists."""
    if source.is_folder:
        return bool(source.top(*CAPTION_LISTS) and source.top(*VIDEO_LISTS))
    return bool(_datasets(source))


def read(source: Source, entries: Entries) -> None:
    """The lists (then the videos that they do not name), or all folders of the training JSON."""
    if source.is_folder:
        _add_lists(source, entries)
        return
    for number, config in enumerate(_datasets(source), start=1):
        where = f"{source.path.name}, dataset {number}"
        root = source.inside(entries.subfolder(config["data_root"], where=where))
        if videofolder.detect(root):
            videofolder.read(root, entries)
        elif webdataset.detect(root):
            webdataset.read(root, entries)
        elif detect(root):
            _add_lists(root, entries)
        else:
            folder.read(root, entries)


def write(export: Export) -> str:
    """`training.json` and `videos/` with sidecars, alone in its folder.

    Any `metadata.*`, tar or Parquet file there would make finetrainers read another layout.
    """
    for clip, name in export.media("videos", CONTAINERS):
        export.write_sidecar(clip, name)
    dataset = {
        "data_root": str(export.out / "videos"),
        "dataset_type": "video",
        "video_resolution_buckets": [[49, 480, 832]],
        "reshape_mode": "bicubic",
    }
    export.write_json("training.json", {"datasets": [dataset]})
    return (
        f"```\npython train.py --dataset_config {export.in_shell('training.json')} ...\n```\n"
        "Set `video_resolution_buckets` (frames, height, width) to your clips, and `id_token` if "
        "you train with a trigger word: it is put before every caption.\n"
    )


def _datasets(source: Source) -> list[dict[str, object]]:
    if source.path.suffix.lower() != ".json":
        return []
    config = read_json(source.path)
    datasets = tables_of(config.get("datasets")) if isinstance(config, dict) else []
    return [dataset for dataset in datasets if "data_root" in dataset]


def _add_lists(source: Source, entries: Entries) -> None:
    lists = []
    for names in (CAPTION_LISTS, VIDEO_LISTS):
        found = source.top(*names)
        if len(found) > 1:
            raise UserError(
                f"{source.folder} holds {found[0].name} and {found[1].name}: remove one of them."
            )
        # Not only at line feeds, but wherever `str.splitlines` splits: the trainer does so.
        lists.append((found[0].name, read_text(found[0]).splitlines()))
    (caption_file, captions), (video_file, videos) = lists
    if len(captions) != len(videos):
        raise UserError(
            f"{source.folder} has {len(captions)} lines in {caption_file} and {len(videos)} in "
            f"{video_file}: give every video one caption line."
        )
    for number, (name, caption) in enumerate(zip(videos, captions, strict=True), start=1):
        where = f"{video_file}, line {number}"
        entries.add(name, where=where, folder=source.folder, caption=caption)
    entries.add_rest(source)
