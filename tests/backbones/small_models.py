"""Folders of pipelines with random weights, as small as their real classes allow.

Each is saved by diffusers and transformers in their own format, so that loading one is what loading a
published model is. `motive.json` beside the model says what size of clip it takes.
"""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLHunyuanVideo,
    AutoencoderKLHunyuanVideo15,
    AutoencoderKLMochi,
    AutoencoderKLWan,
    ClassifierFreeGuidance,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideo15Pipeline,
    HunyuanVideo15Transformer3DModel,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
    MochiPipeline,
    MochiTransformer3DModel,
    SkyReelsV2DiffusionForcingPipeline,
    SkyReelsV2ImageToVideoPipeline,
    SkyReelsV2Pipeline,
    SkyReelsV2Transformer3DModel,
    UniPCMultistepScheduler,
    WanImageToVideoPipeline,
    WanPipeline,
    WanTransformer3DModel,
)
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlamaModel,
    PreTrainedTokenizerFast,
    Qwen2_5_VLTextConfig,
    Qwen2_5_VLTextModel,
    T5Config,
    T5EncoderModel,
    UMT5Config,
    UMT5EncoderModel,
)


def letters_tokenizer(length: int, chat_template: str | None = None) -> PreTrainedTokenizerFast:
    """One token for each letter a..z, then </s>; 29 tokens, padded with 0."""
    letters = {"<pad>": 0, "</s>": 1, "<unk>": 2} | {chr(c): c - 94 for c in range(97, 123)}
    core = Tokenizer(models.WordLevel(letters, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    core.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
        model_max_length=length,
    )  # fmt: skip
    tokenizer.chat_template = chat_template
    return tokenizer


def umt5_encoder() -> UMT5EncoderModel:
    """Hidden size 16."""
    return UMT5EncoderModel(
        UMT5Config(
            vocab_size=32, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2,
            pad_token_id=0, eos_token_id=1,
        )
    )  # fmt: skip


def wan_vae(**changes: Any) -> AutoencoderKLWan:
    """8 × 8 pixels and 4 frames to a latent of 16 channels."""
    config = {
        "base_dim": 4, "z_dim": 16, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1,
        "temperal_downsample": [False, True, True],
    }  # fmt: skip
    return AutoencoderKLWan(**(config | changes))


def wan_22_vae() -> AutoencoderKLWan:
    """16 × 16 pixels and 4 frames to a latent of 48 channels, each with a mean and a spread."""
    return wan_vae(
        z_dim=48, decoder_base_dim=4, is_residual=True, patch_size=2, in_channels=12,
        out_channels=12, scale_factor_spatial=16,
        latents_mean=[0.03 * c - 0.7 for c in range(48)],
        latents_std=[0.4 + 0.02 * c for c in range(48)],
    )  # fmt: skip


def wan_transformer(channels: int = 16, **changes: Any) -> WanTransformer3DModel:
    config = {
        "patch_size": (1, 2, 2), "num_attention_heads": 2, "attention_head_dim": 12,
        "in_channels": channels, "out_channels": channels, "text_dim": 16, "freq_dim": 16,
        "ffn_dim": 32, "num_layers": 2, "cross_attn_norm": True, "rope_max_seq_len": 32,
    }  # fmt: skip
    return WanTransformer3DModel(**(config | changes))


def _save(pipeline: Any, path: Path, frames: int, height: int, width: int) -> Path:
    pipeline.save_pretrained(path)
    advice = {"frames": frames, "height": height, "width": width}
    (path / "motive.json").write_text(json.dumps(advice))
    return path


def build_wan_ti2v(path: Path) -> Path:
    """Wan 2.2 TI2V-5B as published: a text-to-video pipeline with expanded timesteps."""
    torch.manual_seed(1)
    pipeline = WanPipeline(
        tokenizer=letters_tokenizer(24),
        text_encoder=umt5_encoder(),
        vae=wan_22_vae(),
        transformer=wan_transformer(48),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=5.0),
        expand_timesteps=True,
    )
    return _save(pipeline, path, 9, 64, 64)


