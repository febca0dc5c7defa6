"""ai-toolkit: a job file with `config.process[].datasets[]`, each a folder with `.txt` sidecars.

The trainer walks the folder to any depth and stretches each whole clip evenly into `num_frames`.
The folder alone, without the job file, is read as `folder`.
"""

from motive.clips.formats.dataset import MEDIA_SUFFIXES
from motive.clips.formats.documents import read_json, read_yaml, tables_of
from motive.clips.formats.entries import Entries
from motive.clips.formats.export import Export
from motive.clips.formats.folder import add_with_sidecars
from motive.clips.formats.source import Source

NAME = "ai-toolkit"

#: `video_extensions` of its data loader; a gif would be taken for a still image.
CONTAINERS = MEDIA_SUFFIXES - {".gif", ".mpeg", ".mpg"}


def detect(source: Source) -> bool:
    """A YAML or JSON file with `config.process[].datasets[].folder_path`."""
    return not source.is_folder and bool(_datasets(source))


def read(source: Source, entries: Entries) -> None:
    """All folders of the job, in its order."""
    for number, config in enumerate(_datasets(source), start=1):
        where = f"{source.path.name}, dataset {number}"
        folder = source.inside(entries.subfolder(config["folder_path"], where=where))
        extension = str(config.get("caption_ext") or "txt")
        extra = {"num_repeats": config["num_repeats"]} if "num_repeats" in config else None
        add_with_sidecars(
            entries, folder.media, extension="." + extension.removeprefix("."), extra=extra
        )
        entries.problems.extend(folder.unreadable)


def write(export: Export) -> str:
    """`job.yaml` (the part of a job that names data) and `videos/` with sidecars."""
    import yaml

    for clip, name in export.media("videos", CONTAINERS):
        export.write_sidecar(clip, name)
    dataset = {
        "folder_path": str(export.out / "videos"),
        "caption_ext": "txt",
        "num_frames": 81,
        "resolution": [512],
        "num_repeats": 1,
    }
    job = {
        "job": "extension",
        "config": {"process": [{"type": "sd_trainer", "datasets": [dataset]}]},
    }
    comment = "# Copy `datasets` into your job. num_frames: of the form 4n+1 for Wan.\n"
    export.write_text("job.yaml", comment + yaml.safe_dump(job, sort_keys=False, width=1000))
    return (
        "Copy `config.process[0].datasets` of `job.yaml` into your job, then\n\n"
        "```\npython run.py your_job.yaml\n```\n"
        "ai-toolkit spreads `num_frames` evenly over the whole clip, whatever its length.\n"
    )


def _datasets(source: Source) -> list[dict[str, object]]:
    suffix = source.path.suffix.lower()
    if suffix in (".yaml", ".yml"):
        job = read_yaml(source.path)
    elif suffix == ".json":
        job = read_json(source.path)
    else:
        return []
    config = job.get("config") if isinstance(job, dict) else None
    processes = tables_of(config.get("process")) if isinstance(config, dict) else []
    datasets = [item for process in processes for item in tables_of(process.get("datasets"))]
    return [dataset for dataset in datasets if "folder_path" in dataset]
