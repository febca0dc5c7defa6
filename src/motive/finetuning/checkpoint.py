"""A whole pipeline around the trained denoiser, as `save_pretrained` lays it out."""

import os
import shutil
from pathlib import Path
from typing import Any

from motive.backbones.source import ModelSource
from motive.runs.provenance import write_atomically

_INDEX = "model_index.json"
_WEIGHTS = (".safetensors", ".bin")
_BESIDE = ("motive.json", "LICENSE", "LICENSE.txt", "LICENSE.md")  # what else belongs to a model


def save_checkpoint(network: Any, component: str, source: ModelSource, folder: Path) -> None:
    """Write the pipeline of `source` into `folder` with `network` as its `component`.

    Its weights are kept in the float32 that they were trained in. Weights that were not trained are linked
    where the disk allows (hard links: nothing breaks when the source is removed), everything else is copied,
    since people edit configurations in place. `model_index.json` comes last: a folder without it is no
    pipeline to anyone.
    """
    for part in sorted(source.index.keys() - {component}):
        if (source.path / part).is_dir():
            _take_over(source.path / part, folder / part)
    for name in _BESIDE:
        if (source.path / name).is_file():
            shutil.copyfile(source.path / name, folder / name)
    network.save_pretrained(folder / component, safe_serialization=True)
    write_atomically(folder / _INDEX, (source.path / _INDEX).read_bytes())


def _take_over(source: Path, target: Path) -> None:
    for file in sorted(source.rglob("*")):
        if file.is_file():
            place = target / file.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.unlink(missing_ok=True)  # never written into: it may be a link
            if not (file.suffix in _WEIGHTS and _linked(file, place)):
                shutil.copyfile(file, place)


def _linked(source: Path, target: Path) -> bool:
    try:
        os.link(source.resolve(), target)  # the hub's cache has symbolic links
    except OSError:
        return False
    return True
