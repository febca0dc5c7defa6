"""Wan image-to-video: 2.1 with CLIP's view of the first frame, 2.2 A14B without, 2.2 TI2V-5B's own way."""

from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_checks import (
    CAPTION,
    FLOW_MUTANTS,
    Family,
    Mutation,
    argument,
    check_caught,
    check_gradients,
    check_loss,
    check_mask,
    check_precisions,
    check_published,
    check_recomputing,
    check_run,
    clip_for,
    encoded,
    load_family,
    noise_seen,
    pixels_of,
    result,
)
from diffusers import FlowMatchEulerDiscreteScheduler, WanImageToVideoPipeline
from PIL import Image
from small_models import build_wan_image, build_wan_image_two_experts, build_wan_ti2v_image

from motive.backbones.source import ModelSource
from motive.backbones.wan_image import WanImageBackbone
from motive.errors import UserError
from motive.gradients.noise import shared_noise

BUILDERS = {
    "2.1": build_wan_image,
    "2.2-a14b": build_wan_image_two_experts,
    "2.2-ti2v": build_wan_ti2v_image,
}


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Family]:
    folder = tmp_path_factory.mktemp("wan-image")
    return {name: load_family(build(folder / name)) for name, build in BUILDERS.items()}


@pytest.fixture(scope="module")
def losses(families: dict[str, Family]) -> dict[str, torch.Tensor]:
    return {name: published_loss(family) for name, family in families.items()}


def published_loss(family: Family) -> torch.Tensor:
    """The flow-matching loss under the conditions that the pipeline's `__call__` prepares.

    Of TI2V-5B over the frames after the first, as a mean over all of them: the mask's convention.
    """
    pipeline = WanImageToVideoPipeline.from_pretrained(family.path)
    scheduler = FlowMatchEulerDiscreteScheduler.from_config(pipeline.scheduler.config, shift=1.0)
    vae, timestep = pipeline.vae.eval(), torch.tensor([float(family.timestep)])
    frames = clip_for(family.backbone)
    count, height, width = frames.shape[:3]
    length = pipeline.tokenizer.model_max_length
    boundary = pipeline.config.boundary_ratio
    low_noise = boundary is not None and timestep < boundary * 1000
    transformer = (pipeline.transformer_2 if low_noise else pipeline.transformer).eval()
    picture = Image.fromarray(frames[0])
    with torch.no_grad():
        z = vae.encode(pixels_of(frames)).latent_dist.mode()
        mean, std = (
            torch.tensor(values).view(1, -1, 1, 1, 1)
            for values in (vae.config.latents_mean, vae.config.latents_std)
        )
        x = (z - mean) * (1 / std)
        noise = shared_noise(0, tuple(x.shape[1:]))[None]
        text, _ = pipeline.encode_prompt(CAPTION, None, False, max_sequence_length=length)
        noisy = scheduler.scale_noise(x, timestep, noise)
        first = pipeline.video_processor.preprocess(picture, height=height, width=width)
        prepared = pipeline.prepare_latents(
            first, 1, x.shape[1], height, width, count, torch.float32, torch.device("cpu"),
            latents=noisy,
        )  # fmt: skip
        image = None if pipeline.image_encoder is None else pipeline.encode_image(picture)
        if pipeline.config.expand_timesteps:
            _, condition, mask = prepared
            seen = (1 - mask) * condition + mask * noisy
            times = (mask[0, 0, :, ::2, ::2] * timestep).flatten()[None]
        else:
            mask = torch.ones(1)
            seen, times = torch.cat([noisy, prepared[1]], 1), timestep
        velocity = transformer(
            hidden_states=seen,
            timestep=times,
            encoder_hidden_states=text,
            encoder_hidden_states_image=image,
        ).sample
        return (mask * (velocity - (noise - x)) ** 2).mean()


# What is common to all; each has the conditions that are its own beside it.
COMMON = FLOW_MUTANTS | {
    "the timestep in 0..1": argument("timestep", lambda t: t / 1000),
    "no text": argument("encoder_hidden_states", torch.zeros_like),
    "latents not normalised": encoded(
        "encode_video",
        "latents",
        lambda x: x * torch.linspace(0.4, 1.3, len(x))[:, None, None, None],
    ),
}
CHANNELS: dict[str, Mutation] = {
    "no first frame": encoded(
        "encode_video", "image_latents", lambda c: torch.cat([c[:4], torch.zeros_like(c[4:])])
    ),
    "no mask channels": encoded(
        "encode_video", "image_latents", lambda c: torch.cat([torch.zeros_like(c[:4]), c[4:]])
    ),
    "mask channels behind the latents": encoded(
        "encode_video", "image_latents", lambda c: torch.cat([c[4:], c[:4]])
    ),
    "condition before the noise": argument("hidden_states", lambda x: x.roll(20, 1)),
}
MUTANTS: dict[str, dict[str, Mutation]] = {
    "2.1": COMMON
    | CHANNELS
    | {
        "no view of the image": encoded("encode_video", "image", torch.zeros_like),
        "prompts of another length": argument("encoder_hidden_states", lambda e: e[:, :-1]),
    },
    "2.2-a14b": COMMON | CHANNELS,
    "2.2-ti2v": COMMON
    | {
        "noise in the first frame": encoded("encode_video", "first_frame", lambda x: x + 1),
        "one timestep for all": argument("timestep", lambda t: torch.full_like(t, 834)),
        "the first frame in the loss": result("loss_weights", torch.ones_like),
        "tokens in another order": argument("timestep", lambda t: t.flip(1)),
    },
}


