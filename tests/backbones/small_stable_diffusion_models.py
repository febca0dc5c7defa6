"""Pipelines on top of Stable Diffusion's VAE with random weights, saved by diffusers itself."""

from pathlib import Path

import torch
from diffusers import (
    AnimateDiffPipeline,
    AutoencoderKL,
    AutoencoderKLTemporalDecoder,
    DDIMScheduler,
    EulerDiscreteScheduler,
    MotionAdapter,
    StableVideoDiffusionPipeline,
    TextToVideoSDPipeline,
    UNet2DConditionModel,
    UNet3DConditionModel,
    UNetSpatioTemporalConditionModel,
)
from small_diffusion_models import advise
from small_models import letters_tokenizer
from small_text import WIDTH, clip, enliven
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection


def image_vae() -> AutoencoderKL:
    """8 × 8 pixels to a latent of 4 channels."""
    return AutoencoderKL(
        block_out_channels=(4, 4, 4, 4), down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, latent_channels=4, norm_num_groups=2,
        scaling_factor=0.18215,
    )  # fmt: skip


def build_modelscope(path: Path, prediction: str = "epsilon") -> Path:
    """A TextToVideoSDPipeline for 9 frames of 64 × 64 pixels."""
    torch.manual_seed(0)
    unet = UNet3DConditionModel(
        block_out_channels=(8, 16), layers_per_block=1, sample_size=8, norm_num_groups=2,
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
        cross_attention_dim=WIDTH, attention_head_dim=4,
    )  # fmt: skip
    vae = image_vae()
    enliven(vae, unet)
    TextToVideoSDPipeline(
        tokenizer=letters_tokenizer(77),
        text_encoder=clip(77),
        vae=vae,
        unet=unet,
        scheduler=DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
            prediction_type=prediction,
        ),
    ).save_pretrained(path)  # fmt: skip
    return advise(path, 9, 64)


def build_animatediff(path: Path) -> Path:
    """An AnimateDiffPipeline for 9 frames of 64 × 64 pixels."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        block_out_channels=(8, 8), layers_per_block=1, sample_size=8, norm_num_groups=2,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=WIDTH, attention_head_dim=4,
    )  # fmt: skip
    motion = MotionAdapter(
        block_out_channels=(8, 8), motion_layers_per_block=1, motion_norm_num_groups=2,
        motion_num_attention_heads=2,
    )  # fmt: skip
    vae = image_vae()
    enliven(vae, unet, motion)
    unet.conv_out.weight.data *= 8
    AnimateDiffPipeline(
        tokenizer=letters_tokenizer(77),
        text_encoder=clip(77),
        vae=vae,
        unet=unet,
        motion_adapter=motion,
        scheduler=DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="linear", clip_sample=False,
        ),
    ).save_pretrained(path)  # fmt: skip
    return advise(path, 9, 64)


def build_svd(path: Path) -> Path:
    """A StableVideoDiffusionPipeline for 9 frames of 64 × 64 pixels."""
    torch.manual_seed(0)
    # Its norms have 32 groups, whose means would take the time embedding out of single channels.
    unet = UNetSpatioTemporalConditionModel(
        block_out_channels=(64, 64), layers_per_block=1, sample_size=8,
        down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
        up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
        cross_attention_dim=WIDTH, num_attention_heads=2, addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=24, num_frames=9,
    )  # fmt: skip
    vae = AutoencoderKLTemporalDecoder(
        block_out_channels=(32, 32, 32, 32), down_block_types=("DownEncoderBlock2D",) * 4,
        latent_channels=4, layers_per_block=1, scaling_factor=0.18215,
    )  # fmt: skip
    enliven(vae, unet)
    StableVideoDiffusionPipeline(
        vae=vae,
        image_encoder=CLIPVisionModelWithProjection(
            CLIPVisionConfig(
                hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=1,
                num_attention_heads=2, image_size=224, patch_size=56, projection_dim=WIDTH,
            )
        ),
        unet=unet,
        scheduler=EulerDiscreteScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
            interpolation_type="linear", num_train_timesteps=1000,
            prediction_type="v_prediction", sigma_max=700.0, sigma_min=0.002,
            steps_offset=1, timestep_spacing="leading", timestep_type="continuous",
            use_karras_sigmas=True,
        ),
        feature_extractor=CLIPImageProcessor(size=224, crop_size=224),
    ).save_pretrained(path)  # fmt: skip
    return advise(path, 9, 64)
