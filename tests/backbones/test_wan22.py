"""Wan 2.2: TI2V-5B, told the timestep once for each token, and A14B, which has two networks."""

from pathlib import Path
from typing import Any

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
from diffusers import FlowMatchEulerDiscreteScheduler, WanPipeline
from small_models import build_wan_ti2v, build_wan_two_experts

from motive.backbones import load_backbone
from motive.backbones.source import ModelSource, find_model
from motive.backbones.wan import WanBackbone
from motive.errors import UserError
from motive.gradients.noise import shared_noise


@pytest.fixture(scope="module")
def ti2v(tmp_path_factory: pytest.TempPathFactory) -> Family:
    return load_family(build_wan_ti2v(tmp_path_factory.mktemp("wan") / "ti2v"))


@pytest.fixture(scope="module")
def a14b(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wan_two_experts(tmp_path_factory.mktemp("wan") / "a14b")


@pytest.fixture(scope="module")
def low(a14b: Path) -> Family:
    return load_family(a14b, 874)


@pytest.fixture(scope="module")
def high(a14b: Path) -> Family:
    return load_family(a14b, 875)


def flow_loss(family: Family) -> torch.Tensor:
    """E‖v(z, t, c) − (ε − x)‖² as Wan is trained, from the pipeline's own parts."""
    pipeline = WanPipeline.from_pretrained(family.path)
    scheduler = FlowMatchEulerDiscreteScheduler.from_config(pipeline.scheduler.config, shift=1.0)
    vae, timestep = pipeline.vae.eval(), torch.tensor([float(family.timestep)])
    boundary = pipeline.config.boundary_ratio
    low_noise = boundary is not None and timestep < boundary * 1000
    transformer = pipeline.transformer_2 if low_noise else pipeline.transformer
    with torch.no_grad():
        z = vae.encode(pixels_of(clip_for(family.backbone))).latent_dist.mode()
        # The inverse of what the pipeline does before it decodes.
        mean, std = (
            torch.tensor(values).view(1, -1, 1, 1, 1)
            for values in (vae.config.latents_mean, vae.config.latents_std)
        )
        x = (z - mean) * (1 / std)
        noise = shared_noise(0, tuple(x.shape[1:]))[None]
        text, _ = pipeline.encode_prompt(CAPTION, None, False, max_sequence_length=24)
        tokens = x.shape[2] * (x.shape[3] // 2) * (x.shape[4] // 2)
        velocity = transformer.eval()(
            hidden_states=scheduler.scale_noise(x, timestep, noise),
            timestep=timestep.expand(1, tokens) if pipeline.config.expand_timesteps else timestep,
            encoder_hidden_states=text,
        ).sample
        return torch.nn.functional.mse_loss(velocity, noise - x)


@pytest.fixture(scope="module")
def ti2v_loss(ti2v: Family) -> torch.Tensor:
    return flow_loss(ti2v)


@pytest.fixture(scope="module")
def low_loss(low: Family) -> torch.Tensor:
    return flow_loss(low)


MUTANTS = FLOW_MUTANTS | {
    "the timestep in 0..1": argument("timestep", lambda t: t / 1000),
    "no text": argument("encoder_hidden_states", torch.zeros_like),
    "text without its padding": argument("encoder_hidden_states", lambda e: e[:, :13]),
    "latents not normalised": encoded(
        "encode_video", "latents", lambda x: x * torch.linspace(0.4, 1.34, len(x))[:, None, None, None]
    ),
}  # fmt: skip


# --- TI2V-5B


def test_a_run_of_ti2v(ti2v: Family, few_clips: Path, tmp_path: Path) -> None:
    check_run(ti2v.path, few_clips, tmp_path / "run")


def test_the_loss_of_ti2v(ti2v: Family, ti2v_loss: torch.Tensor) -> None:
    check_loss(ti2v, ti2v_loss, clip_for(ti2v.backbone))


@pytest.mark.parametrize("name", [*MUTANTS, "first tokens at timestep 0", "one mean for all"])
def test_mutants_of_ti2v(ti2v: Family, ti2v_loss: torch.Tensor, name: str) -> None:
    own = {
        "first tokens at timestep 0": argument(
            "timestep", lambda t: torch.where(torch.arange(t.shape[1]) < 4, 0.0, t)
        ),
        "one mean for all": encoded("encode_video", "latents", lambda x: x - x.mean() + 0.01),
    }
    check_caught((MUTANTS | own)[name], ti2v, ti2v_loss, clip_for(ti2v.backbone))


def test_every_parameter_of_ti2v_has_a_gradient(ti2v: Family) -> None:
    check_gradients(ti2v)


def test_the_mask_lies_on_ti2vs_latents(ti2v: Family) -> None:
    check_mask(ti2v)


def test_noise_and_timesteps_as_ti2v_sees_them(ti2v: Family) -> None:
    small, large = (noise_seen(ti2v, shape, {}) for shape in ((48, 2, 2, 4), (48, 3, 4, 6)))
    assert torch.equal(small["hidden_states"], large["hidden_states"][:, :, :2, :2, :4])
    assert small["timestep"].shape == (1, 2 * 1 * 2)
    assert large["timestep"].shape == (1, 3 * 2 * 3)
    assert set(large["timestep"].flatten().tolist()) == {1000.0}


def test_ti2v_takes_clips_of_its_own_vaes_grid(ti2v: Family) -> None:
    backbone = ti2v.backbone
    assert (backbone.size_multiples(), backbone.spatial_stride()) == ((32, 32), 16)
    assert backbone.frame_map(9) == [range(1), range(1, 5), range(5, 9)]
    assert backbone.default_timestep() == 834


# --- A14B


@pytest.mark.parametrize("timestep", [500, 900])
def test_a_run_of_each_expert(a14b: Path, few_clips: Path, tmp_path: Path, timestep: int) -> None:
    run = check_run(a14b, few_clips, tmp_path / "run", **{"gradients.timestep": timestep})
    assert run.objective.denoiser == {500: "transformer_2", 900: "transformer"}[timestep]


def test_the_loss_of_each_expert(low: Family, high: Family) -> None:
    assert low.backbone.denoiser == "transformer_2"
    assert high.backbone.denoiser == "transformer"
    for family in (low, high):
        check_loss(family, flow_loss(family), clip_for(family.backbone))


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_of_an_expert(low: Family, low_loss: torch.Tensor, name: str) -> None:
    check_caught(MUTANTS[name], low, low_loss, clip_for(low.backbone))


def test_the_other_expert_is_another_loss(low: Family, high: Family) -> None:
    mixed = Family(low.backbone, high.denoiser, low.path, low.timestep)
    with pytest.raises(AssertionError):
        check_loss(mixed, flow_loss(low), clip_for(low.backbone))


def test_every_parameter_of_both_experts_has_a_gradient(low: Family, high: Family) -> None:
    check_gradients(low)
    check_gradients(high)


def test_the_mask_lies_on_the_latents(low: Family) -> None:
    check_mask(low)


def test_noise_is_a_prefix(low: Family) -> None:
    small, large = (noise_seen(low, shape, {}) for shape in ((16, 2, 2, 4), (16, 3, 4, 6)))
    assert torch.equal(small["hidden_states"], large["hidden_states"][:, :, :2, :2, :4])
    assert small["timestep"].tolist() == [1000.0]


def test_two_experts_never_meet(a14b: Path, few_clips: Path, tmp_path: Path, low: Family) -> None:
    backbone = load_backbone(find_model(str(a14b)), device="cpu")
    with pytest.raises(UserError, match="one network for timesteps from 875 on and another below"):
        backbone.settle((500, 900))
    assert backbone.settle((875, 1000)) == "transformer"
    assert backbone.settle((1, 874)) == "transformer_2"
    with pytest.raises(UserError, match="whose gradients cannot be compared"):
        check_run(a14b, few_clips, tmp_path / "run", **{"gradients.timestep": (500, 900)})


def test_an_expert_that_is_not_there(a14b: Path, tmp_path: Path) -> None:
    index = find_model(str(a14b)).index | {"transformer": [None, None]}
    backbone = load_backbone(ModelSource("half", a14b, index), device="cpu")
    backbone.require_components()
    assert backbone.settle((874,)) == "transformer_2"
    with pytest.raises(UserError, match="half lacks transformer, its network for timestep 875"):
        backbone.settle((875,))


def test_precisions_and_recomputing(ti2v: Family, low: Family) -> None:
    check_precisions(ti2v)
    check_recomputing(ti2v)
    check_precisions(low)
    check_recomputing(low)


# --- the published sizes, as diffusers' conversion script states them
# (scripts/convert_wan_to_diffusers.py, get_transformer_config)

SIZES: dict[str, dict[str, Any]] = {
    "Wan-AI/Wan2.1-T2V-1.3B-Diffusers": {"num_attention_heads": 12, "num_layers": 30, "ffn_dim": 8960},
    "Wan-AI/Wan2.1-T2V-14B-Diffusers": {"num_attention_heads": 40, "num_layers": 40, "ffn_dim": 13824},
    "Wan-AI/Wan2.2-TI2V-5B-Diffusers": {
        "num_attention_heads": 24, "num_layers": 30, "ffn_dim": 14336, "in_channels": 48,
        "out_channels": 48,
    },
    "Wan-AI/Wan2.2-T2V-A14B-Diffusers": {"num_attention_heads": 40, "num_layers": 40, "ffn_dim": 13824},
}  # fmt: skip


@pytest.mark.parametrize("model", WanBackbone.published)
def test_published_sizes(model: str, tmp_path: Path) -> None:
    check_published(tmp_path, model, SIZES[model], WanBackbone)
