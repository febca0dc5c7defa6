"""Networks that transformers keeps: found in a folder or on the hub, whole or not at all."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import nn

from motive.errors import UserError
from motive.evaluation.networks.choice import MissingNetworkError
from motive.motion.weights import first_line, weights_digest

_SAFE = ["config.json", "model*.safetensors", "model.safetensors.index.json"]
_PICKLED = "pytorch_model.bin"  # of tensors alone: transformers reads no other


def load_pretrained(
    cls: Any, where: str, option: str, *, settings: Callable[[Path], Any], **options: Any
) -> nn.Module:
    """`cls.from_pretrained`, in float32, frozen; weights are safetensors or tensors without code.

    where: a folder or a hub id.
    option: the command line's, for the sentence.
    settings: the configuration to make the network by, from the model's folder.

    Raises UserError for a folder that is not there or is damaged, MissingNetworkError when the hub does
    not give the model.
    """
    import torch
    from transformers.utils import logging

    folder = _find(where, option)
    logging.disable_progress_bar()
    said = logging.get_verbosity()
    logging.set_verbosity_error()  # of the half of CLIP that is left out on purpose
    try:
        network, info = cls.from_pretrained(
            folder,
            config=settings(folder),
            dtype=torch.float32,
            output_loading_info=True,
            local_files_only=True,
            **options,
        )
    # A damaged file fails in as many ways as there are layers to read it.
    except Exception as error:
        raise UserError(
            f"{option} {where} cannot be loaded ({first_line(error)}): download it again"
        ) from error
    finally:
        logging.set_verbosity(said)
    if missing := sorted(info["missing_keys"]):
        raise UserError(
            f"{option} {where} lacks {len(missing)} weights of a {cls.__name__}, such as "
            f"{missing[0]}: give the model that docs/evaluation.md names"
        )
    return network.eval().requires_grad_(False)


def identify(network: nn.Module, where: str) -> str:
    """Name, class and digest of the weights."""
    weights = weights_digest(dict(network.state_dict()))
    return f"{Path(where).name} {type(network).__name__} weights={weights}"


def _find(where: str, option: str) -> Path:
    """The model's folder, fetched from the hub where it is none."""
    local = Path(where).expanduser()
    if local.is_dir():
        return local
    if where.startswith((".", "/", "~")) or where.count("/") != 1:
        raise UserError(f"there is no folder {where}: give {option} a folder or a hub id")
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(where, allow_patterns=_SAFE))
        if not any(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(where, allow_patterns=["config.json", _PICKLED]))
    # The hub's errors are these; they differ by version.
    except (OSError, ValueError) as error:
        raise MissingNetworkError(
            f"the hub does not give {where} ({first_line(error)})",
            f"run hf download {where} where there is a connection, or give {option} a folder",
        ) from error
    return folder
