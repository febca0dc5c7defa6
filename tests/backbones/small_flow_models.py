"""Pipelines of LTX-Video and its like with random weights, saved by diffusers itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import torch
from diffusers import (
    AutoencoderKLLTXVideo,
    AutoencoderKLWan,
    Cosmos2VideoToWorldPipeline,
    CosmosTransformer3DModel,
    FlowMatchEulerDiscreteScheduler,
    LTXImageToVideoPipeline,
    LTXPipeline,
    LTXVideoTransformer3DModel,
)
from small_diffusion_models import advise
from small_models import letters_tokenizer
from small_text import WIDTH, enliven, t5


def build_ltx(path: Path, image: bool = False) -> Path:
    """An LTX-Video pipeline for 17 frames of 64 × 64 pixels."""
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
    kind = LTXImageToVideoPipeline if image else LTXPipeline
    kind(
        tokenizer=letters_tokenizer(128),
        text_encoder=t5(),
        vae=vae,
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, base_image_seq_len=1024,
            max_image_seq_len=4096, shift_terminal=0.1,
        ),
    ).save_pretrained(path)  # fmt: skip
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
    pipeline = "diffusers.pipelines.cosmos.pipeline_cosmos2_video2world.CosmosSafetyChecker"
    transformer = "diffusers.models.transformers.transformer_cosmos.transforms"
    with (
        patch(pipeline, lambda: None),
        patch(transformer, transforms, create=True),
        patch("diffusers.utils.is_torchvision_available", lambda: True),
    ):
        yield


def build_cosmos(path: Path) -> Path:
    """A Cosmos2VideoToWorldPipeline for 9 frames of 64 × 64 pixels."""
    torch.manual_seed(0)
    vae = AutoencoderKLWan(
        base_dim=4, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1,
        temperal_downsample=[False, True, True],
    )  # fmt: skip
    transformer = CosmosTransformer3DModel(
        in_channels=17, out_channels=16, num_attention_heads=2, attention_head_dim=16,
        num_layers=2, mlp_ratio=2, text_embed_dim=WIDTH, adaln_lora_dim=4, max_size=(8, 32, 32),
        rope_scale=(1.0, 3.0, 3.0), concat_padding_mask=True, extra_pos_embed_type=None,
    )  # fmt: skip
    enliven(vae, transformer)
    with cosmos_without_extras():
        Cosmos2VideoToWorldPipeline(
            tokenizer=letters_tokenizer(512),
            text_encoder=t5(),
            vae=vae,
            transformer=transformer,
            scheduler=FlowMatchEulerDiscreteScheduler(use_karras_sigmas=True),
        ).save_pretrained(path)
    return advise(path, 9, 64)
