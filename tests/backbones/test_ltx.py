"""LTX-Video against flow matching, written out with diffusers' own pipeline and scheduler."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from adapter_checks import (
    Family,
    Mutation,
    argument,
    check_caught,
    check_gradients,
    check_loss,
    check_mask,
    check_published,
    clip_for,
    encoded,
    load_family,
    noise_seen,
    pixels_of,
)
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.ltx.pipeline_ltx import calculate_shift
from diffusers.pipelines.ltx.pipeline_ltx_condition import linear_quadratic_schedule
from diffusion_checks import COMMON_MUTANTS, Expected, another_target, check_run_losses, noise_like
from small_flow_models import LTX, build_ltx

from motive.backbones.ltx import LTXBackbone

KINDS = tuple(LTX)


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Family]:
    folder = tmp_path_factory.mktemp("ltx")
    return {kind: load_family(build_ltx(folder / kind, kind)) for kind in KINDS}


@torch.no_grad()
def training_loss(path: Path, frames_fhw3: np.ndarray, caption: str, timestep: int) -> torch.Tensor:
    """E‖v − (ε − x)‖²; of an image-to-video model over what comes after the first latent frame."""
    image = path.name == "image"
    pipeline = LTX[path.name].from_pretrained(path)
    scheduler = FlowMatchEulerDiscreteScheduler()  # trainers noise without the trajectory's shift
    vae, t = pipeline.vae.eval(), torch.tensor([float(timestep)])
    z = vae.encode(pixels_of(frames_fhw3)).latent_dist.mean
    x = pipeline._normalize_latents(z, vae.latents_mean, vae.latents_std, vae.config.scaling_factor)
    noise = noise_like(x[0])[None]
    noisy = scheduler.scale_noise(x, t, noise)
    counted = torch.ones_like(x[:, :1])
    if image:
        counted[:, :, 0] = 0
        noisy = torch.where(counted > 0, noisy, x)
        t = pipeline._pack_latents(counted)[..., 0] * t
    text, mask, _, _ = pipeline.encode_prompt(caption, do_classifier_free_guidance=False)
    frames, height, width = x.shape[2:]
    where = {"num_frames": frames, "height": height, "width": width}
    where["rope_interpolation_scale"] = (8 / 25, 32, 32)
    if path.name == "condition":
        # Seconds and pixels of the tokens; latent frame 0 is a single pixel frame.
        seconds = torch.tensor([0, 1, 9][:frames])[:, None, None].expand(frames, height, width) / 25
        rows = 32 * torch.arange(height)[:, None].expand(frames, height, width)
        columns = 32 * torch.arange(width).expand(frames, height, width)
        where = {"video_coords": torch.stack([seconds, rows, columns])[None].flatten(2)}
    output = pipeline.transformer.eval()(
        hidden_states=pipeline._pack_latents(noisy),
        encoder_hidden_states=text,
        timestep=t,
        encoder_attention_mask=mask,
        **where,
    ).sample
    velocity = pipeline._unpack_latents(output, frames, height, width)
    # The trainer divides by the share that counts; the direction of the gradient is the same.
    return (counted * (velocity - (noise - x)) ** 2).mean()


expected = Expected(training_loss)


OWN: dict[str, Mutation] = {
    "the target is the noise": another_target(lambda _, e: e),
    "the timestep in 0..1": argument("timestep", lambda t: t / 1000),
    "latents without their mean": encoded(
        "encode_video", "latents", lambda x: x + 0.1 * torch.arange(8).view(-1, 1, 1, 1) / 8
    ),
    "latents without their spread": encoded("encode_video", "latents", lambda x: x * 1.5),
    "no text": argument("encoder_hidden_states", torch.zeros_like),
    "text without its mask": argument("encoder_attention_mask", torch.ones_like),
    "tokens column by column": argument(
        "hidden_states", lambda h: h.unflatten(1, (3, 2, 2)).transpose(2, 3).flatten(1, 3)
    ),
    "tokens frame inside cell": argument(
        "hidden_states", lambda h: h.unflatten(1, (3, 4)).transpose(1, 2).flatten(1, 2)
    ),
}
SCALED: dict[str, Mutation] = {
    "another frame rate": argument("rope_interpolation_scale", lambda s: (8 / 24, *s[1:])),
    "positions in latent cells": argument("rope_interpolation_scale", lambda s: (s[0], 1, 1)),
}
IMAGE: dict[str, Mutation] = {
    "first frame noised": encoded("encode_video", "image", lambda i: i + 0.1),
    "no first frame": encoded("encode_video", "image", torch.zeros_like),
    "first frame told the timestep": argument("timestep", lambda t: t.max().expand_as(t)),
}
CONDITION: dict[str, Mutation] = {
    "another frame rate": argument("video_coords", lambda x: x * per_axis(25 / 24, 1)),
    "positions in latent cells": argument("video_coords", lambda x: x * per_axis(1, 1 / 32)),
    "latent frame 0 as long as the others": argument(
        "video_coords", lambda x: x + (x > 0) * per_axis(7 / 25, 0)
    ),
}


def per_axis(seconds: float, pixels: float) -> torch.Tensor:
    return torch.tensor([seconds, pixels, pixels]).view(1, 3, 1)


MUTANTS = {
    "text": COMMON_MUTANTS | OWN | SCALED,
    "image": COMMON_MUTANTS | OWN | SCALED | IMAGE,
    "condition": COMMON_MUTANTS | OWN | CONDITION,
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_run(families: dict[str, Family], few_clips: Path, tmp_path: Path, kind: str) -> None:
    path = families[kind].path
    check_run_losses(path, few_clips, tmp_path / "run", partial(training_loss, path))


@pytest.mark.parametrize("timestep", [1, 501, 1000])
@pytest.mark.parametrize("kind", KINDS)
def test_the_loss(families: dict[str, Family], kind: str, timestep: int) -> None:
    family = families[kind]
    other = Family(family.backbone, family.denoiser, family.path, timestep)
    check_loss(other, expected(other), clip_for(other.backbone))


@pytest.mark.parametrize(("kind", "name"), [(k, name) for k in KINDS for name in MUTANTS[k]])
def test_mutants(families: dict[str, Family], kind: str, name: str) -> None:
    family = families[kind]
    check_caught(MUTANTS[kind][name], family, expected(family), clip_for(family.backbone))


def test_the_first_frame_counting_is_noticed(
    families: dict[str, Family], monkeypatch: pytest.MonkeyPatch
) -> None:
    family = families["image"]
    monkeypatch.setattr(family.backbone, "loss_weights", lambda _: None)
    with pytest.raises(AssertionError):
        check_loss(family, expected(family), clip_for(family.backbone))


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_has_a_gradient(families: dict[str, Family], kind: str) -> None:
    check_gradients(families[kind])


def test_the_mask_lies_on_the_latents(families: dict[str, Family]) -> None:
    check_mask(families["text"])


@pytest.mark.parametrize("kind", KINDS)
def test_noise_is_a_prefix_on_the_tokens_grid(families: dict[str, Family], kind: str) -> None:
    def seen(*shape_fhw: int) -> torch.Tensor:
        image = {"image": torch.zeros(8, 1, *shape_fhw[1:])} if kind == "image" else {}
        call = noise_seen(families[kind], (8, *shape_fhw), image)
        grid: torch.Tensor = call["hidden_states"].unflatten(1, shape_fhw)
        return grid

    assert torch.equal(seen(2, 2, 4), seen(3, 4, 6)[:, :2, :2, :4])


def test_the_default_timestep_is_the_schedulers(families: dict[str, Family]) -> None:
    backbone = families["text"].backbone
    scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(families["text"].path / "scheduler")
    shift = calculate_shift(3 * 2 * 2, 1024, 4096, 0.95, 2.05)
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / 1000, 1000), mu=shift)
    assert backbone.default_timestep() == pytest.approx(scheduler.timesteps[499].item(), abs=0.5)
    # The condition pipeline's own schedule, through a scheduler without a shift.
    later = families["condition"]
    scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(later.path / "scheduler")
    scheduler.set_timesteps(timesteps=linear_quadratic_schedule(1000) * 1000)
    middle = scheduler.timesteps[500].item()
    assert later.backbone.default_timestep() == pytest.approx(middle, abs=0.5) == 975


def test_clips_have_the_lengths_and_sizes_of_the_vae(families: dict[str, Family]) -> None:
    backbone = families["text"].backbone
    assert backbone.frame_map(17) == [range(1), range(1, 9), range(9, 17)]
    assert (backbone.size_multiples(), backbone.spatial_stride()) == ((32, 32), 32)
    assert backbone.default_sampler().usable_length(161) == 161
    assert backbone.default_prompt_length() == 128
    assert families["condition"].backbone.default_prompt_length() == 256


# As diffusers' conversion script states them (scripts/convert_ltx_to_diffusers.py, get_transformer_config);
# of the 2B the classes' defaults are the same. The names say 2B and 13B.
_13 = {
    "num_attention_heads": 32, "attention_head_dim": 128, "cross_attention_dim": 4096, "num_layers": 48,
    "caption_channels": 4096,
}  # fmt: skip


@pytest.mark.parametrize("model", LTXBackbone.published)
def test_published_sizes(model: str, tmp_path: Path) -> None:
    check_published(tmp_path, model, _13 if "0.9.7" in model else {}, LTXBackbone)
