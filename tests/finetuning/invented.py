"""Models, and clips that were never encoded."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, UNet3DConditionModel

from motive.backbones import load_backbone
from motive.backbones.base import Backbone
from motive.backbones.source import find_model
from motive.finetuning.clips import TrainingClip


def backbone_of(model: Path | str, dtype: str = "float32") -> Backbone:
    return load_backbone(find_model(str(model)), dtype=dtype, device="cpu")


def wan_clips(frames: Sequence[int], height: int = 4, width: int = 4) -> list[TrainingClip]:
    """Clips for `small_wan`, one for each number of latent frames."""
    generator = torch.Generator().manual_seed(7)
    return [
        TrainingClip(
            f"clip {i}",
            torch.randn(16, f, height, width, generator=generator),
            {"text": torch.randn(3 + i, 16, generator=generator)},
        )
        for i, f in enumerate(frames)
    ]


def build_modelscope(folder: Path, prediction: str) -> Path:
    """The U-Net and scheduler of a TextToVideoSDPipeline; what encodes is not there."""
    torch.manual_seed(0)
    UNet3DConditionModel(
        block_out_channels=(8, 16), layers_per_block=1, sample_size=8, norm_num_groups=2,
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
        cross_attention_dim=16, attention_head_dim=4,
    ).save_pretrained(folder / "unet")  # fmt: skip
    DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        prediction_type=prediction,
    ).save_pretrained(folder / "scheduler")  # fmt: skip
    index = {"_class_name": "TextToVideoSDPipeline", "unet": ["diffusers", "UNet3DConditionModel"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def weights(network: Any) -> dict[str, torch.Tensor]:
    """A copy of all parameters."""
    return {name: p.detach().clone() for name, p in network.named_parameters()}


def largest_difference(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[n].float() - other[n].float()).abs().max()) for n in one)
