"""Allegro against ε-prediction, written out with diffusers' own pipeline and scheduler."""

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
from diffusers import AllegroPipeline, DDPMScheduler
from diffusion_checks import DIFFUSION_MUTANTS, Expected, check_run_losses, noise_like
from small_diffusion_models import build_allegro

from motive.backbones.allegro import AllegroBackbone
from motive.errors import ClipError, UserError
from motive.zoo.render import render_corpus


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Family:
    found = load_family(build_allegro(tmp_path_factory.mktemp("allegro") / "model"))
    # The VAE's tiles cannot be small: each clip goes through it once.
    encode, encoded_clips = found.backbone.encode_video, {}

    def once(frames_fhw3: np.ndarray) -> dict[str, torch.Tensor]:
        key = (frames_fhw3.shape, frames_fhw3.tobytes())
        if key not in encoded_clips:
            encoded_clips[key] = encode(frames_fhw3)
        return dict(encoded_clips[key])

    found.backbone.encode_video = once  # type: ignore[method-assign]
    return found


@torch.no_grad()
def training_loss(path: Path, frames_fhw3: np.ndarray, caption: str, timestep: int) -> torch.Tensor:
    """E‖ε̂ − ε‖², with the noise of the scheduler's betas."""
    pipeline = AllegroPipeline.from_pretrained(path)
    noising = DDPMScheduler.from_config(pipeline.scheduler.config)
    assert noising.config.prediction_type == "epsilon"
    vae = pipeline.vae.eval()
    vae.use_tiling = True
    latents = vae.encode(pixels_of(frames_fhw3)).latent_dist.mean * vae.config.scaling_factor
    noise = noise_like(latents[0])[None]
    t = torch.tensor([timestep - 1])  # of the training timesteps 0..999
    text, mask, _, _ = pipeline.encode_prompt(caption, False, clean_caption=True)
    frames, rows, columns = latents.shape[2:]
    prediction = pipeline.transformer.eval()(
        hidden_states=noising.add_noise(latents, noise, t),
        encoder_hidden_states=text.unsqueeze(1),
        timestep=t,
        encoder_attention_mask=mask,
        image_rotary_emb=pipeline._prepare_rotary_positional_embeddings(
            1, 8 * rows, 8 * columns, frames, latents.device
        ),
    ).sample
    return torch.nn.functional.mse_loss(prediction, noise)


expected = Expected(training_loss)


OWN: dict[str, Mutation] = {
    "latents not scaled": encoded("encode_video", "latents", lambda x: x / 0.13),
    "no text": argument("encoder_hidden_states", torch.zeros_like),
    "text without its mask": argument("encoder_attention_mask", torch.ones_like),
    "positions of rows and columns exchanged": argument(
        "image_rotary_emb", lambda r: (r[0], (r[1][0], r[1][2], r[1][1]))
    ),
    "every frame at time 0": argument(
        "image_rotary_emb", lambda r: (r[0], (0 * r[1][0], *r[1][1:]))
    ),
    "frames and channels exchanged": argument(
        "hidden_states", lambda s: s.transpose(1, 2).reshape(s.shape)
    ),
}
MUTANTS = DIFFUSION_MUTANTS | OWN


def test_a_run(family: Family, tmp_path: Path) -> None:
    clips = tmp_path / "clips"
    render_corpus(clips, 1, seed=5, lengths=(25,))
    check_run_losses(family.path, clips, tmp_path / "run", partial(training_loss, family.path))


@pytest.mark.parametrize("timestep", [1, 501, 1000])
def test_the_loss(family: Family, timestep: int) -> None:
    other = Family(family.backbone, family.denoiser, family.path, timestep)
    check_loss(other, expected(other), clip_for(other.backbone))


@pytest.fixture(scope="module")
def right(family: Family) -> torch.Tensor:
    return expected(family)


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants(family: Family, right: torch.Tensor, name: str) -> None:
    check_caught(MUTANTS[name], family, right, clip_for(family.backbone))


def test_every_parameter_has_a_gradient(family: Family) -> None:
    check_gradients(family)


def test_the_mask_lies_on_the_latents(family: Family) -> None:
    # A layer in time sees the frames beside, so that the latent frame before changes by a quarter as much.
    check_mask(family, floor=0.35, cells=16)


def test_noise_is_a_prefix(family: Family) -> None:
    small, large = (
        noise_seen(family, shape, {})["hidden_states"] for shape in ((4, 2, 2, 4), (4, 3, 4, 6))
    )
    assert torch.equal(small, large[:, :, :2, :2, :4])


def test_a_latent_frame_covers_four(family: Family) -> None:
    backbone = family.backbone
    assert backbone.frame_map(8) == [range(4), range(4, 8)]
    with pytest.raises(ValueError, match="9 frames are not 4k"):
        backbone.frame_map(9)
    assert backbone.default_timestep() == 501
    assert backbone.default_prompt_length() == 512


def test_clips_that_tiles_do_not_cover_are_refused(family: Family, tmp_path: Path) -> None:
    sampler = family.backbone.default_sampler()
    assert [sampler.usable_length(n) for n in (23, 24, 39, 40, 88)] == [0, 24, 24, 40, 88]
    # 24 + 16k frames, 128 + 8k rows and 128 + 48k columns: with 320 pixels, 320 + 200k and 320 + 240k.
    for shape in ((32, 128, 128, 3), (24, 128, 144, 3), (24, 112, 128, 3)):
        with pytest.raises(ClipError, match=r"frames must be 24 \+ 16k, height 128 \+ 8k"):
            family.backbone.encode_video(np.zeros(shape, np.uint8))


def test_beautifulsoup_is_asked_for(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffusers.utils.is_bs4_available", lambda: False)
    with pytest.raises(UserError, match="beautifulsoup4, which is not installed"):
        family.backbone.load_text_encoder()


@pytest.mark.parametrize("model", AllegroBackbone.published)
def test_the_published_size(model: str, tmp_path: Path) -> None:
    # diffusers' defaults are transformer/config.json, which stands in a comment of Allegro's own source.
    # Its announcement: "a 2.8B parameter VideoDiT model".
    check_published(tmp_path, model, {}, AllegroBackbone)
