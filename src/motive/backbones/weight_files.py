"""The safetensors files that a user's word for fine-tuned weights means."""

from pathlib import Path

from motive.backbones.source import ModelSource, is_whole
from motive.errors import UserError

# Beside the names that `ModelSource.weights` knows.
_LORA = "pytorch_lora_weights.safetensors"


def safetensors_of(name: str, kind: str, component: str = "") -> list[Path]:
    """The safetensors files of a file, or of a folder that diffusers or a trainer wrote.

    kind: `checkpoint` or `LoRA`, for the sentence.
    component: the part that is meant where the folder is a whole pipeline's.

    A folder's file is the one under diffusers' own name, in parts where its list says so, or its only one.

    Raises UserError when there is none, when one is damaged, or when it is not clear which is meant.
    """
    place = Path(name).expanduser()
    if not place.exists():
        raise UserError(f"there is no {kind} {name}: give a safetensors file or its folder")
    files = _in_folder(place, name, kind, component) if place.is_dir() else [place]
    for file in files:
        if file.suffix != ".safetensors":
            raise UserError(f"the {kind} {name} is no safetensors file: save it as one")
        if not is_whole(file):
            raise UserError(
                f"the {kind} {file} is no whole safetensors file: copy or save it again"
            )
    return files


def _in_folder(folder: Path, name: str, kind: str, component: str) -> list[Path]:
    if component and (folder / component).is_dir():
        folder = folder / component
    if named := ModelSource(name, folder.parent, {}).weights(folder.name):
        return named
    if (folder / _LORA).is_file():
        return [folder / _LORA]
    found = sorted(folder.glob("*.safetensors"))
    if not found:
        raise UserError(f"the {kind} {name} has no safetensors file: give one or its folder")
    if len(found) > 1:
        names = ", ".join(file.name for file in found[:3])
        raise UserError(f"the {kind} {name} has several files ({names}): give one of them")
    return found
