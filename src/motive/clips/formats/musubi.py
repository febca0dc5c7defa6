"""musubi-tuner: a dataset TOML, and JSON lines `{"video_path": "/abs/v.mp4", "caption": "..."}`.

A `[[datasets]]` table names either a flat `video_directory` with sidecars or a `video_jsonl_file`.
The trainer takes every frame of a clip, unless the dataset has a `source_fps`: then it skips frames
down to the model's rate (16 for Wan, 24 for HunyuanVideo).
"""

from pathlib import Path

from motive.clips.formats.dataset import MEDIA_SUFFIXES
from motive.clips.formats.documents import read_toml, tables_of
from motive.clips.formats.entries import Entries
from motive.clips.formats.export import Export, toml_string
from motive.clips.formats.folder import add_with_sidecars
from motive.clips.formats.source import Source
from motive.clips.formats.tables import add_table, find_table
from motive.clips.formats.transcode import constant_fps
from motive.errors import UserError

NAME = "musubi"

#: `VIDEO_EXTENSIONS` of musubi-tuner, which has no gif.
CONTAINERS = MEDIA_SUFFIXES - {".gif"}
COLUMN = "video_path"


def detect(source: Source) -> bool:
    """A table with the column `video_path`, or a TOML file with `[[datasets]]`."""
    if source.path.suffix.lower() == ".toml" and not source.is_folder:
        return bool(tables_of(read_toml(source.path).get("datasets")))
    return find_table(source, COLUMN) is not None


def read(source: Source, entries: Entries) -> None:
    """The JSON lines (then, for a folder, the videos that no line names) or the TOML's datasets.

    Absolute paths are allowed below the metadata's folder and below the media root.
    """
    table = None if source.path.suffix.lower() == ".toml" else find_table(source, COLUMN)
    if table is not None:
        add_table(entries, table, COLUMN)
        if source.is_folder:
            entries.add_rest(source)
        return
    config = read_toml(source.path)
    general = config.get("general")
    defaults = general if isinstance(general, dict) else {}
    for number, own in enumerate(tables_of(config.get("datasets")), start=1):
        _add_dataset(source, entries, defaults | own, f"{source.path.name}, dataset {number}")


def _add_dataset(source: Source, entries: Entries, config: dict[str, object], where: str) -> None:
    extra: dict[str, object] = {}
    extra.update((key, config[key]) for key in ("num_repeats", "source_fps") if key in config)
    if "video_jsonl_file" in config:
        path = entries.locate(str(config["video_jsonl_file"]), where=where)
        if not path.is_file():
            raise UserError(f"{where} names {path}, which does not exist: correct it.")
        add_table(entries, path, COLUMN, extra=extra)
    elif "video_directory" in config:
        folder = entries.subfolder(config["video_directory"], where=where)
        files = [path for path in source.inside(folder).media if path.parent == folder]
        extension = config.get("caption_extension")
        add_with_sidecars(
            entries, files, extension=str(extension) if extension else None, extra=extra
        )
    else:
        raise UserError(
            f"{where} has neither video_directory nor video_jsonl_file (motive reads no image "
            "datasets): add one or remove the dataset."
        )


def write(export: Export) -> str:
    """`videos/`, `videos.jsonl` with all clips, and `dataset.toml`.

    `source_fps` holds for a whole dataset, so clips of different constant frame rates become
    several `[[datasets]]`, each with its own JSON lines; clips whose rate is not constant or not
    known form one without it.
    """
    rows = []
    groups: dict[float | None, list[dict[str, object]]] = {}
    for clip, name in export.media("videos", CONTAINERS):
        row: dict[str, object] = {
            "video_path": str(export.out / name),
            "caption": clip.caption,
        }
        rows.append(row)
        groups.setdefault(_known_fps(export.folder / name), []).append(row)
    export.write_json_lines("videos.jsonl", rows)

    parts = [
        "[general]\n"
        "resolution = [832, 480]\n"
        'caption_extension = ".txt"\n'
        "batch_size = 1\n"
        "enable_bucket = true\n"
        "bucket_no_upscale = false\n"
    ]
    for number, fps in enumerate(sorted(groups, key=lambda fps: (fps is None, fps)), start=1):
        lines = "videos.jsonl"
        if len(groups) > 1:
            lines = f"videos_{'unknown' if fps is None else str(fps).replace('.', '_')}fps.jsonl"
            export.write_json_lines(f"by_fps/{lines}", groups[fps])
            lines = f"by_fps/{lines}"
        parts.append(
            "[[datasets]]\n"
            f"video_jsonl_file = {toml_string(str(export.out / lines))}\n"
            f"cache_directory = {toml_string(str(export.out / f'cache_{number}'))}\n"
            "# The first frames of each clip, 4n+1 of them, at most max_frames; no clip is too "
            "short.\n"
            'frame_extraction = "full"\n'
            "max_frames = 81\n"
            "num_repeats = 1\n"
            + (
                "# No source_fps: the frame rate of these clips is not constant or not known, so\n"
                "# musubi-tuner takes every frame.\n"
                if fps is None
                else f"source_fps = {fps}\n"
            )
        )
    export.write_text("dataset.toml", "\n".join(parts))
    if None in groups:
        export.notes.append(
            f"{len(groups[None])} clips have no constant frame rate: dataset.toml gives no "
            "source_fps for them, and musubi-tuner will take every frame"
        )
    configuration = export.in_shell("dataset.toml")
    return (
        "```\n"
        "python src/musubi_tuner/wan_cache_latents.py "
        f"--dataset_config {configuration} ...\n"
        "python src/musubi_tuner/wan_cache_text_encoder_outputs.py "
        f"--dataset_config {configuration} ...\n"
        "accelerate launch src/musubi_tuner/wan_train_network.py "
        f"--dataset_config {configuration} ...\n```\n"
        "`dataset.toml` holds absolute paths: export again rather than move this folder.\n"
    )


def _known_fps(path: Path) -> float | None:
    fps = constant_fps(path)
    return None if fps is None else round(float(fps), 3)
