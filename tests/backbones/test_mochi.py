"""Mochi: time that runs the other way."""

from pathlib import Path

import pytest
import torch
from adapter_checks import (
    CAPTION,
    FLOW_MUTANTS,
    Family,
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
)
from diffusers import FlowMatchEulerDiscreteScheduler, MochiPipeline
from diffusers.pipelines.mochi.pipeline_mochi import linear_quadratic_schedule
from small_models import build_mochi

from motive.backbones.mochi import MochiBackbone
from motive.gradients.noise import shared_noise


@pytest.fixture(scope="module")
def mochi(tmp_path_factory: pytest.TempPathFactory) -> Family:
    return load_family(build_mochi(tmp_path_factory.mktemp("mochi") / "model"))


@pytest.fixture(scope="module")
def expected(mochi: Family) -> torch.Tensor:
    """‖v(z, 1000 (1 − σ), c) − (x − ε)‖² of Genmo's fine-tuner, from the pipeline's own parts."""
    pipeline = MochiPipeline.from_pretrained(mochi.path)
    vae, config = pipeline.vae.eval(), pipeline.vae.config
    sigma = mochi.timestep / 1000
    # The pipeline's scheduler inverts σ: what it gives as the timestep is what the transformer is told.
    pipeline.scheduler.set_timesteps(sigmas=[sigma])
    timestep = pipeline.scheduler.timesteps
    with torch.no_grad():
        z = vae.encode(pixels_of(clip_for(mochi.backbone))).latent_dist.mode()
        mean, std = (
            torch.tensor(values).view(1, 4, 1, 1, 1)
            for values in (config.latents_mean, config.latents_std)
        )
        x = (z - mean) / std * config.scaling_factor
        noise = shared_noise(0, tuple(x.shape[1:]))[None]
        text, mask, _, _ = pipeline.encode_prompt(
            CAPTION, do_classifier_free_guidance=False, max_sequence_length=24
        )
        straight = FlowMatchEulerDiscreteScheduler()
        noisy = straight.scale_noise(x, torch.tensor([float(mochi.timestep)]), noise)
        velocity = pipeline.transformer.eval()(
            hidden_states=noisy,
            encoder_hidden_states=text,
            timestep=timestep,
            encoder_attention_mask=mask,
        ).sample
        # One step of the pipeline's scheduler along the right answer ends in the latents.
        landed = pipeline.scheduler.step(x - noise, timestep[0], noisy).prev_sample
        assert torch.allclose(landed, x, atol=1e-5)
        return torch.nn.functional.mse_loss(velocity, x - noise)


MUTANTS = FLOW_MUTANTS | {
    "time not reversed": argument("timestep", lambda t: 1000 - t),
    "the timestep in 0..1": argument("timestep", lambda t: t / 1000),
    "no text": argument("encoder_hidden_states", torch.zeros_like),
    "padding read": argument("encoder_attention_mask", torch.ones_like),
    "half of the text": argument("encoder_attention_mask", lambda m: m & (m.cumsum(1) < 7)),
    "latents not normalised": encoded(
        "encode_video",
        "latents",
        lambda x: x * torch.tensor([0.9, 0.5, 1.3, 0.8])[:, None, None, None],
    ),
    "no mean": encoded("encode_video", "latents", lambda x: x + 0.1),
}


def test_a_run(mochi: Family, few_clips: Path, tmp_path: Path) -> None:
    check_run(mochi.path, few_clips, tmp_path / "run")


def test_the_loss(mochi: Family, expected: torch.Tensor) -> None:
    check_loss(mochi, expected, clip_for(mochi.backbone))


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants(mochi: Family, expected: torch.Tensor, name: str) -> None:
    check_caught(MUTANTS[name], mochi, expected, clip_for(mochi.backbone))


def test_every_parameter_has_a_gradient(mochi: Family) -> None:
    check_gradients(mochi)


def test_the_mask_lies_on_the_latents(mochi: Family) -> None:
    check_mask(mochi)


def test_noise_is_a_prefix(mochi: Family) -> None:
    small, large = (noise_seen(mochi, shape, {}) for shape in ((4, 2, 2, 4), (4, 3, 4, 6)))
    assert torch.equal(small["hidden_states"], large["hidden_states"][:, :, :2, :2, :4])
    assert small["timestep"].tolist() == [0.0]  # all noise


def test_time_and_frames(mochi: Family) -> None:
    backbone = mochi.backbone
    schedule = linear_quadratic_schedule(1000, 0.025)
    assert backbone.default_timestep() == round(1000 * schedule[500]) == 975
    assert backbone.frame_map(13) == [range(1), range(1, 7), range(7, 13)]
    sampler = backbone.default_sampler()
    assert [sampler.usable_length(n) for n in (6, 7, 12, 13, 18, 19)] == [1, 7, 7, 13, 13, 19]
    with pytest.raises(ValueError, match="not 1 \\+ 6k"):
        backbone.frame_map(12)


def test_an_empty_caption_is_zero_where_the_pipeline_says_so(mochi: Family) -> None:
    backbone = MochiBackbone(mochi.backbone.source, "float32", "cpu")
    backbone.source.index["force_zeros_for_empty_prompt"] = True
    backbone.load_text_encoder()
    assert backbone.encode_text("", 24)["text"].shape == (0, 16)
    assert mochi.backbone.encode_text("", 24)["text"].shape == (1, 16)


def test_precisions_and_recomputing(mochi: Family) -> None:
    check_precisions(mochi)
    check_recomputing(mochi)


def test_the_published_size(tmp_path: Path) -> None:
    """scripts/convert_mochi_to_diffusers.py makes the transformer with the class's defaults."""
    check_published(tmp_path, "genmo/mochi-1-preview", {}, MochiBackbone)
    # "A 10 billion parameter diffusion model" (Genmo's model card).
    assert round(MochiBackbone.published["genmo/mochi-1-preview"] / 1e9) == 10
