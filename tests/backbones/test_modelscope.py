"""ModelScope's and ZeroScope's U-Net against ε- and v-prediction, written out with diffusers' own parts."""

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
from diffusers import DDPMScheduler, TextToVideoSDPipeline
from diffusion_checks import (
    DIFFUSION_MUTANTS,
    Expected,
    another_target,
    check_run_losses,
    noise_like,
)
from small_stable_diffusion_models import build_modelscope

from motive.backbones.modelscope import ModelScopeBackbone

KINDS = ("epsilon", "v_prediction")


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Family]:
    folder = tmp_path_factory.mktemp("modelscope")
    return {kind: load_family(build_modelscope(folder / kind, kind)) for kind in KINDS}


@torch.no_grad()
def training_loss(path: Path, frames_fhw3: np.ndarray, caption: str, timestep: int) -> torch.Tensor:
    """E‖prediction − target‖², the target by the scheduler's `prediction_type`."""
    pipeline = TextToVideoSDPipeline.from_pretrained(path)
    noising = DDPMScheduler.from_config(pipeline.scheduler.config)
    images = pixels_of(frames_fhw3)[0].permute(1, 0, 2, 3)
    latents = torch.stack([pipeline.vae.encode(i[None]).latent_dist.mean[0] for i in images], 1)
    latents = latents[None] * pipeline.vae.config.scaling_factor
    noise = noise_like(latents[0])[None]
    t = torch.tensor([timestep - 1])  # of the training timesteps 0..999
    text, _ = pipeline.encode_prompt(caption, "cpu", 1, False)
    prediction = pipeline.unet.eval()(
        noising.add_noise(latents, noise, t), t, encoder_hidden_states=text
    ).sample
    if noising.config.prediction_type == "epsilon":
        target = noise
    else:
        target = noising.get_velocity(latents, noise, t)
    return torch.nn.functional.mse_loss(prediction, target)


expected = Expected(training_loss)


OWN: dict[str, Mutation] = {
    "latents not scaled": encoded("encode_video", "latents", lambda x: x / 0.18215),
    "no text": argument("encoder_hidden_states", torch.zeros_like),
    "text with zeros for its padding": argument(
        "encoder_hidden_states", lambda e: e * (torch.arange(77) < 13)[:, None]
    ),
    "frames and channels exchanged": argument(
        "sample", lambda s: s.transpose(1, 2).reshape(s.shape)
    ),
}
OTHER: dict[str, dict[str, Mutation]] = {
    "epsilon": {},
    "v_prediction": {"the target is the noise": another_target(lambda _, e: e)},
}
MUTANTS = {kind: DIFFUSION_MUTANTS | OWN | OTHER[kind] for kind in KINDS}


def test_a_run(families: dict[str, Family], few_clips: Path, tmp_path: Path) -> None:
    path = families["epsilon"].path
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


def test_every_parameter_has_a_gradient(families: dict[str, Family]) -> None:
    check_gradients(families["epsilon"])


def test_the_mask_lies_on_the_latents(families: dict[str, Family]) -> None:
    check_mask(families["epsilon"])


def test_noise_is_a_prefix(families: dict[str, Family]) -> None:
    small, large = (
        noise_seen(families["epsilon"], shape, {})["sample"]
        for shape in ((4, 2, 2, 4), (4, 3, 4, 6))
    )
    assert torch.equal(small, large[:, :, :2, :2, :4])


def test_every_frame_is_a_latent_frame(families: dict[str, Family]) -> None:
    backbone = families["epsilon"].backbone
    assert backbone.frame_map(3) == [range(1), range(1, 2), range(2, 3)]
    assert (backbone.size_multiples(), backbone.spatial_stride()) == ((8, 8), 8)
    assert backbone.default_prompt_length() == 77
    assert backbone.default_timestep() == 501
    assert backbone.default_sampler().usable_length(16) == 16


@pytest.mark.parametrize("model", ModelScopeBackbone.published)
def test_the_published_size(model: str, tmp_path: Path) -> None:
    # unet/config.json is diffusers' defaults. The model card's "about 1.7 billion" counts the text encoder
    # too: CLIP's of OpenCLIP ViT-H, 0.34 billion.
    check_published(tmp_path, model, {}, ModelScopeBackbone)
    assert round((ModelScopeBackbone.published[model] + 340e6) / 1e9, 1) in (1.7, 1.8)
