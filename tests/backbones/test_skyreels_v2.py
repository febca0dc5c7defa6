"""SkyReels-V2: text-to-video, diffusion forcing, image-to-video."""

from collections.abc import Mapping
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
)
from diffusers import (
    FlowMatchEulerDiscreteScheduler,
    SkyReelsV2DiffusionForcingPipeline,
    SkyReelsV2ImageToVideoPipeline,
    SkyReelsV2Pipeline,
)
from PIL import Image
from small_models import (
    build_skyreels_v2,
    build_skyreels_v2_forcing,
    build_skyreels_v2_image,
)

from motive.backbones.skyreels_v2 import SkyReelsV2Backbone, SkyReelsV2ImageBackbone
from motive.gradients.noise import shared_noise

BUILDERS = {
    "text": build_skyreels_v2,
    "forcing": build_skyreels_v2_forcing,
    "image": build_skyreels_v2_image,
}
PIPELINES = {
    "text": SkyReelsV2Pipeline,
    "forcing": SkyReelsV2DiffusionForcingPipeline,
    "image": SkyReelsV2ImageToVideoPipeline,
}


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Family]:
    folder = tmp_path_factory.mktemp("skyreels")
    return {name: load_family(build(folder / name)) for name, build in BUILDERS.items()}


@pytest.fixture(scope="module")
def losses(families: dict[str, Family]) -> dict[str, torch.Tensor]:
    return {name: published_loss(name, family) for name, family in families.items()}


@torch.no_grad()
def published_loss(name: str, family: Family) -> torch.Tensor:
    """The flow-matching loss with the inputs that the pipeline's `__call__` prepares."""
    pipeline = PIPELINES[name].from_pretrained(family.path)
    vae, config = pipeline.vae.eval(), pipeline.vae.config
    frames = clip_for(family.backbone)
    count, height, width = frames.shape[:3]
    timestep = torch.tensor([float(family.timestep)])
    z = vae.encode(pixels_of(frames)).latent_dist.mode()
    mean, std = (
        torch.tensor(values).view(1, -1, 1, 1, 1)
        for values in (config.latents_mean, config.latents_std)
    )
    x = (z - mean) * (1 / std)
    noise = shared_noise(0, tuple(x.shape[1:]))[None]
    noisy = FlowMatchEulerDiscreteScheduler(shift=1.0).scale_noise(x, timestep, noise)
    length = pipeline.tokenizer.model_max_length
    text, _ = pipeline.encode_prompt(CAPTION, None, False, max_sequence_length=length)
    inputs: dict[str, Any] = {"hidden_states": noisy, "timestep": timestep}
    if name == "forcing":
        # One timestep for each latent frame, all at the same point of the synchronous schedule.
        inputs["timestep"] = timestep.expand(1, x.shape[2])
        inputs |= {
            "enable_diffusion_forcing": True,
            "fps": [0 if rate == 16 else 1 for rate in [24]],
        }
    if name == "image":
        picture = Image.fromarray(frames[0])
        first = pipeline.video_processor.preprocess(picture, height=height, width=width)
        _, condition = pipeline.prepare_latents(
            first, 1, x.shape[1], height, width, count, torch.float32, torch.device("cpu"),
            latents=noisy,
        )  # fmt: skip
        inputs["hidden_states"] = torch.cat([noisy, condition], 1)
        inputs["encoder_hidden_states_image"] = pipeline.encode_image(picture)
    velocity = pipeline.transformer.eval()(encoder_hidden_states=text, **inputs).sample
    return torch.nn.functional.mse_loss(velocity, noise - x)


COMMON: Mapping[str, Mutation] = FLOW_MUTANTS | {
    "the timestep in 0..1": argument("timestep", lambda t: t / 1000),
    "no text": argument("encoder_hidden_states", torch.zeros_like),
    "latents not normalised": encoded(
        "encode_video",
        "latents",
        lambda x: x * torch.linspace(0.4, 1.3, len(x))[:, None, None, None],
    ),
}
MUTANTS = {
    "text": COMMON
    | {"text without its padding": argument("encoder_hidden_states", lambda e: e[:, :13])},
    "forcing": COMMON
    | {
        "another frame rate": argument("fps", lambda fps: [0]),
        "the first frame given": argument(
            "timestep", lambda t: torch.where(torch.arange(t.shape[1]) < 1, 0.0, t)
        ),
    },
    "image": COMMON
    | {
        "no view of the image": encoded("encode_video", "image", torch.zeros_like),
        "no first frame": encoded(
            "encode_video", "image_latents", lambda c: torch.cat([c[:4], 0 * c[4:]])
        ),
        "no mask channels": encoded(
            "encode_video", "image_latents", lambda c: torch.cat([0 * c[:4], c[4:]])
        ),
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


def test_the_mask_lies_on_the_latents(families: dict[str, Family]) -> None:
    check_mask(families["text"])


def test_noise_is_a_prefix(families: dict[str, Family]) -> None:
    small, large = (
        noise_seen(families["forcing"], shape, {}) for shape in ((16, 2, 2, 4), (16, 3, 4, 6))
    )
    assert torch.equal(small["hidden_states"], large["hidden_states"][:, :, :2, :2, :4])
    assert small["timestep"].tolist() == [[1000.0] * 2]
    assert large["timestep"].tolist() == [[1000.0] * 3]


def test_the_default_timestep_is_of_the_authors_shift(families: dict[str, Family]) -> None:
    assert {n: f.backbone.default_timestep() for n, f in families.items()} == {
        "text": 889, "forcing": 889, "image": 834,
    }  # fmt: skip
    sampler = families["text"].backbone.default_sampler()
    assert (sampler.max_frames, sampler.height, sampler.length_step) == (9, 32, 4)


# As diffusers' conversion script states them (scripts/convert_skyreelsv2_to_diffusers.py).
SMALL = {"num_attention_heads": 12, "num_layers": 30, "ffn_dim": 8960}
LARGE = {"num_attention_heads": 40, "num_layers": 40, "ffn_dim": 13824}


@pytest.mark.parametrize("model", SkyReelsV2Backbone.published)
def test_published_sizes(model: str, tmp_path: Path) -> None:
    config = SMALL | {"inject_sample_info": True} if "1.3B" in model else LARGE
    check_published(tmp_path, model, config, SkyReelsV2Backbone)


@pytest.mark.parametrize("model", SkyReelsV2ImageBackbone.published)
def test_published_sizes_with_an_image(model: str, tmp_path: Path) -> None:
    config = {"in_channels": 36, "image_dim": 1280}
    config |= (
        SMALL | {"added_kv_proj_dim": 1536}
        if "1.3B" in model
        else LARGE | {"added_kv_proj_dim": 5120}
    )
    check_published(tmp_path, model, config, SkyReelsV2ImageBackbone)
