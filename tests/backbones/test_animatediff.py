"""AnimateDiff's U-Net with motion modules against ε-prediction, written out with diffusers' own parts."""

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
from diffusers import AnimateDiffPipeline, DDPMScheduler, MotionAdapter
from diffusion_checks import DIFFUSION_MUTANTS, Expected, check_run_losses, noise_like
from small_stable_diffusion_models import build_animatediff

from motive import Run
from motive.backbones.animatediff import AnimateDiffBackbone
from motive.errors import UserError
from motive.gradients.streaming import choose_parameters

SD_15 = 859_520_964
"""Parameters of the U-Net of Stable Diffusion 1.5."""


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    return load_family(build_animatediff(tmp_path_factory.mktemp("animatediff") / "model"))


@torch.no_grad()
def training_loss(path: Path, frames_fhw3: np.ndarray, caption: str, timestep: int) -> torch.Tensor:
    """E‖prediction − target‖², the target by the scheduler's `prediction_type`."""
    pipeline = AnimateDiffPipeline.from_pretrained(path)
    noising = DDPMScheduler.from_config(pipeline.scheduler.config)
    images = pixels_of(frames_fhw3)[0].permute(1, 0, 2, 3)
    latents = torch.stack([pipeline.vae.encode(i[None]).latent_dist.mean[0] for i in images], 1)
    latents = latents[None] * pipeline.vae.config.scaling_factor
    noise = noise_like(latents[0])[None]
    t = torch.tensor([timestep - 1])  # of the training timesteps 0..999
    text, _ = pipeline.encode_prompt(caption, "cpu", 1, False)
    prediction = pipeline.unet.eval()(
        noising.add_noise(latents, noise, t),
        t,
        encoder_hidden_states=text.repeat_interleave(len(frames_fhw3), 0),
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
    "text for the first frame alone": argument(
        "encoder_hidden_states", lambda e: torch.cat([e[:1], torch.zeros_like(e[1:])])
    ),
}
MUTANTS = DIFFUSION_MUTANTS | OWN


@pytest.mark.parametrize("parameters", [None, "*"])
def test_a_run(family: Family, few_clips: Path, tmp_path: Path, parameters: str | None) -> None:
    run = check_run_losses(
        family.path, few_clips, tmp_path / "run", partial(training_loss, family.path),
        **{"gradients.parameters": parameters},
    )  # fmt: skip
    # The motion modules, unless the whole U-Net is asked for.
    assert run.objective.parameters == (parameters or AnimateDiffBackbone.trained)


def test_clips_beyond_the_motion_modules_are_refused_before_a_run(
    family: Family, few_clips: Path, tmp_path: Path
) -> None:
    settings = {"clips": str(few_clips), "queries": str(few_clips), "model": str(family.path)}
    with pytest.raises(UserError, match="33 frames are too long"):
        Run.create(tmp_path / "run", **settings, sampling__frames=33)
    assert not (tmp_path / "run").exists()
    with pytest.raises(RuntimeError, match="size of tensor"):  # what would have happened
        family.loss(np.zeros((33, 64, 64, 3), np.uint8))
    assert family.loss(np.zeros((32, 64, 64, 3), np.uint8)).isfinite()


@pytest.mark.parametrize("timestep", [1, 501, 1000])
def test_the_loss(family: Family, timestep: int) -> None:
    other = Family(family.backbone, family.denoiser, family.path, timestep)
    check_loss(other, expected(other), clip_for(other.backbone))


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants(family: Family, name: str) -> None:
    check_caught(MUTANTS[name], family, expected(family), clip_for(family.backbone))


def test_every_parameter_has_a_gradient(family: Family) -> None:
    check_gradients(family)


def test_what_animatediff_trains_is_the_motion_adapter(family: Family) -> None:
    chosen = choose_parameters(family.denoiser, AnimateDiffBackbone.trained)
    adapter = MotionAdapter.from_pretrained(family.path / "motion_adapter")
    assert sum(p.numel() for p in chosen.values()) == sum(p.numel() for p in adapter.parameters())
    choose_parameters(family.denoiser, "*")


def test_the_mask_lies_on_the_latents(family: Family) -> None:
    check_mask(family)


def test_noise_is_a_prefix(family: Family) -> None:
    small, large = (
        noise_seen(family, shape, {})["sample"] for shape in ((4, 2, 2, 4), (4, 3, 4, 6))
    )
    assert torch.equal(small, large[:, :, :2, :2, :4])


def test_every_frame_is_a_latent_frame(family: Family) -> None:
    backbone = family.backbone
    assert backbone.frame_map(3) == [range(1), range(1, 2), range(2, 3)]
    assert (backbone.size_multiples(), backbone.spatial_stride()) == ((8, 8), 8)
    assert backbone.default_prompt_length() == 77
    assert backbone.default_timestep() == 501


@pytest.mark.parametrize("model", AnimateDiffBackbone.published)
def test_the_published_size(model: str, tmp_path: Path) -> None:
    # Motion adapter v1.5.2 in the U-Net of Stable Diffusion 1.5: computed from the configurations alone.
    check_published(tmp_path, model, {"cross_attention_dim": 768}, AnimateDiffBackbone)
    with torch.device("meta"):
        adapter = MotionAdapter(motion_max_seq_length=32)
    motion = sum(p.numel() for p in adapter.parameters())
    assert AnimateDiffBackbone.published[model] - motion == SD_15
