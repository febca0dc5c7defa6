"""CogVideoX against its trainers' objective, written out with diffusers' own pipeline and scheduler."""

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
from diffusers import CogVideoXImageToVideoPipeline, CogVideoXPipeline
from diffusion_checks import (
    DIFFUSION_MUTANTS,
    Expected,
    another_target,
    check_run_losses,
    noise_like,
)
from small_diffusion_models import COGVIDEOX, build_cogvideox

from motive.backbones.cogvideox import CogVideoXBackbone
from motive.backbones.source import ModelSource


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Family]:
    folder = tmp_path_factory.mktemp("cogvideox")
    return {v: load_family(build_cogvideox(folder / v, v)) for v in COGVIDEOX}


@torch.no_grad()
def training_loss(path: Path, frames_fhw3: np.ndarray, caption: str, timestep: int) -> torch.Tensor:
    """CogVideoX's fine-tuning: a prediction of x0 through `get_velocity`, weighted with 1 / (1 − ᾱ)."""
    image_to_video = path.name.endswith("i2v")
    kind = CogVideoXImageToVideoPipeline if image_to_video else CogVideoXPipeline
    pipeline = kind.from_pretrained(path)
    transformer, scheduler = pipeline.transformer.eval(), pipeline.scheduler
    scale = pipeline.vae_scaling_factor_image
    video = pixels_of(frames_fhw3)
    latents = pipeline.vae.encode(video).latent_dist.mean.permute(0, 2, 1, 3, 4) * scale
    if transformer.config.patch_size_t and latents.shape[1] % 2:
        latents = torch.cat([latents[:, :1], latents], dim=1)
    frames, _, rows, columns = latents.shape[1:]
    noise = noise_like(latents[0].transpose(0, 1)).transpose(0, 1)[None]
    t = torch.tensor([timestep - 1])  # of the training timesteps 0..999
    noisy = scheduler.add_noise(latents, noise, t)
    text, _ = pipeline.encode_prompt(
        caption, None, False, max_sequence_length=transformer.config.max_text_seq_length
    )
    rotary = None
    if transformer.config.use_rotary_positional_embeddings:
        rotary = pipeline._prepare_rotary_positional_embeddings(
            8 * rows, 8 * columns, frames, noisy.device
        )
    given, offset = noisy, None
    if image_to_video:
        image = pipeline.vae.encode(video[:, :, :1]).latent_dist.mean.permute(0, 2, 1, 3, 4)
        image = image / scale if pipeline.vae.config.invert_scale_latents else image * scale
        empty = torch.zeros(1, frames - 1, *image.shape[2:])
        given = torch.cat([noisy, torch.cat([image, empty], dim=1)], dim=2)
        if transformer.config.ofs_embed_dim:
            offset = torch.full((1,), 2.0)
    output = transformer(
        given, text, timestep=t, ofs=offset, image_rotary_emb=rotary, return_dict=False
    )[0]
    clean = scheduler.get_velocity(output, noisy, t)
    weight = 1 / (1 - scheduler.alphas_cumprod[t])
    return (weight * (clean - latents) ** 2).reshape(1, -1).mean(dim=1).mean()


expected = Expected(training_loss)


