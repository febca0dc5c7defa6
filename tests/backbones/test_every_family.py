"""What holds of every family alike: what `motive doctor` counts with, and draws from the VAE's posterior."""

from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from adapter_checks import Family, clip_for, load_family
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from small_diffusion_models import build_allegro, build_cogvideox
from small_flow_models import build_cosmos, build_cosmos_25, build_ltx, cosmos_without_extras
from small_ltx2 import build_ltx2
from small_models import (
    build_hunyuan_video,
    build_hunyuan_video_15,
    build_mochi,
    build_skyreels_v2,
    build_skyreels_v2_forcing,
    build_skyreels_v2_image,
    build_wan_image,
    build_wan_ti2v,
    build_wan_ti2v_image,
)
from small_stable_diffusion_models import build_animatediff, build_modelscope, build_svd

from motive.backbones import FAMILIES
from motive.doctor import examine, machine
from motive.gradients.noise import posterior_noise
from motive.runs.config import make_config

BUILD: dict[str, Callable[[Path], Path]] = {
    "allegro": build_allegro,
    "animatediff": build_animatediff,
    "cogvideox": build_cogvideox,
    "cogvideox-1.5-image": partial(build_cogvideox, variant="1.5-i2v"),
    "cosmos": build_cosmos,
    "cosmos-2.5": build_cosmos_25,
    "hunyuan-video": build_hunyuan_video,
    "hunyuan-video-1.5": build_hunyuan_video_15,
    "ltx": build_ltx,
    "ltx-condition": partial(build_ltx, kind="condition"),
    "ltx-image": partial(build_ltx, kind="image"),
    "ltx-2": build_ltx2,
    "ltx-2-condition": partial(build_ltx2, kind="condition"),
    "ltx-2-image": partial(build_ltx2, kind="image"),
    "mochi": build_mochi,
    "modelscope": build_modelscope,
    "skyreels-v2": build_skyreels_v2,
    "skyreels-v2-forcing": build_skyreels_v2_forcing,
    "skyreels-v2-image": build_skyreels_v2_image,
    "svd": build_svd,
    "wan-2.2": build_wan_ti2v,
    "wan-2.2-image": build_wan_ti2v_image,
    "wan-image": build_wan_image,
}


@pytest.fixture(scope="module", autouse=True)
def _without_extras() -> Iterator[None]:
    with cosmos_without_extras():
        yield


@pytest.fixture(scope="module")
def load(
    tmp_path_factory: pytest.TempPathFactory, _without_extras: None
) -> Callable[[str], Family]:
    folder = tmp_path_factory.mktemp("families")
    return cache(lambda name: load_family(BUILD[name](folder / name)))


def test_every_pipeline_class_is_here(load: Callable[[str], Family]) -> None:
    assert {load(name).backbone.source.pipeline_class for name in BUILD} == FAMILIES.keys()


@pytest.mark.parametrize("name", BUILD)
def test_example_inputs_are_what_a_clip_and_a_caption_give(
    load: Callable[[str], Family], name: str
) -> None:
    backbone = load(name).backbone
    frames_fhw3, length = clip_for(backbone), backbone.default_prompt_length()
    latents_cfhw, conditions = backbone.example_inputs(*frames_fhw3.shape[:3], length)
    from_clip = backbone.encode_video(frames_fhw3)
    assert latents_cfhw.shape == from_clip.pop("latents").shape
    # A caption's tokens are at most those that are counted, which are of one of full length.
    from_text = backbone.encode_text("a ball rolls", length)
    assert conditions.keys() == from_clip.keys() | from_text.keys()
    for key, tensor in from_clip.items():
        assert conditions[key].shape == tensor.shape, key
    for key, tensor in from_text.items():
        assert conditions[key].shape[1:] == tensor.shape[1:], key
        assert conditions[key].shape[0] >= tensor.shape[0], key
    assert {t.dtype for t in (latents_cfhw, *conditions.values())} == {torch.float32}


@pytest.mark.parametrize("name", BUILD)
def test_doctor_counts_without_weights(
    load: Callable[[str], Family], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    family = load(name)
    settings: dict[str, Any] = {"clips": "", "queries": "", "model": str(family.path)}
    monkeypatch.setattr(machine, "_SECONDS", 0.0)  # of a calibration
    found = examine(make_config({**settings, "compute.device": "cpu"}))
    backbone = family.backbone
    sampler, stride = backbone.default_sampler(), backbone.spatial_stride()
    latent_frames = len(backbone.frame_map(sampler.max_frames))
    cells = latent_frames * (sampler.height // stride) * (sampler.width // stride)
    assert found.family == backbone.family
    assert found.parameters == sum(p.numel() for p in family.denoiser.parameters())
    assert found.latent_cells == cells
    assert 0 < found.tokens <= cells
    assert found.flop_forward > found.flop_attention > 0
    assert found.memory.activations > 0
    assert found.seconds_per_clip is not None
    assert found.seconds_per_clip > 0
    assert found.batch_difference is None or found.batch_difference < 1e-4
    assert found.missing == []
    networks = {c for c, kind in backbone.components.items() if kind == "network"}
    there = {c for c in networks if backbone.source.names(c)} - {backbone.denoiser}
    assert found.other_networks.keys() == there


def as_if_the_mean_were_the_draw(
    patch: pytest.MonkeyPatch, noise: Callable[[tuple[int, ...]], torch.Tensor]
) -> None:
    """The VAE gives posteriors whose mean is diffusers' own `sample()` of the true ones, by this noise."""
    make, images = DiagonalGaussianDistribution.__init__, 0

    def drawn(self: Any, parameters: torch.Tensor, *rest: Any) -> None:
        nonlocal images
        make(self, parameters, *rest)
        shape = self.mean.shape
        if self.mean.ndim == 5:
            given = noise(tuple(shape[1:]))[None]
        else:  # images, some of the clip's frames at a time
            given = noise((shape[1], images + shape[0], *shape[2:])).transpose(0, 1)[images:]
            images += shape[0]
        patch.setattr("diffusers.models.autoencoders.vae.randn_tensor", lambda *_, **__: given)
        self.mean = self.sample()

    patch.setattr(DiagonalGaussianDistribution, "__init__", drawn)


@pytest.mark.parametrize("name", BUILD)
def test_a_draw_from_the_posterior_is_diffusers_own(
    load: Callable[[str], Family], name: str
) -> None:
    backbone = load(name).backbone
    frames_fhw3 = clip_for(backbone)
    noise = partial(posterior_noise, 5)
    mean = backbone.encode_video(frames_fhw3)["latents"]
    with pytest.MonkeyPatch.context() as patch:
        as_if_the_mean_were_the_draw(patch, noise)
        expected = backbone.encode_video(frames_fhw3)["latents"]
    drawing = load_family(load(name).path).backbone
    drawing.sample_posterior(noise)
    draw = drawing.encode_video(frames_fhw3)["latents"]
    assert torch.allclose(draw, expected, rtol=1e-5, atol=1e-6)
    assert (draw - mean).abs().max() > 1e-3
    assert torch.equal(draw, drawing.encode_video(frames_fhw3)["latents"])
