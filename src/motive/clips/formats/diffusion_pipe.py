"""diffusion-pipe: a dataset TOML whose `[[directory]]` tables name flat folders.

A folder holds `captions.json` (`{"v.mp4": ["caption", ...]}`) or `.txt` sidecars; where there is a
`captions.json` the trainer ignores the sidecars. Clips are resampled to the model's frame rate.
"""

from pathlib import Path, PurePosixPath

from motive.clips.formats.dataset import MEDIA_SUFFIXES
from motive.clips.formats.documents import read_json, read_toml, tables_of
from motive.clips.formats.entries import Entries
from motive.clips.formats.export import Export, toml_string
from motive.clips.formats.folder import add_with_sidecars
from motive.clips.formats.source import Source
from motive.errors import UserError

NAME = "diffusion-pipe"

#: imageio's video suffixes, which it asks, include these; a gif would be taken for a still image.
CONTAINERS = MEDIA_SUFFIXES - {".gif"}
CAPTIONS = "captions.json"


def detect(source: Source) -> bool:
    """A TOML file with `[[directory]]`, a `captions.json`, or a folder with one in it."""
    if source.is_folder:
        return bool(source.called([CAPTIONS]))
    if source.path.suffix.lower() == ".toml":
        return bool(tables_of(read_toml(source.path).get("directory")))
    return source.path.name == CAPTIONS


def read(source: Source, entries: Entries) -> None:
    """Of a list of captions the first is the caption, the rest are `extra["captions"]`.

    A `captions.json` given by itself is a choice of files: only its videos are read. In a folder
    that has one, the videos that it does not name follow with an empty caption.
    """
    if source.is_folder:
        folders: dict[Path, list[Path]] = {}
        for path in source.files:
            folders.setdefault(path.parent, []).append(path)
        for folder, files in sorted(folders.items(), key=lambda item: item[0].parts):
            _add_folder(entries, folder, files)
        entries.problems.extend(source.unreadable)
    elif source.path.name == CAPTIONS:
        _add_captions(entries, source.path)
    else:
        directories = tables_of(read_toml(source.path).get("directory"))
        for number, config in enumerate(directories, start=1):
            where = f"{source.path.name}, directory {number}"
            folder = entries.subfolder(config.get("path"), where=where)
            extra = {"num_repeats": config["num_repeats"]} if "num_repeats" in config else None
            files = [path for path in source.inside(folder).files if path.parent == folder]
            _add_folder(entries, folder, files, extra)


def write(export: Export) -> str:
    """`dataset.toml` and `videos/` with `captions.json`, alone in its folder.

    Alone, because the trainer opens every other file of the folder as an image; `captions.json`
    and not sidecars, because it keeps a caption to the letter.
    """
    captions = {
        PurePosixPath(name).name: [clip.caption]
        for clip, name in export.media("videos", CONTAINERS)
    }
    export.write_json(f"videos/{CAPTIONS}", captions)
    export.write_text(
        "dataset.toml",
        "resolutions = [512]\n"
        "enable_ar_bucket = true\n"
        "min_ar = 0.5\n"
        "max_ar = 2.0\n"
        "num_ar_buckets = 7\n"
        "# Frames after resampling to the model's frame rate; a clip goes to the longest bucket\n"
        "# that it fills, and one shorter than the smallest video bucket is dropped.\n"
        "frame_buckets = [1, 33]\n\n"
        "[[directory]]\n"
        f"path = {toml_string(str(export.out / 'videos'))}\n"
        "num_repeats = 1\n",
    )
    return (
        "In the training configuration:\n\n"
        f"```\ndataset = {toml_string(str(export.out / 'dataset.toml'))}\n```\n"
        "diffusion-pipe resamples clips to the model's frame rate and drops those that are shorter "
        "than the smallest bucket above 1 in `frame_buckets`.\n"
    )


def _add_folder(
    entries: Entries, folder: Path, files: list[Path], extra: dict[str, object] | None = None
) -> None:
    """Adds the videos among `files`, which are those directly in `folder`."""
    media = [path for path in files if path.suffix.lower() in MEDIA_SUFFIXES]
    if folder / CAPTIONS in files:
        _add_captions(entries, folder / CAPTIONS, extra)
        for path in media:
            if not entries.has(path):
                entries.add_file(path, extra=extra)
    else:
        add_with_sidecars(entries, media, extra=extra)


def _add_captions(entries: Entries, path: Path, extra: dict[str, object] | None = None) -> None:
    captions = read_json(path)
    if not isinstance(captions, dict):
        raise UserError(f"{path} is no object of file names and lists of captions: correct it.")
    for name, texts in captions.items():
        fault = None
        if not isinstance(texts, str | list) or not all(isinstance(text, str) for text in texts):
            fault = f"has something else than a list of captions in {path.name}"
        entries.add(
            name,
            where=f"{path.name}, {name!r}",
            folder=path.parent,
            caption="" if fault else texts,
            extra=extra,
            fault=fault,
        )