def build_wan_ti2v_image(path: Path) -> Path:
    """The same as an image-to-video pipeline."""
    torch.manual_seed(2)
    pipeline = WanImageToVideoPipeline(
        tokenizer=letters_tokenizer(24),
        text_encoder=umt5_encoder(),
        vae=wan_22_vae(),
        transformer=wan_transformer(48),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=5.0),
        expand_timesteps=True,
    )
    return _save(pipeline, path, 9, 64, 64)


def build_wan_two_experts(path: Path) -> Path:
    """Wan 2.2 T2V-A14B: experts of different weights, parted at 0.875."""
    torch.manual_seed(3)
    pipeline = WanPipeline(
        tokenizer=letters_tokenizer(24),
        text_encoder=umt5_encoder(),
        vae=wan_vae(),
        transformer=wan_transformer(),
        transformer_2=wan_transformer(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        boundary_ratio=0.875,
    )
    return _save(pipeline, path, 9, 32, 32)


def clip_vision() -> dict[str, Any]:
    """An image encoder of hidden size 16 for pictures of 16 × 16 pixels, and its processor."""
    config = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        image_size=16, patch_size=8, projection_dim=16,
    )  # fmt: skip
    processor = CLIPImageProcessor(
        size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}
    )
    return {"image_encoder": CLIPVisionModel(config), "image_processor": processor}


def build_wan_image(path: Path) -> Path:
    """Wan 2.1 I2V: mask channels and the first frame's latents, and CLIP's view of it."""
    torch.manual_seed(4)
    pipeline = WanImageToVideoPipeline(
        tokenizer=letters_tokenizer(512),
        text_encoder=umt5_encoder(),
        vae=wan_vae(),
        transformer=wan_transformer(
            in_channels=36, image_dim=16, added_kv_proj_dim=24, rope_max_seq_len=32
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        **clip_vision(),
    )
    return _save(pipeline, path, 9, 32, 32)


def build_wan_image_two_experts(path: Path) -> Path:
    """Wan 2.2 I2V-A14B: no view by CLIP, experts parted at 0.9."""
    torch.manual_seed(5)
    pipeline = WanImageToVideoPipeline(
        tokenizer=letters_tokenizer(24),
        text_encoder=umt5_encoder(),
        vae=wan_vae(),
        transformer=wan_transformer(in_channels=36),
        transformer_2=wan_transformer(in_channels=36),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        boundary_ratio=0.9,
    )
    return _save(pipeline, path, 9, 32, 32)


def words_tokenizer(length: int) -> PreTrainedTokenizerFast:
    """One token for each word of a few, and one for any other; 32 tokens, padded with 0 on the right."""
    words = ["<pad>", "</s>", "<unk>", "a", "ball", "rolls", "user", "assistant", "Describe", "the"]
    words += [f"word{i}" for i in range(len(words), 32)]
    vocabulary = {word: i for i, word in enumerate(words)}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
        model_max_length=length,
    )  # fmt: skip


def t5_encoder() -> T5EncoderModel:
    """Hidden size 16."""
    return T5EncoderModel(
        T5Config(
            vocab_size=32, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2,
            pad_token_id=0, eos_token_id=1, feed_forward_proj="gated-gelu",
        )
    )  # fmt: skip


