"""LTX-2's video against flow matching, written out with diffusers' own pipeline and scheduler."""

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
from diffusers import FlowMatchEulerDiscreteScheduler, LTX2Pipeline
from diffusers.pipelines.ltx2.pipeline_ltx2 import calculate_shift
from diffusion_checks import COMMON_MUTANTS, Expected, another_target, check_run_losses, noise_like
from small_ltx2 import LTX2, build_ltx2

from motive.backbones.ltx2 import LTX2Backbone

KINDS = tuple(LTX2)


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Family]:
    folder = tmp_path_factory.mktemp("ltx2")
    return {kind: load_family(build_ltx2(folder / kind, kind)) for kind in KINDS}


@torch.no_grad()
def training_loss(path: Path, frames_fhw3: np.ndarray, caption: str, timestep: int) -> torch.Tensor:
    """E‖v − (ε − x)‖² without sound; of an image-to-video model over what comes after the given frame.

    The sound is noise here, of several tokens: kept apart from the video, it may be anything.
    """
    cls, _ = LTX2[path.name]
    pipeline = cls.from_pretrained(path, audio_vae=None, vocoder=None)  # type: ignore[attr-defined]
    scheduler = FlowMatchEulerDiscreteScheduler()  # trainers noise without the trajectory's shift
    vae, transformer, t = (
        pipeline.vae.eval(),
        pipeline.transformer.eval(),
        torch.tensor([float(timestep)]),
    )
    z = vae.encode(pixels_of(frames_fhw3)).latent_dist.mean
    x = LTX2Pipeline._normalize_latents(z, vae.latents_mean, vae.latents_std)
    noise = noise_like(x[0])[None]
    noisy = scheduler.scale_noise(x, t, noise)
    counted = torch.ones_like(x[:, :1])
    per_token = t
    if path.name == "image":
        counted[:, :, 0] = 0
        noisy = torch.where(counted > 0, noisy, x)
        per_token = LTX2Pipeline._pack_latents(counted)[..., 0] * t
    layers, mask, _, _ = pipeline.encode_prompt(
        caption, do_classifier_free_guidance=False, max_sequence_length=128
    )
    text, text_of_sound, mask = pipeline.connectors.eval()(layers, mask, padding_side="left")
    frames, height, width = x.shape[2:]
    output = transformer(
        hidden_states=LTX2Pipeline._pack_latents(noisy),
        encoder_hidden_states=text,
        timestep=per_token,
        sigma=t,
        encoder_attention_mask=mask,
        num_frames=frames,
        height=height,
        width=width,
        fps=24.0,
        audio_hidden_states=torch.randn(1, 5, 8),
        audio_encoder_hidden_states=text_of_sound,
        audio_timestep=t,
        audio_num_frames=5,
        isolate_modalities=True,
    ).sample
    velocity = LTX2Pipeline._unpack_latents(output, frames, height, width)
    # The trainer divides by the share that counts; the direction of the gradient is the same.
    return (counted * (velocity - (noise - x)) ** 2).mean()


expected = Expected(training_loss)


def with_sound(patch: pytest.MonkeyPatch, backbone: Any) -> None:
    """The video attends to the sound, as when both are generated."""
    predict = backbone.predict

    def mutant(denoiser: Any, *rest: Any) -> torch.Tensor:
        return predict(lambda **given: denoiser(**{**given, "isolate_modalities": False}), *rest)

    patch.setattr(backbone, "predict", mutant)


OWN: dict[str, Mutation] = {
    "the target is the noise": another_target(lambda _, e: e),
    "the timestep in 0..1": argument("timestep", lambda t: t / 1000),
    "latents without their mean": encoded(
        "encode_video", "latents", lambda x: x + 0.1 * torch.arange(8).view(-1, 1, 1, 1) / 8
    ),
    "latents without their spread": encoded("encode_video", "latents", lambda x: x * 1.5),
    "no text": argument("encoder_hidden_states", torch.zeros_like),
    "text without its registers": argument(
        "encoder_attention_mask", lambda m: 1.0 * (m.cumsum(1) < 14)
    ),
    "tokens column by column": argument(
        "hidden_states", lambda h: h.unflatten(1, (3, 2, 2)).transpose(2, 3).flatten(1, 3)
    ),
    "tokens frame inside cell": argument(
        "hidden_states", lambda h: h.unflatten(1, (3, 4)).transpose(1, 2).flatten(1, 2)
    ),
    "another frame rate": argument("fps", lambda _: 25.0),
    "sound beside the video": with_sound,
}
LATER: dict[str, Mutation] = {"text told another timestep": argument("sigma", torch.zeros_like)}
IMAGE: dict[str, Mutation] = {
    "first frame noised": encoded("encode_video", "image", lambda i: i + 0.1),
    "no first frame": encoded("encode_video", "image", torch.zeros_like),
    "first frame told the timestep": argument("timestep", lambda t: t.max().expand_as(t)),
}
# The condition pipeline, taken without conditions, is the text one: its mutants are the same.
MUTANTS = {"text": COMMON_MUTANTS | OWN, "image": COMMON_MUTANTS | OWN | LATER | IMAGE}


