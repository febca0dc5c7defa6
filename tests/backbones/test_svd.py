"""Stable Video Diffusion against EDM's objective, written out with the scheduler's own steps."""

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
from diffusers import StableVideoDiffusionPipeline
from diffusion_checks import (
    COMMON_MUTANTS,
    Expected,
    another_target,
    check_run_losses,
    noise_like,
    noise_of_a_flow,
)
from PIL import Image
from small_stable_diffusion_models import build_svd

from motive.backbones.svd import StableVideoDiffusionBackbone


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    return load_family(build_svd(tmp_path_factory.mktemp("svd") / "model"))


@torch.no_grad()
def training_loss(path: Path, frames_fhw3: np.ndarray, caption: str, timestep: int) -> torch.Tensor:
    """λ(σ) E‖D(z, σ) − h‖² with λ = (σ² + 1) / σ², of the denoised latents that the sampler computes."""
    pipeline = StableVideoDiffusionPipeline.from_pretrained(path)
    scheduler, vae = pipeline.scheduler, pipeline.vae.eval()
    images = pixels_of(frames_fhw3)[0].permute(1, 0, 2, 3)
    means = torch.stack([vae.encode(i[None]).latent_dist.mean[0] for i in images])[None]
    h = means * vae.config.scaling_factor
    noise = noise_like(h[0].transpose(0, 1)).transpose(0, 1)[None]
    scheduler.set_timesteps(1000)
    t = scheduler.timesteps[1000 - timestep]
    sigma = scheduler.sigmas[1000 - timestep]
    z = scheduler.add_noise(h, noise, t[None])
    beside = means[:, :1].expand_as(h)
    output = pipeline.unet.eval()(
        torch.cat([scheduler.scale_model_input(z, t), beside], dim=2),
        t,
        encoder_hidden_states=pipeline._encode_image(
            [Image.fromarray(frames_fhw3[0])], "cpu", 1, False
        ),
        added_time_ids=pipeline._get_add_time_ids(7 - 1, 127, 0.0, torch.float32, 1, 1, False),
    ).sample
    denoised = scheduler.step(output, t, z).pred_original_sample
    return ((sigma**2 + 1) / sigma**2 * (denoised - h) ** 2).mean()


expected = Expected(training_loss)


OWN: dict[str, Mutation] = {
    "the target is the noise": another_target(lambda _, e: e),
    "the target is a flow": another_target(lambda h, e: e - h),
    "noise of a flow": noise_of_a_flow,
    "latents not scaled": encoded("encode_video", "latents", lambda x: x / 0.18215),
    "noisy latents not scaled down": argument(
        "sample", lambda s: torch.cat([s[:, :, :4] * 16, s[:, :, 4:]], 2)
    ),
    "the image scaled as the latents": encoded("encode_video", "image", lambda i: i * 0.18215),
    "no image": encoded("encode_video", "image", torch.zeros_like),
    "the image before the noisy latents": argument(
        "sample", lambda s: torch.cat([s[:, :, 4:], s[:, :, :4]], 2)
    ),
    "the image in the first frame alone": argument(
        "sample",
        lambda s: torch.cat([s[:, :, :4], s[:, :, 4:] * torch.eye(9)[0].view(-1, 1, 1, 1)], 2),
    ),
    "nothing seen": encoded("encode_video", "seen", torch.zeros_like),
    "the timestep is the noise": argument("timestep", lambda t: torch.exp(4 * t)),
    "the timestep is an index": argument("timestep", lambda t: torch.full_like(t, 500)),
    "frames per second, not one less": argument(
        "added_time_ids", lambda i: i + torch.tensor([[1.0, 0, 0]])
    ),
    "time ids in another order": argument("added_time_ids", lambda i: i.flip(1)),
    "noise on the image told": argument(
        "added_time_ids", lambda i: i + torch.tensor([[0, 0, 0.02]])
    ),
    "frames and channels exchanged": argument(
        "sample", lambda s: s.transpose(1, 2).reshape(s.shape)
    ),
}
MUTANTS = {k: m for k, m in COMMON_MUTANTS.items() if k != "another caption"} | OWN


def test_a_run(family: Family, few_clips: Path, tmp_path: Path) -> None:
    check_run_losses(family.path, few_clips, tmp_path / "run", partial(training_loss, family.path))


@pytest.mark.parametrize("timestep", [300, 500, 700])
def test_the_loss(family: Family, timestep: int) -> None:
    other = Family(family.backbone, family.denoiser, family.path, timestep)
    check_loss(other, expected(other), clip_for(other.backbone))


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants(family: Family, name: str) -> None:
    check_caught(MUTANTS[name], family, expected(family), clip_for(family.backbone))


def test_captions_have_no_effect(family: Family) -> None:
    assert family.backbone.encode_text("a ball", 0) == {}
    assert family.backbone.default_prompt_length() == 0


def test_every_parameter_has_a_gradient(family: Family) -> None:
    check_gradients(family)


def test_the_mask_lies_on_the_latents(family: Family) -> None:
    check_mask(family)


def test_noise_is_a_prefix(family: Family) -> None:
    def seen(*shape_fhw: int) -> torch.Tensor:
        given = {"image": torch.zeros(4, 1, *shape_fhw[1:]), "seen": torch.zeros(1, 16)}
        sample: torch.Tensor = noise_seen(family, (4, *shape_fhw), given)["sample"]
        return sample[:, :, :4]

    assert torch.equal(seen(2, 2, 4), seen(3, 4, 6)[:, :2, :, :2, :4])


def test_timesteps_are_steps_of_the_schedulers_trajectory(family: Family) -> None:
    backbone = family.backbone
    assert isinstance(backbone, StableVideoDiffusionBackbone)
    assert backbone.default_timestep() == 500
    assert backbone.sigma(1000) == pytest.approx(700, rel=1e-4)
    assert backbone.sigma(1) == pytest.approx(0.002, rel=1e-4)
    # Karras et al., eq. 5, with ρ = 7.
    ends = (700 ** (1 / 7), 0.002 ** (1 / 7))
    assert backbone.sigma(500) == pytest.approx(
        (ends[0] + 500 / 999 * (ends[1] - ends[0])) ** 7, rel=1e-4
    )


@pytest.mark.parametrize("model", StableVideoDiffusionBackbone.published)
def test_the_published_size(model: str, tmp_path: Path) -> None:
    # unet/config.json differs from diffusers' defaults in num_frames alone (compared with a copy of it, of
    # stable-video-diffusion-img2vid-xt). The number is computed from it; no card states one.
    check_published(tmp_path, model, {}, StableVideoDiffusionBackbone)
