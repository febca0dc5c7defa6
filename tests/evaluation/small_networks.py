"""Networks of the real classes, as small as these allow, saved by transformers in its own format."""

from pathlib import Path

import torch
from torch import Tensor


def dino_folder(folder: Path) -> Path:
    """A ViTModel of 32 × 32 pixels in patches of 8, with weights that a formula gives.

    The pictures' part is small, so that the epsilon of the norms counts.
    """
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        image_size=32, patch_size=8, layer_norm_eps=1e-12,
    )  # fmt: skip
    network = ViTModel(config, add_pooling_layer=False)
    weights = network.state_dict()
    for name, weight in weights.items():
        scale = 0.02 if name.startswith("embeddings") else 0.5
        weight.copy_(wave(weight.shape, scale))
    network.save_pretrained(folder)
    return folder


def wave(shape: torch.Size, scale: float) -> Tensor:
    count = shape.numel()
    places = 0.7 * torch.arange(count, dtype=torch.float64) + count
    return (scale * torch.sin(places)).reshape(shape).float()


def clip_folder(folder: Path, *, image_size: int = 224, projection: int = 12) -> Path:
    """A whole CLIPModel, as OpenAI's are on the hub, with random weights."""
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    config = CLIPConfig(
        text_config={**small, "num_attention_heads": 2, "vocab_size": 64},
        vision_config={
            **small, "num_attention_heads": 2, "image_size": image_size, "patch_size": 32,
        },
        projection_dim=projection,
    )  # fmt: skip
    CLIPModel(config).save_pretrained(folder)
    return folder