@pytest.mark.parametrize("kind", KINDS)
def test_a_run(families: dict[str, Family], few_clips: Path, tmp_path: Path, kind: str) -> None:
    path = families[kind].path
    check_run_losses(path, few_clips, tmp_path / "run", partial(training_loss, path))


@pytest.mark.parametrize("timestep", [1, 501, 1000])
@pytest.mark.parametrize("kind", KINDS)
def test_the_loss(families: dict[str, Family], kind: str, timestep: int) -> None:
    family = families[kind]
    other = Family(family.backbone, family.denoiser, family.path, timestep)
    check_loss(other, expected(other), clip_for(other.backbone))


@pytest.mark.parametrize(("kind", "name"), [(k, name) for k in MUTANTS for name in MUTANTS[k]])
def test_mutants(families: dict[str, Family], kind: str, name: str) -> None:
    family = families[kind]
    check_caught(MUTANTS[kind][name], family, expected(family), clip_for(family.backbone))


def test_the_first_frame_counting_is_noticed(
    families: dict[str, Family], monkeypatch: pytest.MonkeyPatch
) -> None:
    family = families["image"]
    monkeypatch.setattr(family.backbone, "loss_weights", lambda _: None)
    with pytest.raises(AssertionError):
        check_loss(family, expected(family), clip_for(family.backbone))


@pytest.mark.parametrize("kind", KINDS)
def test_every_parameter_of_the_video_has_a_gradient(
    families: dict[str, Family], kind: str
) -> None:
    # LTX-2.0 has no place for keyframes.
    check_gradients(
        families[kind], absent={"keyframes_abs_pos_embedding"} if kind == "text" else set()
    )


def test_the_mask_lies_on_the_latents(families: dict[str, Family]) -> None:
    check_mask(families["text"])


@pytest.mark.parametrize("kind", KINDS)
def test_noise_is_a_prefix_on_the_tokens_grid(families: dict[str, Family], kind: str) -> None:
    def seen(*shape_fhw: int) -> torch.Tensor:
        image = {"image": torch.zeros(8, 1, *shape_fhw[1:])} if kind == "image" else {}
        call = noise_seen(families[kind], (8, *shape_fhw), image)
        grid: torch.Tensor = call["hidden_states"].unflatten(1, shape_fhw)
        return grid

    assert torch.equal(seen(2, 2, 4), seen(3, 4, 6)[:, :2, :2, :4])


def test_the_default_timestep_is_the_schedulers(families: dict[str, Family]) -> None:
    backbone = families["text"].backbone
    scheduler = FlowMatchEulerDiscreteScheduler.from_pretrained(families["text"].path / "scheduler")
    shift = calculate_shift(3 * 2 * 2, 1024, 4096, 0.95, 2.05)
    scheduler.set_timesteps(sigmas=np.linspace(1, 1 / 1000, 1000), mu=shift)
    assert backbone.default_timestep() == pytest.approx(scheduler.timesteps[499].item(), abs=0.5)


def test_clips_have_the_lengths_and_sizes_of_the_vae(families: dict[str, Family]) -> None:
    backbone = families["text"].backbone
    assert backbone.frame_map(17) == [range(1), range(1, 9), range(9, 17)]
    assert (backbone.size_multiples(), backbone.spatial_stride()) == ((32, 32), 32)
    assert backbone.default_sampler().usable_length(121) == 121


# As diffusers' conversion script states them (scripts/convert_ltx2_to_diffusers.py,
# get_ltx2_transformer_config); all else are the class's defaults.
_2_3: dict[str, Any] = {
    "gated_attn": True, "cross_attn_mod": True, "audio_gated_attn": True, "audio_cross_attn_mod": True,
    "use_prompt_embeddings": False, "perturbed_attn": True, "rope_type": "split",
}  # fmt: skip
SIZES: dict[str, dict[str, Any]] = {
    "Lightricks/LTX-2": {"rope_type": "split"},
    "Lightricks/LTX-2.3": _2_3,
    "Lightricks/LTX-2.5": _2_3 | {"ff_bias": False, "use_keyframes_abs_pos_embedding": True},
}


@pytest.mark.parametrize("model", LTX2Backbone.published)
def test_published_sizes(model: str, tmp_path: Path) -> None:
    check_published(tmp_path, model, SIZES[model], LTX2Backbone)
    # The first model's files are called ltx-2-19b.
    assert round(LTX2Backbone.published[model] / 1e9) == 19