@pytest.mark.parametrize("name", BUILDERS)
def test_a_run(families: dict[str, Family], few_clips: Path, tmp_path: Path, name: str) -> None:
    check_run(families[name].path, few_clips, tmp_path / "run")


@pytest.mark.parametrize("name", BUILDERS)
def test_the_loss(families: dict[str, Family], losses: dict[str, torch.Tensor], name: str) -> None:
    check_loss(families[name], losses[name], clip_for(families[name].backbone))


@pytest.mark.parametrize(("name", "mutant"), [(n, m) for n, own in MUTANTS.items() for m in own])
def test_mutants(
    families: dict[str, Family], losses: dict[str, torch.Tensor], name: str, mutant: str
) -> None:
    family = families[name]
    check_caught(MUTANTS[name][mutant], family, losses[name], clip_for(family.backbone))


@pytest.mark.parametrize("name", BUILDERS)
def test_every_parameter_has_a_gradient(families: dict[str, Family], name: str) -> None:
    check_gradients(families[name])


@pytest.mark.parametrize("name", BUILDERS)
def test_precisions_and_recomputing(families: dict[str, Family], name: str) -> None:
    check_precisions(families[name])
    check_recomputing(families[name])


@pytest.mark.parametrize("name", BUILDERS)
def test_the_mask_lies_on_the_latents(families: dict[str, Family], name: str) -> None:
    check_mask(families[name])


def test_noise_is_a_prefix_beside_the_condition(families: dict[str, Family]) -> None:
    image = families["2.1"].backbone.encode_video(clip_for(families["2.1"].backbone))["image"]
    small, large = (
        noise_seen(
            families["2.1"],
            (16, *grid),
            {"image_latents": torch.zeros(20, *grid), "image": image},
        )["hidden_states"]
        for grid in ((2, 2, 4), (3, 4, 6))
    )
    assert small.shape == (1, 36, 2, 2, 4)
    assert torch.equal(small[:, :16], large[:, :16, :2, :2, :4])


def test_noise_is_a_prefix_behind_the_first_frame(families: dict[str, Family]) -> None:
    small, large = (
        noise_seen(families["2.2-ti2v"], (48, *grid), {"first_frame": torch.ones(48, 1, *grid[1:])})
        for grid in ((2, 2, 4), (3, 4, 6))
    )
    assert torch.equal(small["hidden_states"], large["hidden_states"][:, :, :2, :2, :4])
    assert set(large["hidden_states"][:, :, 0].flatten().tolist()) == {1.0}
    assert large["timestep"].tolist() == [[0.0] * 6 + [1000.0] * 12]


def test_the_first_frame_of_the_latents_is_its_own(families: dict[str, Family]) -> None:
    """What TI2V-5B is given is what the pipeline encodes the image alone to."""
    backbone = families["2.2-ti2v"].backbone
    frames = clip_for(backbone)
    alone = backbone.encode_video(frames[:1])["latents"]
    assert torch.allclose(backbone.encode_video(frames)["first_frame"], alone, atol=1e-5)


def test_prompts_are_as_long_as_the_image_attention_asks(families: dict[str, Family]) -> None:
    assert families["2.1"].backbone.default_prompt_length() == 512
    assert families["2.2-a14b"].backbone.default_prompt_length() == 24


def test_a_model_of_first_and_last_frames_is_refused(tmp_path: Path) -> None:
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer/config.json").write_text('{"pos_embed_seq_len": 514}')
    with pytest.raises(UserError, match="is conditioned on first and last frames"):
        WanImageBackbone(ModelSource("flf2v", tmp_path, {}))


def test_a_model_that_sees_the_image_must_have_its_encoder(families: dict[str, Family]) -> None:
    source = families["2.1"].backbone.source
    index = {k: v for k, v in source.index.items() if k != "image_encoder"}
    WanImageBackbone(ModelSource("whole", source.path, index)).require_components()
    backbone = families["2.2-a14b"].backbone
    assert not backbone.source.names("image_encoder")
    other = WanImageBackbone(ModelSource("x", backbone.source.path, backbone.source.index))
    other._sees_image = True
    with pytest.raises(UserError, match="x has no folder image_encoder"):
        other.require_components()


# The configurations that diffusers' conversion script states.
I2V: dict[str, Any] = {
    "num_attention_heads": 40,
    "num_layers": 40,
    "ffn_dim": 13824,
    "in_channels": 36,
}
SEES_IMAGE = I2V | {"image_dim": 1280, "added_kv_proj_dim": 5120}
SIZES = {
    "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers": SEES_IMAGE,
    "Wan-AI/Wan2.1-I2V-14B-720P-Diffusers": SEES_IMAGE,
    "Wan-AI/Wan2.2-I2V-A14B-Diffusers": I2V,
}


@pytest.mark.parametrize("model", WanImageBackbone.published)
def test_published_sizes(model: str, tmp_path: Path) -> None:
    check_published(tmp_path, model, SIZES[model], WanImageBackbone)
