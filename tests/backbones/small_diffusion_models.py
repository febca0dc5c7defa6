"""Pipelines of the ε- and v-predicting families with random weights, saved by diffusers itself."""

import json
from pathlib import Path

import torch
from diffusers import (
    AllegroPipeline,
    AllegroTransformer3DModel,
    AutoencoderKLAllegro,
    AutoencoderKLCogVideoX,
    CogVideoXDDIMScheduler,
    CogVideoXDPMScheduler,
    CogVideoXImageToVideoPipeline,
    CogVideoXPipeline,
    CogVideoXTransformer3DModel,
    EulerAncestralDiscreteScheduler,
)
from small_models import letters_tokenizer
from small_text import WIDTH, enliven, t5

COGVIDEOX = ("2b", "5b", "5b-i2v", "1.5", "1.5-i2v")


def advise(path: Path, frames: int, size: int) -> Path:
    """The length and size of clips that a small model is run with."""
    advice = {"frames": frames, "height": size, "width": size}
    (path / "motive.json").write_text(json.dumps(advice))
    return path


def build_cogvideox(path: Path, variant: str = "5b") -> Path:
    """A CogVideoX pipeline for 9 frames of 32 × 32 pixels. variant: of `COGVIDEOX`."""
    torch.manual_seed(0)
    image = variant.endswith("i2v")
    pairs = variant.startswith("1.5")
    vae = AutoencoderKLCogVideoX(
        block_out_channels=(4, 4, 4, 4), latent_channels=16, layers_per_block=1,
        norm_num_groups=2, scaling_factor=1.15258426 if variant == "2b" else 0.7,
        invert_scale_latents=variant == "1.5-i2v",
    )  # fmt: skip
    transformer = CogVideoXTransformer3DModel(
        num_attention_heads=2, attention_head_dim=16, in_channels=32 if image else 16,
        out_channels=16, time_embed_dim=16, text_embed_dim=WIDTH, num_layers=2,
        sample_width=8 if pairs else 4, sample_height=8 if pairs else 4, sample_frames=9,
        max_text_seq_length=24,
        patch_size_t=2 if pairs else None, patch_bias=not pairs,
        use_rotary_positional_embeddings=variant != "2b",
        use_learned_positional_embeddings=variant == "5b-i2v",
        ofs_embed_dim=16 if variant == "1.5-i2v" else None,
    )  # fmt: skip
    enliven(vae, transformer)
    schedule = CogVideoXDDIMScheduler if variant == "2b" else CogVideoXDPMScheduler
    pipeline = CogVideoXImageToVideoPipeline if image else CogVideoXPipeline
    pipeline(
        tokenizer=letters_tokenizer(24),
        text_encoder=t5(),
        vae=vae,
        transformer=transformer,
        scheduler=schedule(
            prediction_type="v_prediction",
            rescale_betas_zero_snr=True,
            snr_shift_scale=3.0 if variant == "2b" else 1.0,
            timestep_spacing="trailing",
        ),
    ).save_pretrained(path)
    return advise(path, 9, 32)


def build_allegro(path: Path) -> Path:
    """An Allegro pipeline for 24 frames of 128 × 128 pixels, one tile of its VAE."""
    torch.manual_seed(0)
    vae = AutoencoderKLAllegro(
        block_out_channels=(4, 4, 4, 4), layers_per_block=1, norm_num_groups=2, sample_size=128
    )
    transformer = AllegroTransformer3DModel(
        num_attention_heads=2, attention_head_dim=24, num_layers=2, cross_attention_dim=48,
        sample_height=16, sample_width=16, sample_frames=6, caption_channels=WIDTH,
    )  # fmt: skip
    enliven(vae, transformer)
    # As after training: with random numbers its layers in time spread every frame over the whole tile.
    for name, parameter in vae.named_parameters():
        if "temp_conv" in name and ".conv4." in name:
            parameter.data *= 0.015
    AllegroPipeline(
        tokenizer=letters_tokenizer(512),
        text_encoder=t5(),
        vae=vae,
        transformer=transformer,
        scheduler=EulerAncestralDiscreteScheduler(
            beta_start=0.0001, beta_end=0.02, beta_schedule="linear", prediction_type="epsilon"
        ),
    ).save_pretrained(path)
    return advise(path, 24, 128)
