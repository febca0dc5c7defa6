"""Cosmos-Predict2 against its objective on the clean latents, with the preconditioning of its pipeline."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

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
from diffusers import Cosmos2VideoToWorldPipeline
from diffusion_checks import COMMON_MUTANTS, Expected, another_target, check_run_losses, noise_like
from small_flow_models import build_cosmos, cosmos_without_extras

from motive.backbones.cosmos import CosmosBackbone
from motive.errors import UserError


@pytest.fixture(scope="module", autouse=True)
def _without_extras() -> Iterator[None]:
    with cosmos_without_extras():
        yield


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory, _without_extras: None) -> Family:
    return load_family(build_cosmos(tmp_path_factory.mktemp("cosmos") / "model"))


@torch.no_grad()
def training_loss(path: Path, frames_fhw3: np.ndarray, caption: str, timestep: int) -> torch.Tensor:
    """(1 + σ)² / σ² · ‖D(z, σ) − h‖² over the frames after the given one (Cosmos-Predict2's trainer)."""
    pipeline = Cosmos2VideoToWorldPipeline.from_pretrained(path)
    vae, scheduler = pipeline.vae.eval(), pipeline.scheduler
    mean = torch.tensor(vae.config.latents_mean).view(1, -1, 1, 1, 1)
    std = torch.tensor(vae.config.latents_std).view(1, -1, 1, 1, 1)
    video = pixels_of(frames_fhw3)
    h = (vae.encode(video).latent_dist.mean - mean) / std * scheduler.config.sigma_data
    # As the pipeline prepares the image: the first frame, repeated over the whole clip.
    still = video[:, :, :1].repeat(1, 1, len(frames_fhw3), 1, 1)
    image = (vae.encode(still).latent_dist.mean - mean) / std * scheduler.config.sigma_data
    given = torch.zeros(1, 1, h.shape[2], 1, 1)
    given[:, :, 0] = 1
    tau = timestep / 1000
    sigma = tau / (1 - tau)
    z = h + sigma * noise_like(h[0])[None]
    text, _ = pipeline.encode_prompt(caption, do_classifier_free_guidance=False)
    output = pipeline.transformer.eval()(
        hidden_states=given * image + (1 - given) * z / (1 + sigma),
        timestep=given * 0.0001 / 1.0001 + (1 - given) * sigma / (1 + sigma),
        encoder_hidden_states=text,
        fps=16,
        condition_mask=given.expand(1, 1, *h.shape[2:]),
        padding_mask=torch.zeros(1, 1, *frames_fhw3.shape[1:3]),
        return_dict=False,
    )[0]
    clean = (1 - tau) * z - tau * output
    weight = (1 + sigma) ** 2 / sigma**2
    return ((1 - given) * weight * (clean - h) ** 2).mean()


expected = Expected(training_loss)


OWN: dict[str, Mutation] = {
    "the target is the noise": another_target(lambda _, e: e),
    "latents without their mean": encoded("encode_video", "latents", lambda x: x + 0.1),
    "latents without their spread": encoded("encode_video", "latents", lambda x: x * 2),
    "the timestep in 0..1000": argument("timestep", lambda t: t * 1000),
    "the timestep is σ": argument("timestep", lambda t: t / (1 - t)),
    "the given frame told the timestep": argument("timestep", lambda t: t.max().expand_as(t)),
    "the given frame told zero": argument("timestep", lambda t: t * (t > 0.01) - 0.01 * (t < 0.01)),
    "no given frame": encoded("encode_video", "image", torch.zeros_like),
    "no mark on the given frame": argument("condition_mask", torch.zeros_like),
    "every frame marked as given": argument("condition_mask", torch.ones_like),
    "everything marked as padding": argument("padding_mask", torch.ones_like),
    "another frame rate": argument("fps", lambda fps: 24),
    "no text": argument("encoder_hidden_states", torch.zeros_like),
    "text without its padding": argument("encoder_hidden_states", lambda e: e[:, :13]),
}
MUTANTS = COMMON_MUTANTS | OWN


def test_a_run(family: Family, few_clips: Path, tmp_path: Path) -> None:
    check_run_losses(family.path, few_clips, tmp_path / "run", partial(training_loss, family.path))


@pytest.mark.parametrize("timestep", [100, 501, 950])
def test_the_loss(family: Family, timestep: int) -> None:
    other = Family(family.backbone, family.denoiser, family.path, timestep)
    check_loss(other, expected(other), clip_for(other.backbone))


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants(family: Family, name: str) -> None:
    check_caught(MUTANTS[name], family, expected(family), clip_for(family.backbone))


def test_the_given_frame_counting_is_noticed(
    family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(family.backbone, "loss_weights", lambda _: None)
    with pytest.raises(AssertionError):
        check_loss(family, expected(family), clip_for(family.backbone))


def test_every_parameter_has_a_gradient(family: Family) -> None:
    check_gradients(family)


def test_the_mask_lies_on_the_latents(family: Family) -> None:
    check_mask(family)


def test_noise_is_a_prefix_after_the_given_frame(family: Family) -> None:
    def seen(*shape_fhw: int) -> torch.Tensor:
        image = {"image": torch.zeros(16, 1, *shape_fhw[1:])}
        states: torch.Tensor = noise_seen(family, (16, *shape_fhw), image)["hidden_states"]
        return states

    assert torch.equal(seen(2, 2, 4), seen(3, 4, 6)[:, :, :2, :2, :4])


def test_the_default_timestep_is_the_schedulers(family: Family) -> None:
    with cosmos_without_extras():
        scheduler = Cosmos2VideoToWorldPipeline.from_pretrained(family.path).scheduler
    scheduler.set_timesteps(sigmas=torch.linspace(0, 1, 999, dtype=torch.float64))
    sigma = scheduler.sigmas[499].item()
    assert family.backbone.default_timestep() == round(1000 * sigma / (1 + sigma)) == 716


def test_clips_have_the_lengths_and_sizes_of_the_vae(family: Family) -> None:
    backbone = family.backbone
    assert backbone.frame_map(9) == [range(1), range(1, 5), range(5, 9)]
    assert (backbone.size_multiples(), backbone.spatial_stride()) == ((16, 16), 8)
    assert backbone.default_sampler().usable_length(93) == 93
    assert backbone.default_prompt_length() == 512


def test_torchvision_is_asked_for(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffusers.utils.is_torchvision_available", lambda: False)
    with pytest.raises(UserError, match="needs torchvision, which is not installed"):
        family.backbone.load_denoiser()


# --- the published sizes, as diffusers' conversion script states them
# (scripts/convert_cosmos_to_diffusers.py, Cosmos-2.0-Diffusion-2B-Video2World and -14B)

_2: dict[str, Any] = {
    "in_channels": 17, "out_channels": 16, "num_attention_heads": 16, "attention_head_dim": 128,
    "num_layers": 28, "text_embed_dim": 1024, "adaln_lora_dim": 256, "extra_pos_embed_type": None,
}  # fmt: skip
SIZES: dict[str, dict[str, Any]] = {
    "nvidia/Cosmos-Predict2-2B-Video2World": _2,
    "nvidia/Cosmos-Predict2-14B-Video2World": _2 | {"num_attention_heads": 40, "num_layers": 36},
}


@pytest.mark.parametrize("model", CosmosBackbone.published)
def test_published_sizes(model: str, tmp_path: Path) -> None:
    check_published(tmp_path, model, SIZES[model], CosmosBackbone)
