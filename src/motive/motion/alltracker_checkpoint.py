"""Reads AllTracker's published weights from a file or from the hub."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from torch import Tensor

from motive.errors import UserError
from motive.motion import weights

Variant = Literal["full", "tiny"]

HUB_ID = "aharley/alltracker"
HUB_FILES: dict[Variant, str] = {"full": "alltracker.pth", "tiny": "alltracker_tiny.pth"}
_WHERE = (
    f"the weights are published at https://huggingface.co/{HUB_ID} as alltracker.pth (full) and "
    "alltracker_tiny.pth (tiny), and `--tracker dis` needs none"
)


def find_checkpoint(path_or_hub_id: str | Path, variant: Variant | None) -> Path:
    """The weights' file on this machine, fetched from the hub first if it has to be.

    Args:
        path_or_hub_id: a file, or the hub repository `aharley/alltracker` or a copy of it.
        variant: which of the hub's files to take; None takes the full one. A file is what it is.

    Raises:
        UserError: there is no such file, or the hub does not give it.
    """
    path = Path(path_or_hub_id).expanduser()
    if path.is_file():
        return path
    name = str(path_or_hub_id)
    is_hub_id = re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name) is not None
    if path.suffix in {".pth", ".pt", ".safetensors"} or not is_hub_id:
        raise UserError(f"AllTracker checkpoint {name} is not a file: {_WHERE}.")
    from huggingface_hub import hf_hub_download

    file = HUB_FILES[variant or "full"]
    try:
        return Path(hf_hub_download(name, file))
    # Offline, refused, missing: the client and the network below it raise OSError and ValueError.
    except (OSError, ValueError) as error:
        raise UserError(
            f"AllTracker checkpoint {file} cannot be fetched from the hub repository {name} "
            f"({weights.first_line(error)}): {_WHERE}."
        ) from error


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The weights in a file (`motive.motion.weights.read_state_dict`).

    Raises:
        UserError: the file cannot be read, or holds anything but named tensors.
    """
    return weights.read_state_dict(path, "AllTracker", _WHERE)


def infer_variant(names: Iterable[str]) -> Variant | None:
    """The variant that has these weights: the encoder's name tells; None if neither does."""
    encoders = {name.partition(".")[0] for name in names} & {"cnn", "fnet"}
    if len(encoders) != 1:
        return None
    return "full" if encoders == {"cnn"} else "tiny"


def check_state_dict(
    found: dict[str, Tensor], expected: dict[str, Tensor], variant: Variant, path: Path
) -> None:
    """Refuses weights that are not exactly the variant's.

    Raises:
        UserError: names are missing, unexpected, or have another shape; the first ones are named.
    """
    weights.require_fitting(found, expected, path, f"AllTracker checkpoint ({variant})", _WHERE)
