"""Pipelines of LTX-Video and its like with random weights, saved by diffusers itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch
from diffusers import (
    AutoencoderKLLTXVideo,
    AutoencoderKLWan,
    Cosmos2_5_PredictBasePipeline,
    Cosmos2VideoToWorldPipeline,
    CosmosTransformer3DModel,
    FlowMatchEulerDiscreteScheduler,
    LTXConditionPipeline,
    LTXImageToVideoPipeline,
    LTXPipeline,
    LTXVideoTransformer3DModel,
    UniPCMultistepScheduler,
)
from small_diffusion_models import advise
from small_models import letters_tokenizer
from small_text import WIDTH, enliven, t5
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

# The words of a message are its parts' texts.
CHAT_OF_PARTS = (
    "{% for m in messages %}{{ m['role'] }} {% for p in m['content'] %}{{ p['text'] }}{% endfor %} "
    "{% endfor %}"
)
LTX = {
    "text": LTXPipeline,
    "image": LTXImageToVideoPipeline,
    "condition": LTXConditionPipeline,
}


def build_ltx(path: Path, kind: str = "text") -> Path:
    """An LTX-Video pipeline for 17 frames of 64 × 64 pixels. kind: of `LTX`."""
    torch.manual_seed(1)
    vae = AutoencoderKLLTXVideo(
        latent_channels=8, block_out_channels=(8, 8, 8, 8), decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1), decoder_layers_per_block=(1, 1, 1, 1, 1),
        scaling_factor=1.0,
    )  # fmt: skip
    transformer = LTXVideoTransformer3DModel(
        in_channels=8, out_channels=8, num_attention_heads=2, attention_head_dim=8,
        cross_attention_dim=16, num_layers=2, caption_channels=WIDTH,
    )  # fmt: skip
    enliven(vae, transformer)
    vae.latents_mean += 0.1 * torch.randn(8)
    vae.latents_std += torch.rand(8)
    # As the published ones: 0.9.5 and later have no shift.
    shifting = {
        "use_dynamic_shifting": True, "base_shift": 0.95, "max_shift": 2.05,
        "base_image_seq_len": 1024, "max_image_seq_len": 4096, "shift_terminal": 0.1,
    }  # fmt: skip
    LTX[kind](
        tokenizer=letters_tokenizer(256 if kind == "condition" else 128),
        text_encoder=t5(),
        vae=vae,
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(**({} if kind == "condition" else shifting)),
    ).save_pretrained(path)
    return advise(path, 17, 64)


@contextmanager
def cosmos_without_extras() -> Iterator[None]:
    """Cosmos' pipeline without its guardrail, and its transformer without torchvision.

    Neither is needed to train: the one judges prompts, and of the other the transformer uses `resize`
    on a padding mask of zeros.
    """

    def nearest(mask: torch.Tensor, size: list[int], interpolation: object) -> torch.Tensor:
        return torch.nn.functional.interpolate(mask, size=size, mode="nearest")

    transforms = SimpleNamespace(
        functional=SimpleNamespace(resize=nearest), InterpolationMode=SimpleNamespace(NEAREST=0)
    )
    pipelines = "diffusers.pipelines.cosmos.pipeline_cosmos2_{}.CosmosSafetyChecker"
    transformer = "diffusers.models.transformers.transformer_cosmos.transforms"
    with (
        patch(pipelines.format("video2world"), lambda: None),
        patch(pipelines.format("5_predict"), lambda: None),
        patch(transformer, transforms, create=True),
        patch("diffusers.utils.is_torchvision_available", lambda: True),
    ):
        yield


def build_cosmos(path: Path) -> Path:
    """A Cosmos2VideoToWorldPipeline for 9 frames of 64 × 64 pixels."""
    torch.manual_seed(0)
    vae, transformer = _cosmos_networks(text_embed_dim=WIDTH)
    with cosmos_without_extras():
        Cosmos2VideoToWorldPipeline(
            tokenizer=letters_tokenizer(512),
            text_encoder=t5(),
            vae=vae,
            transformer=transformer,
            scheduler=FlowMatchEulerDiscreteScheduler(use_karras_sigmas=True),
        ).save_pretrained(path)
    return advise(path, 9, 64)


def build_cosmos_25(path: Path) -> Path:
    """A Cosmos2_5_PredictBasePipeline for 9 frames of 64 × 64 pixels."""
    torch.manual_seed(0)
    vae, transformer = _cosmos_networks(
        text_embed_dim=12, use_crossattn_projection=True, crossattn_proj_in_channels=2 * WIDTH,
        encoder_hidden_states_channels=12,
    )  # fmt: skip
    text_config = {
        "vocab_size": 32, "hidden_size": WIDTH, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 1024,
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 1, 1]}, "pad_token_id": 0,
        "bos_token_id": 1, "eos_token_id": 1,
    }  # fmt: skip
    vision_config = {
        "depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "patch_size": 2,
        "out_hidden_size": WIDTH, "window_size": 4, "fullatt_block_indexes": [0],
    }  # fmt: skip
    with cosmos_without_extras():
        Cosmos2_5_PredictBasePipeline(
            tokenizer=letters_tokenizer(512, CHAT_OF_PARTS),
            text_encoder=Qwen2_5_VLForConditionalGeneration(
                Qwen2_5_VLConfig(text_config=text_config, vision_config=vision_config)
            ),
            vae=vae,
            transformer=transformer,
            scheduler=UniPCMultistepScheduler(
                use_karras_sigmas=True, use_flow_sigmas=True, prediction_type="flow_prediction",
                sigma_max=200.0, sigma_min=0.01,
            ),
        ).save_pretrained(path)  # fmt: skip
    return advise(path, 9, 64)


def _cosmos_networks(**changes: Any) -> tuple[AutoencoderKLWan, CosmosTransformer3DModel]:
    vae = AutoencoderKLWan(
        base_dim=4, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1,
        temperal_downsample=[False, True, True],
    )  # fmt: skip
    config = {
        "in_channels": 17, "out_channels": 16, "num_attention_heads": 2, "attention_head_dim": 16,
        "num_layers": 2, "mlp_ratio": 2, "adaln_lora_dim": 4, "max_size": (8, 32, 32),
        "rope_scale": (1.0, 3.0, 3.0), "concat_padding_mask": True, "extra_pos_embed_type": None,
    }  # fmt: skip
    transformer = CosmosTransformer3DModel(**config, **changes)
    enliven(vae, transformer)
    return vae, transformer
