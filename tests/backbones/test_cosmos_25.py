"""Cosmos-Predict2.5 against flow matching, written out with diffusers' own pipeline and scheduler."""

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
from diffusers import Cosmos2_5_PredictBasePipeline, FlowMatchEulerDiscreteScheduler
from diffusion_checks import COMMON_MUTANTS, Expected, another_target, check_run_losses, noise_like
from small_flow_models import build_cosmos_25, cosmos_without_extras

from motive.backbones.cosmos_25 import Cosmos25Backbone


@pytest.fixture(scope="module", autouse=True)
def _without_extras() -> Iterator[None]:
    with cosmos_without_extras():
        yield


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory, _without_extras: None) -> Family:
    return load_family(build_cosmos_25(tmp_path_factory.mktemp("cosmos") / "model"))


@torch.no_grad()
def training_loss(path: Path, frames_fhw3: np.ndarray, caption: str, timestep: int) -> torch.Tensor:
    """‖v − (ε − h)‖² (Cosmos-Predict2.5's trainer, without given frames)."""
    pipeline = Cosmos2_5_PredictBasePipeline.from_pretrained(path)
    scheduler = FlowMatchEulerDiscreteScheduler()
    t = torch.tensor([float(timestep)])
    z = pipeline.vae.eval().encode(pixels_of(frames_fhw3)).latent_dist.mean
    h = (z - pipeline.latents_mean) * pipeline.latents_std  # the pipeline's is the inverse
    noise = noise_like(h[0])[None]
    _, _, condition_mask, indicator = pipeline.prepare_latents(
        None, 1, 16, *frames_fhw3.shape[1:3], 0, len(frames_fhw3), dtype=h.dtype, device=h.device
    )
    text, _ = pipeline.encode_prompt(caption, do_classifier_free_guidance=False)
    output = pipeline.transformer.eval()(
        hidden_states=scheduler.scale_noise(h, t, noise),
        # The trainer's network multiplies the scheduler's timesteps by 0.001.
        timestep=indicator * 0.0001 + (1 - indicator) * 0.001 * t,
        encoder_hidden_states=text,
        condition_mask=condition_mask,
        padding_mask=torch.zeros(1, 1, *frames_fhw3.shape[1:3]),
        return_dict=False,
    )[0]
    return ((output - (noise - h)) ** 2).mean()


expected = Expected(training_loss)


def told_a_rate(patch: pytest.MonkeyPatch, backbone: Any) -> None:
    """As Cosmos-Predict2 is."""
    patch.setattr(backbone, "_rate", lambda: {"fps": 16})


OWN: dict[str, Mutation] = {
    "the target is the noise": another_target(lambda _, e: e),
    "latents without their mean": encoded("encode_video", "latents", lambda x: x + 0.1),
    "latents without their spread": encoded("encode_video", "latents", lambda x: x * 2),
    "the timestep in 0..1000": argument("timestep", lambda t: t * 1000),
    "the timestep is σ / (1 + σ)": argument("timestep", lambda t: t / (1 + t)),
    "a given frame": argument("timestep", lambda t: torch.cat([t[:, :, :1] * 0, t[:, :, 1:]], 2)),
    "every frame marked as given": argument("condition_mask", torch.ones_like),
    "everything marked as padding": argument("padding_mask", torch.ones_like),
    "a frame rate": told_a_rate,
    "no text": argument("encoder_hidden_states", torch.zeros_like),
    "text without its padding": argument("encoder_hidden_states", lambda e: e[:, :13]),
}
MUTANTS = COMMON_MUTANTS | OWN


def test_a_run(family: Family, few_clips: Path, tmp_path: Path) -> None:
    check_run_losses(family.path, few_clips, tmp_path / "run", partial(training_loss, family.path))


@pytest.mark.parametrize("timestep", [1, 501, 1000])
def test_the_loss(family: Family, timestep: int) -> None:
    other = Family(family.backbone, family.denoiser, family.path, timestep)
    check_loss(other, expected(other), clip_for(other.backbone))


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants(family: Family, name: str) -> None:
    check_caught(MUTANTS[name], family, expected(family), clip_for(family.backbone))


def test_every_parameter_has_a_gradient(family: Family) -> None:
    check_gradients(family)


def test_the_mask_lies_on_the_latents(family: Family) -> None:
    check_mask(family)


def test_noise_is_a_prefix(family: Family) -> None:
    def seen(*shape_fhw: int) -> torch.Tensor:
        states: torch.Tensor = noise_seen(family, (16, *shape_fhw), {})["hidden_states"]
        return states

    assert torch.equal(seen(2, 2, 4), seen(3, 4, 6)[:, :, :2, :2, :4])


def test_the_default_timestep_is_the_schedulers(family: Family) -> None:
    scheduler = Cosmos2_5_PredictBasePipeline.from_pretrained(family.path).scheduler
    scheduler.set_timesteps(999)
    middle = 1000 * scheduler.sigmas[499].item()
    assert family.backbone.default_timestep() == pytest.approx(middle, abs=0.5)


# As diffusers' conversion script states them (scripts/convert_cosmos_to_diffusers.py,
# Cosmos-2.5-Predict-Base-2B and -14B). The names say 2B and 14B.
_2: dict[str, Any] = {
    "in_channels": 17, "out_channels": 16, "num_attention_heads": 16, "attention_head_dim": 128,
    "num_layers": 28, "text_embed_dim": 1024, "adaln_lora_dim": 256, "extra_pos_embed_type": None,
    "use_crossattn_projection": True, "crossattn_proj_in_channels": 100352,
    "encoder_hidden_states_channels": 1024,
}  # fmt: skip
SIZES: dict[str, dict[str, Any]] = {
    "nvidia/Cosmos-Predict2.5-2B": _2,
    "nvidia/Cosmos-Predict2.5-14B": _2 | {"num_attention_heads": 40, "num_layers": 36},
}


@pytest.mark.parametrize("model", Cosmos25Backbone.published)
def test_published_sizes(model: str, tmp_path: Path) -> None:
    check_published(tmp_path, model, SIZES[model], Cosmos25Backbone)
