"""CLIP's image encoder (Radford et al., ICML 2021) by transformers."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from motive.backbones.device import find_device
from motive.evaluation.networks.pretrained import identify, load_pretrained


class Clip:
    """The projected class token: what `encode_image` of the original program gives, in float32.

    where: a folder or a hub id of a CLIP model, whole or its vision half.
    option: the command line's, for the sentence.
    """

    def __init__(self, where: str, option: str, device: str = "auto") -> None:
        from transformers import CLIPVisionModelWithProjection

        self._device = find_device(device)
        network: Any = load_pretrained(
            CLIPVisionModelWithProjection, where, option, settings=_vision_settings
        )
        self.identity = identify(network, where)
        self._network = network.to(self._device)

    @torch.inference_mode()
    def __call__(self, images_b3hw: Tensor) -> Tensor:
        """`(B, D)` of images that `preprocessing.for_clip` made."""
        return self._network(images_b3hw.to(self._device)).image_embeds.cpu()


def _vision_settings(folder: Path) -> Any:
    """The configuration of the vision half, which need not know the size of a whole model's features."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    vision = getattr(config, "vision_config", config)
    vision.projection_dim = config.projection_dim
    return vision
