"""LTX-2 pipelines with random weights, saved by diffusers itself; without the parts that are of the sound."""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLLTX2Video,
    FlowMatchEulerDiscreteScheduler,
    LTX2ConditionPipeline,
    LTX2ImageToVideoPipeline,
    LTX2Pipeline,
    LTX2VideoTransformer3DModel,
)
from diffusers.pipelines.ltx2 import LTX2TextConnectors
from small_diffusion_models import advise
from small_models import letters_tokenizer
from small_text import WIDTH, enliven
from transformers import Gemma3Config, Gemma3ForConditionalGeneration

# LTX-2.0 and LTX-2.5 ask for other conditions of the same class.
LTX2: dict[str, tuple[type, str]] = {
    "text": (LTX2Pipeline, "2.0"),
    "image": (LTX2ImageToVideoPipeline, "2.5"),
    "condition": (LTX2ConditionPipeline, "2.5"),
}
_LAYERS = 3  # of the text encoder's hidden states
_INNER, _SOUND = 32, 16  # widths of the two streams


def gemma() -> Gemma3ForConditionalGeneration:
    return Gemma3ForConditionalGeneration(
        Gemma3Config(
            text_config={
                "vocab_size": 32, "hidden_size": WIDTH, "intermediate_size": 32,
                "num_hidden_layers": _LAYERS - 1, "num_attention_heads": 2,
                "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 2048,
                "sliding_window": 512, "pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1,
            },
            vision_config={
                "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
                "num_attention_heads": 2, "image_size": 8, "patch_size": 4,
            },
            mm_tokens_per_image=1, boi_token_index=28, eoi_token_index=29, image_token_index=30,
        )
    )  # fmt: skip


def build_ltx2(path: Path, kind: str = "text") -> Path:
    """An LTX-2 pipeline for 17 frames of 64 × 64 pixels. kind: of `LTX2`."""
    torch.manual_seed(1)
    cls, version = LTX2[kind]
    own: dict[str, Any] = {"use_prompt_embeddings": True}
    modal: dict[str, Any] = {}
    width = WIDTH  # of the text that the transformer takes
    if version == "2.5":
        own = {
            "use_prompt_embeddings": False, "gated_attn": True, "cross_attn_mod": True,
            "audio_gated_attn": True, "audio_cross_attn_mod": True, "perturbed_attn": True,
            "ff_bias": False, "use_keyframes_abs_pos_embedding": True,
        }  # fmt: skip
        modal = {
            "per_modality_projections": True, "video_hidden_dim": _INNER,
            "audio_hidden_dim": _SOUND, "proj_bias": True, "video_gated_attn": True,
            "audio_gated_attn": True,
        }  # fmt: skip
        width = _INNER
    transformer = LTX2VideoTransformer3DModel(
        in_channels=8, out_channels=8, num_attention_heads=2, attention_head_dim=_INNER // 2,
        cross_attention_dim=_INNER, audio_in_channels=8, audio_out_channels=8,
        audio_num_attention_heads=2, audio_attention_head_dim=_SOUND // 2,
        audio_cross_attention_dim=_SOUND, num_layers=2, caption_channels=WIDTH, rope_type="split",
        **own,
    )  # fmt: skip
    connectors = LTX2TextConnectors(
        caption_channels=WIDTH, text_proj_in_factor=_LAYERS, rope_type="split",
        video_connector_num_attention_heads=2, video_connector_attention_head_dim=width // 2,
        video_connector_num_layers=1, audio_connector_num_attention_heads=2,
        audio_connector_attention_head_dim=8, audio_connector_num_layers=1, **modal,
    )  # fmt: skip
    vae = AutoencoderKLLTX2Video(
        latent_channels=8, block_out_channels=(8, 8, 8, 8), decoder_block_out_channels=(8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1), decoder_layers_per_block=(1, 1, 1, 1),
        spatial_compression_ratio=32, temporal_compression_ratio=8,
    )  # fmt: skip
    enliven(vae, transformer, connectors)
    vae.latents_mean += 0.1 * torch.randn(8)
    vae.latents_std += torch.rand(8)
    cls(
        tokenizer=letters_tokenizer(128),
        text_encoder=gemma(),
        connectors=connectors,
        vae=vae,
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, base_image_seq_len=1024,
            max_image_seq_len=4096, shift_terminal=0.1,
        ),
        audio_vae=None,
        vocoder=None,
    ).save_pretrained(path)  # fmt: skip
    return advise(path, 17, 64)
