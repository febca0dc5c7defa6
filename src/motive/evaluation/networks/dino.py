"""DINO (Caron et al., ICCV 2021) by transformers' ViTModel, to the numbers of the original program."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from motive.backbones.device import find_device
from motive.evaluation.networks.pretrained import identify, load_pretrained

NORM_EPSILON = 1e-6  # the original's; the converted configuration has 1e-12
NUDGE = 0.1  # tokens that the original adds to each side of the grid of positions


class Dino:
    """The class token after the last norm, which is what the original network gives.

    where: a folder or a hub id of a ViTModel.

    Two things differ in transformers and are put right here: the norm's epsilon, and the positions of
    pictures that are not square, which the original resamples by (tokens + 0.1) / 14 on each side.
    """

    def __init__(self, where: str, device: str = "auto") -> None:
        from transformers import ViTModel

        self._device = find_device(device)
        network: Any = load_pretrained(
            ViTModel, where, "--dino", settings=_settings, add_pooling_layer=False
        )
        embeddings = network.embeddings
        embeddings.interpolate_pos_encoding = partial(_positions, embeddings)
        self.identity = identify(network, where)
        self._network = network.to(self._device)

    @torch.inference_mode()
    def __call__(self, images_b3hw: Tensor) -> Tensor:
        """`(B, D)` of images that `preprocessing.for_dino` made."""
        output = self._network(images_b3hw.to(self._device), interpolate_pos_encoding=True)
        return output.last_hidden_state[:, 0].cpu()


def _settings(folder: Path) -> Any:
    from transformers import ViTConfig

    return ViTConfig.from_pretrained(folder, local_files_only=True, layer_norm_eps=NORM_EPSILON)


def _positions(embeddings: Any, tokens_bld: Tensor, height: int, width: int) -> Tensor:
    """Embeddings of the positions, `(1, L, D)`, for a picture of so many pixels."""
    own = embeddings.position_embeddings
    if tokens_bld.shape[1] == own.shape[1] and height == width:
        return own
    side = round((own.shape[1] - 1) ** 0.5)
    patch = embeddings.patch_embeddings.patch_size
    rows, columns = height // patch[0], width // patch[1]
    grid = own[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    # The scale itself goes into the sampling places, not only into the size.
    scale = ((rows + NUDGE) / side, (columns + NUDGE) / side)
    grid = functional.interpolate(grid, scale_factor=scale, mode="bicubic")
    assert grid.shape[2:] == (rows, columns)
    return torch.cat((own[:, :1], grid.permute(0, 2, 3, 1).flatten(1, 2)), dim=1)