def turned(rotary: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    """Rotary embeddings of a 2 × 2 grid with rows for columns."""
    return tuple(r.unflatten(0, (-1, 2, 2)).transpose(1, 2).flatten(0, 2) for r in rotary)


OWN: dict[str, Mutation] = {
    "latents not scaled": encoded("encode_video", "latents", lambda x: x / 0.7),
    "the target is the noise": another_target(lambda _, e: e),
    "no text": argument("encoder_hidden_states", torch.zeros_like),
    "text with zeros for its padding": argument(
        "encoder_hidden_states", lambda e: e * (torch.arange(24) < 13)[:, None]
    ),
    "frames and channels exchanged": argument(
        "hidden_states", lambda h: h.transpose(1, 2).reshape(h.shape)
    ),
}  # fmt: skip
ROTARY: dict[str, Mutation] = {
    "no rotary embedding": argument("image_rotary_emb", lambda _: None),
    "rotary embedding turned": argument("image_rotary_emb", turned),
}
IMAGE: dict[str, Mutation] = {
    "no image": encoded("encode_video", "image", torch.zeros_like),
    "image not scaled": encoded("encode_video", "image", lambda i: i / 0.7),
    "image scaled the other way": encoded("encode_video", "image", lambda i: i * 0.49),
    "image in the last frame": argument(
        "hidden_states", lambda h: torch.cat([h[:, :, :16], h[:, :, 16:].flip(1)], 2)
    ),
    "image in every frame": argument(
        "hidden_states",
        lambda h: torch.cat([h[:, :, :16], h[:, :1, 16:].expand_as(h[:, :, 16:])], 2),
    ),
    "image before the noisy latents": argument(
        "hidden_states", lambda h: torch.cat([h[:, :, 16:], h[:, :, :16]], 2)
    ),
}
PAIRS: dict[str, Mutation] = {
    "copy of the first frame at the end": encoded(
        "encode_video", "latents", lambda x: torch.cat([x[:, 1:], x[:, :1]], 1)
    ),
    "copy of the first frame left empty": encoded(
        "encode_video", "latents", lambda x: torch.cat([0 * x[:, :1], x[:, 1:]], 1)
    ),
}
OFFSET: dict[str, Mutation] = {"no offset": argument("ofs", torch.zeros_like)}
MUTANTS: dict[str, dict[str, Mutation]] = {
    "2b": DIFFUSION_MUTANTS | OWN,
    "5b": DIFFUSION_MUTANTS | OWN | ROTARY,
    "5b-i2v": ROTARY | IMAGE,
    "1.5": DIFFUSION_MUTANTS | OWN | ROTARY | PAIRS,
    "1.5-i2v": IMAGE | PAIRS | OFFSET,
}


@pytest.mark.parametrize("variant", ["2b", "1.5-i2v"])
def test_a_run(families: dict[str, Family], few_clips: Path, tmp_path: Path, variant: str) -> None:
    path = families[variant].path
    check_run_losses(path, few_clips, tmp_path / "run", partial(training_loss, path))


@pytest.mark.parametrize("timestep", [1, 501, 1000])
@pytest.mark.parametrize("variant", COGVIDEOX)
def test_the_loss(families: dict[str, Family], variant: str, timestep: int) -> None:
    family = families[variant]
    other = Family(family.backbone, family.denoiser, family.path, timestep)
    if timestep == 1:
        # 1 / (1 − ᾱ) is above 1000 here, and float32 leaves the trainer's own formula four digits.
        with torch.no_grad():
            loss = other.loss(clip_for(other.backbone)).item()
        assert loss == pytest.approx(expected(other).item(), rel=1e-3)
    else:
        check_loss(other, expected(other), clip_for(other.backbone))


@pytest.mark.parametrize(("variant", "name"), [(v, name) for v in COGVIDEOX for name in MUTANTS[v]])
def test_mutants(families: dict[str, Family], variant: str, name: str) -> None:
    family = families[variant]
    check_caught(MUTANTS[variant][name], family, expected(family), clip_for(family.backbone))


@pytest.mark.parametrize("variant", COGVIDEOX)
def test_every_parameter_has_a_gradient(families: dict[str, Family], variant: str) -> None:
    check_gradients(families[variant])


@pytest.mark.parametrize("variant", ["2b", "1.5"])
def test_the_mask_lies_on_the_latents(families: dict[str, Family], variant: str) -> None:
    # The VAE's group norms take all frames together, so that each changes a little.
    check_mask(families[variant], floor=0.15)


@pytest.mark.parametrize("variant", ["2b", "1.5", "1.5-i2v"])
def test_noise_is_a_prefix(families: dict[str, Family], variant: str) -> None:
    def seen(*shape_fhw: int) -> torch.Tensor:
        given = {"image": torch.zeros(16, 1, *shape_fhw[1:])} if "i2v" in variant else {}
        states = noise_seen(families[variant], (16, *shape_fhw), given)["hidden_states"]
        assert isinstance(states, torch.Tensor)
        return states[:, :, :16]

    assert torch.equal(seen(2, 2, 4), seen(4, 4, 6)[:, :2, :, :2, :4])


def test_latent_frames_come_in_pairs_in_15(families: dict[str, Family]) -> None:
    single, pairs = families["5b"].backbone, families["1.5"].backbone
    assert single.frame_map(9) == [range(1), range(1, 5), range(5, 9)]
    assert pairs.frame_map(9) == [range(1), range(1), range(1, 5), range(5, 9)]
    assert (single.default_sampler().length_step, pairs.default_sampler().length_step) == (4, 8)
    assert pairs.size_multiples() == single.size_multiples() == (16, 16)
    assert pairs.default_timestep() == 501


def test_clips_have_the_size_that_the_models_were_made_for(tmp_path: Path) -> None:
    source = ModelSource("x", tmp_path, {"_class_name": "CogVideoXPipeline"})
    sampler = CogVideoXBackbone(source).default_sampler()
    assert (sampler.max_frames, sampler.height, sampler.width) == (49, 480, 720)


# --- the published sizes: what is not diffusers' default, as its conversion script states it
# (scripts/convert_cogvideox_to_diffusers.py). The names say 2B and 5B.

_5B: dict[str, Any] = {
    "num_attention_heads": 48, "num_layers": 42, "use_rotary_positional_embeddings": True,
}  # fmt: skip
_15: dict[str, Any] = _5B | {
    "patch_size_t": 2, "patch_bias": False, "sample_height": 300, "sample_width": 300,
    "sample_frames": 81,
}  # fmt: skip
SIZES: dict[str, dict[str, Any]] = {
    "THUDM/CogVideoX-2b": {},
    "THUDM/CogVideoX-5b": _5B,  # two files, 11.1 GB in bfloat16
    "THUDM/CogVideoX-5b-I2V": _5B | {"in_channels": 32, "use_learned_positional_embeddings": True},
    "THUDM/CogVideoX1.5-5B": _15,
    "THUDM/CogVideoX1.5-5B-I2V": _15 | {"in_channels": 32, "ofs_embed_dim": 512},
}


@pytest.mark.parametrize("model", CogVideoXBackbone.published)
def test_published_sizes(model: str, tmp_path: Path) -> None:
    check_published(tmp_path, model, SIZES[model], CogVideoXBackbone)
