"""A LoRA of our own: factors in the network, trained alone, saved for diffusers' `load_lora_weights`.

Hu et al., "LoRA: low-rank adaptation of large language models", ICLR 2022; the adapter is peft's.
"""

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from motive.backbones.base import Backbone
from motive.backbones.finetuned import ADAPTER, is_factor
from motive.errors import UserError
from motive.gradients.counter import key, uniform

# The attention's matrices, as diffusers' and finetrainers' own scripts take them.
TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
FILE_NAME = "pytorch_lora_weights.safetensors"


def require_lora(backbone: Backbone) -> None:
    """Check that diffusers loads a LoRA into such a model.

    Raises UserError when it does not, or peft is not installed.
    """
    import diffusers

    pipeline = getattr(diffusers, backbone.source.pipeline_class, None)
    network = backbone.empty_denoiser()
    there = any(name.endswith(TARGETS) for name, _ in network.named_modules())
    if not (there and hasattr(pipeline, "save_lora_weights") and hasattr(network, "add_adapter")):
        raise UserError(
            f"diffusers loads no LoRA into a {backbone.source.pipeline_class}: leave out --lora"
        )
    try:
        import peft  # noqa: F401
    except ImportError:
        raise UserError("a LoRA needs the package peft: run pip install peft") from None


def add_lora(network: Any, rank: int, seed: int) -> None:
    """Put a LoRA beside the attention's matrices, and let nothing else be trained.

    The first factor is uniform in ±1/√n for n inputs, the second zero, so that the network is unchanged at
    first; alpha is the rank, so that its factor is 1. Both are float32 whatever the network's dtype. The
    numbers are a function of the seed and the parameter's name.
    """
    from peft import LoraConfig

    network.requires_grad_(False)
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=list(TARGETS))
    network.add_adapter(config, adapter_name=ADAPTER)
    for name, parameter in network.named_parameters():
        if is_factor(name):
            parameter.data = _first_value(name, tuple(parameter.shape), seed).to(parameter.device)
            parameter.requires_grad_(True)


def _first_value(name: str, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    if ".lora_B." in name:
        return torch.zeros(shape)
    count, inputs = math.prod(shape), math.prod(shape[1:])
    drawn = uniform(key(seed, "LoRA", name), np.arange(count, dtype=np.uint64))
    return torch.from_numpy(((2 * drawn - 1) / math.sqrt(inputs)).astype(np.float32)).view(shape)


def save_lora(network: Any, backbone: Backbone, folder: Path) -> Path:
    """Write the LoRA into `folder`, by the pipeline's own `save_lora_weights`; whole or not at all."""
    import diffusers
    from peft import get_peft_model_state_dict

    kind = "unet" if backbone.denoiser.startswith("unet") else "transformer"
    metadata = network.peft_config[ADAPTER].to_dict()
    part = f".{FILE_NAME}.{os.getpid()}.part"
    getattr(diffusers, backbone.source.pipeline_class).save_lora_weights(
        folder,
        weight_name=part,
        **{
            f"{kind}_lora_layers": get_peft_model_state_dict(network, adapter_name=ADAPTER),
            f"{kind}_lora_adapter_metadata": {
                name: sorted(value) if isinstance(value, set) else value
                for name, value in metadata.items()
            },
        },
    )
    os.replace(folder / part, folder / FILE_NAME)
    return folder / FILE_NAME
