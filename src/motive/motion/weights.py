"""A tracker's weights: read from a file without running what is in it, checked, and told apart."""

import hashlib
import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from motive.errors import UserError

_NAMES_SHOWN = 3


def read_state_dict(path: Path, tracker: str, hint: str) -> dict[str, Tensor]:
    """The weights in a `.safetensors` file or a pickle of tensors, bare or under the key "model".

    tracker, hint: whose weights the errors speak of, and where there are some.

    Raises UserError when the file cannot be read, or holds anything but named tensors.
    """
    try:
        if path.suffix == ".safetensors":
            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    # A damaged file fails in as many ways as there are layers to read it: zip, pickle, header.
    except (
        OSError,
        RuntimeError,
        ValueError,
        EOFError,
        pickle.UnpicklingError,
        SafetensorError,
    ) as error:
        raise UserError(
            f"{tracker} checkpoint {path} cannot be read ({first_line(error)})."
        ) from error
    if isinstance(content, dict):
        content = content.get("model", content)
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise UserError(f"{tracker} checkpoint {path} holds no dict of tensors: {hint}.")
    return dict(content)


def require_fitting(
    found: dict[str, Tensor], expected: dict[str, Tensor], path: Path, what: str, hint: str
) -> None:
    """Refuse weights that are not exactly the network's.

    Raises UserError when names are missing, unexpected, or have another shape; the first are named.
    """
    differences = {
        "missing": [name for name in expected if name not in found],
        "unexpected": [name for name in found if name not in expected],
        "of another shape": [
            f"{name} {tuple(found[name].shape)} instead of {tuple(tensor.shape)}"
            for name, tensor in expected.items()
            if name in found and found[name].shape != tensor.shape
        ],
    }
    listed = "; ".join(
        f"{len(names)} {kind}: {', '.join(names[:_NAMES_SHOWN])}"
        + (", ..." if len(names) > _NAMES_SHOWN else "")
        for kind, names in differences.items()
        if names
    )
    if listed:
        raise UserError(f"{path} is no {what}: {listed}; {hint}.")


def weights_digest(weights: dict[str, Tensor]) -> str:
    """BLAKE2b of names, shapes and float32 values, 32 hex digits; the order does not count."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(weights):
        values = weights[name].detach().float().cpu().contiguous()
        digest.update(f"{name} {tuple(values.shape)}\n".encode())
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    return (str(error).splitlines() or [type(error).__name__])[0]