def build_mochi(path: Path) -> Path:
    torch.manual_seed(6)
    pipeline = MochiPipeline(
        tokenizer=letters_tokenizer(256),
        text_encoder=t5_encoder(),
        vae=AutoencoderKLMochi(
            encoder_block_out_channels=(32, 32, 32, 32), decoder_block_out_channels=(32, 32, 32, 32),
            latent_channels=4, layers_per_block=(1, 1, 1, 1, 1),
            latents_mean=(-0.07, 0.4, -0.2, 0.3), latents_std=(0.9, 0.5, 1.3, 0.8),
        ),
        transformer=MochiTransformer3DModel(
            num_attention_heads=2, attention_head_dim=8, num_layers=2, pooled_projection_dim=16,
            in_channels=4, text_embed_dim=16, time_embed_dim=8, max_sequence_length=24,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(invert_sigmas=True),
    )  # fmt: skip
    with torch.no_grad():  # zero as they are made, frequencies would leave no position
        pipeline.transformer.pos_frequencies.normal_()
    return _save(pipeline, path, 13, 32, 32)


def build_hunyuan_video(path: Path) -> Path:
    torch.manual_seed(7)
    pipeline = HunyuanVideoPipeline(
        tokenizer=words_tokenizer(512),
        text_encoder=LlamaModel(
            LlamaConfig(
                vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=3,
                num_attention_heads=2, num_key_value_heads=2, pad_token_id=0, eos_token_id=1,
            )
        ),
        tokenizer_2=letters_tokenizer(77),
        text_encoder_2=CLIPTextModel(
            CLIPTextConfig(
                vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
                num_attention_heads=2, max_position_embeddings=77, pad_token_id=0, bos_token_id=0,
                eos_token_id=1, projection_dim=16,
            )
        ),
        vae=AutoencoderKLHunyuanVideo(
            latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=2,
        ),
        transformer=HunyuanVideoTransformer3DModel(
            in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=12,
            num_layers=1, num_single_layers=1, num_refiner_layers=1, text_embed_dim=16,
            pooled_projection_dim=16, rope_axes_dim=(4, 4, 4),
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
    )  # fmt: skip
    return _save(pipeline, path, 9, 32, 32)


CHAT = "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}assistant"


def build_hunyuan_video_15(path: Path) -> Path:
    torch.manual_seed(8)
    pipeline = HunyuanVideo15Pipeline(
        tokenizer=letters_tokenizer(2000, CHAT),
        text_encoder=Qwen2_5_VLTextModel(
            Qwen2_5_VLTextConfig(
                vocab_size=32, hidden_size=16, intermediate_size=32, num_hidden_layers=3,
                num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=2048,
                rope_scaling={"type": "mrope", "mrope_section": [2, 1, 1]}, pad_token_id=0,
            )
        ),
        tokenizer_2=letters_tokenizer(256),
        text_encoder_2=t5_encoder(),
        vae=AutoencoderKLHunyuanVideo15(
            latent_channels=4, block_out_channels=(8, 8, 8, 8, 8), layers_per_block=1,
        ),
        transformer=HunyuanVideo15Transformer3DModel(
            in_channels=9, out_channels=4, num_attention_heads=2, attention_head_dim=12,
            num_layers=2, num_refiner_layers=1, text_embed_dim=16, text_embed_2_dim=16,
            image_embed_dim=8, rope_axes_dim=(4, 4, 4), task_type="t2v",
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=5.0),
        guider=ClassifierFreeGuidance(),
    )  # fmt: skip
    return _save(pipeline, path, 9, 64, 64)


def skyreels_transformer(**changes: Any) -> SkyReelsV2Transformer3DModel:
    config = {
        "num_attention_heads": 2, "attention_head_dim": 12, "in_channels": 16, "out_channels": 16,
        "text_dim": 16, "freq_dim": 16, "ffn_dim": 32, "num_layers": 2, "rope_max_seq_len": 32,
    }  # fmt: skip
    return SkyReelsV2Transformer3DModel(**(config | changes))


def _build_skyreels(path: Path, cls: Any, length: int = 24, **components: Any) -> Path:
    pipeline = cls(
        tokenizer=letters_tokenizer(length),
        text_encoder=umt5_encoder(),
        vae=wan_vae(),
        scheduler=UniPCMultistepScheduler(
            prediction_type="flow_prediction", num_train_timesteps=1000, use_flow_sigmas=True
        ),
        **components,
    )
    return _save(pipeline, path, 9, 32, 32)


def build_skyreels_v2(path: Path) -> Path:
    torch.manual_seed(9)
    return _build_skyreels(path, SkyReelsV2Pipeline, transformer=skyreels_transformer())


def build_skyreels_v2_forcing(path: Path) -> Path:
    """The 1.3B model takes the frame rate; the causal blocks are the transformer's own setting."""
    torch.manual_seed(10)
    transformer = skyreels_transformer(inject_sample_info=True)
    return _build_skyreels(path, SkyReelsV2DiffusionForcingPipeline, transformer=transformer)


def build_skyreels_v2_image(path: Path) -> Path:
    torch.manual_seed(11)
    transformer = skyreels_transformer(in_channels=36, image_dim=16, added_kv_proj_dim=24)
    return _build_skyreels(
        path, SkyReelsV2ImageToVideoPipeline, 512, transformer=transformer, **clip_vision()
    )
