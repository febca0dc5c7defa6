"""HunyuanVideo and HunyuanVideo 1.5."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from adapter_checks import (
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
    HunyuanVideo15Pipeline,
    HunyuanVideoPipeline,
)
from small_models import build_hunyuan_video, build_hunyuan_video_15

from motive.backbones.hunyuan_video import HunyuanVideoBackbone
from motive.backbones.hunyuan_video_15 import HunyuanVideo15Backbone
from motive.backbones.source import ModelSource
from motive.errors import UserError
from motive.gradients.noise import shared_noise

QUOTING = 'a ball rolls under the word "motion"'


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Family]:
    folder = tmp_path_factory.mktemp("hunyuan")
    found = {
        "1.0": load_family(build_hunyuan_video(folder / "1.0")),
        "1.5": load_family(build_hunyuan_video_15(folder / "1.5")),
    }
    found["1.5"].caption = QUOTING
    return found


@pytest.fixture(scope="module")
def losses(families: dict[str, Family]) -> dict[str, torch.Tensor]:
    return {"1.0": loss_of_10(families["1.0"]), "1.5": loss_of_15(families["1.5"])}


def clean_and_noisy(family: Family, vae: torch.nn.Module) -> tuple[torch.Tensor, ...]:
    """x, ε, z and t: latents times the scaling factor that the pipeline divides by before decoding."""
    timestep = torch.tensor([float(family.timestep)])
    x = vae.eval().encode(pixels_of(clip_for(family.backbone))).latent_dist.mode()
    x = x * vae.config.scaling_factor
    noise = shared_noise(0, tuple(x.shape[1:]))[None]
    scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0)
    return x, noise, scheduler.scale_noise(x, timestep, noise), timestep


@torch.no_grad()
def loss_of_10(family: Family) -> torch.Tensor:
    """The flow-matching loss at a guidance of 1, as finetrainers and diffusion-pipe train."""
    pipeline = HunyuanVideoPipeline.from_pretrained(family.path)
    x, noise, noisy, timestep = clean_and_noisy(family, pipeline.vae)
    text, pooled, mask = pipeline.encode_prompt(family.caption, max_sequence_length=256)
    velocity = pipeline.transformer.eval()(
        hidden_states=noisy,
        timestep=timestep,
        encoder_hidden_states=text,
        encoder_attention_mask=mask,
        pooled_projections=pooled,
        guidance=torch.tensor([1.0]) * 1000,
    ).sample
    return torch.nn.functional.mse_loss(velocity, noise - x)


@torch.no_grad()
def loss_of_15(family: Family) -> torch.Tensor:
    pipeline = HunyuanVideo15Pipeline.from_pretrained(family.path)
    x, noise, noisy, timestep = clean_and_noisy(family, pipeline.vae)
    text, mask, glyphs, glyph_mask = pipeline.encode_prompt(family.caption, device="cpu")
    condition, image_mask = pipeline.prepare_cond_latents_and_mask(noisy, noisy.dtype, "cpu")
    velocity = pipeline.transformer.eval()(
        hidden_states=torch.cat([noisy, condition, image_mask], 1),
        timestep=timestep,
        encoder_hidden_states=text,
        encoder_attention_mask=mask,
        encoder_hidden_states_2=glyphs,
        encoder_attention_mask_2=glyph_mask,
        image_embeds=torch.zeros(
            1, pipeline.vision_num_semantic_tokens, pipeline.vision_states_dim
        ),
    ).sample
    return torch.nn.functional.mse_loss(velocity, noise - x)


COMMON: Mapping[str, Mutation] = FLOW_MUTANTS | {
    "the timestep in 0..1": argument("timestep", lambda t: t / 1000),
    "no text": argument("encoder_hidden_states", torch.zeros_like),
    "padding read": argument("encoder_attention_mask", torch.ones_like),
    "latents not scaled": encoded("encode_video", "latents", lambda x: x / 0.476986),
}
MUTANTS = {
    "1.0": COMMON
    | {
        "no guidance times 1000": argument("guidance", lambda g: g / 1000),
        "the sampler's guidance": argument("guidance", lambda g: 6 * g),
        "no pooled text": argument("pooled_projections", torch.zeros_like),
    },
    "1.5": COMMON
    | {
        "no glyphs": argument("encoder_attention_mask_2", torch.zeros_like),
        "glyphs of zero": argument("encoder_hidden_states_2", torch.zeros_like),
        "an image": argument("image_embeds", torch.ones_like),
        "a mask of ones": argument(
            "hidden_states", lambda x: torch.cat([x[:, :-1], torch.ones_like(x[:, -1:])], 1)
        ),
        "condition before the noise": argument("hidden_states", lambda x: x.roll(4, 1)),
    },
}


@pytest.mark.parametrize("name", ["1.0", "1.5"])
def test_a_run(families: dict[str, Family], few_clips: Path, tmp_path: Path, name: str) -> None:
    check_run(families[name].path, few_clips, tmp_path / "run")


@pytest.mark.parametrize("name", ["1.0", "1.5"])
def test_the_loss(families: dict[str, Family], losses: dict[str, torch.Tensor], name: str) -> None:
    check_loss(families[name], losses[name], clip_for(families[name].backbone))


@pytest.mark.parametrize(("name", "mutant"), [(n, m) for n, own in MUTANTS.items() for m in own])
def test_mutants(
    families: dict[str, Family], losses: dict[str, torch.Tensor], name: str, mutant: str
) -> None:
    family = families[name]
    check_caught(MUTANTS[name][mutant], family, losses[name], clip_for(family.backbone))


@pytest.mark.parametrize("name", ["1.0", "1.5"])
def test_every_parameter_has_a_gradient(families: dict[str, Family], name: str) -> None:
    check_gradients(families[name])


@pytest.mark.parametrize("name", ["1.0", "1.5"])
def test_precisions_and_recomputing(families: dict[str, Family], name: str) -> None:
    check_precisions(families[name])
    check_recomputing(families[name])


def test_the_mask_lies_on_the_latents(families: dict[str, Family]) -> None:
    check_mask(families["1.0"], floor=0.5)
    check_mask(families["1.5"])


def test_noise_is_a_prefix(families: dict[str, Family]) -> None:
    for family in families.values():
        small, large = (
            noise_seen(family, shape, {})["hidden_states"] for shape in ((4, 2, 2, 4), (4, 3, 4, 6))
        )
        assert torch.equal(small, large[:, :, :2, :2, :4])
        assert small[:, 4:].shape[1] in (0, 5)
        assert not small[:, 4:].any()


def test_captions_without_quotation_have_no_glyphs(families: dict[str, Family]) -> None:
    backbone = families["1.5"].backbone
    quoting, plain = (backbone.encode_text(c, 1000) for c in (QUOTING, "a ball rolls"))
    assert len(quoting["glyphs"]) == len("Text motion. ") + 3  # quotation marks and </s>
    assert len(plain["glyphs"]) == 0
    assert len(quoting["text"]) > len(plain["text"]) > 0


@pytest.mark.parametrize(
    ("name", "sizes", "timestep", "length"),
    [("1.0", (16, 16), 875, 256), ("1.5", (16, 16), 834, 1000)],
)
def test_what_fits(
    families: dict[str, Family], name: str, sizes: tuple[int, int], timestep: int, length: int
) -> None:
    backbone = families[name].backbone
    assert backbone.size_multiples() == sizes
    assert backbone.default_timestep() == timestep
    assert backbone.default_prompt_length() == length
    assert backbone.frame_map(9) == [range(1), range(1, 5), range(5, 9)]


def described(tmp_path: Path, config: str) -> ModelSource:
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer/config.json").write_text(config)
    return ModelSource("x", tmp_path, {})


def test_models_with_another_objective_are_refused(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=r"conditioned on an image \(token_replace\)"):
        HunyuanVideoBackbone(described(tmp_path / "a", '{"image_condition_type": "token_replace"}'))
    with pytest.raises(UserError, match="distilled to few steps"):
        HunyuanVideo15Backbone(described(tmp_path / "b", '{"use_meanflow": true}'))


# The classes' defaults are what diffusers' conversion scripts state for these models
# (scripts/convert_hunyuan_video_to_diffusers.py, HYVideo-T/2-cfgdistill, and convert_hunyuan_video1_5_…).


def test_the_published_size_of_10(tmp_path: Path) -> None:
    (model,) = HunyuanVideoBackbone.published
    check_published(tmp_path, model, {}, HunyuanVideoBackbone)
    assert round(HunyuanVideoBackbone.published[model] / 1e9) == 13  # the report: 13 billion


@pytest.mark.parametrize("model", HunyuanVideo15Backbone.published)
def test_the_published_sizes_of_15(tmp_path: Path, model: str) -> None:
    large = {"target_size": 960, "task_type": "t2v"}
    check_published(tmp_path, model, large if "720p" in model else {}, HunyuanVideo15Backbone)
    assert round(HunyuanVideo15Backbone.published[model] / 1e9, 1) == 8.3  # the report: 8.3 billion
