"""The Wan adapter against diffusers' own pipeline, scheduler and networks, used directly."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    WanPipeline,
    WanTransformer3DModel,
)
from safetensors.torch import load_file, save_file

from motive.backbones import load_backbone
from motive.backbones.base import Backbone
from motive.backbones.source import ModelSource, find_model
from motive.backbones.wan import WanBackbone
from motive.errors import ClipError, UserError

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def wan(small_wan: Path) -> Backbone:
    backbone = load_backbone(find_model(str(small_wan)), dtype="float32", device="cpu")
    backbone.load_vae()
    backbone.load_text_encoder()
    return backbone


@pytest.fixture(scope="module")
def vae(small_wan: Path) -> AutoencoderKLWan:
    return AutoencoderKLWan.from_pretrained(small_wan / "vae").eval()


@pytest.fixture(scope="module")
def pipeline(small_wan: Path) -> WanPipeline:
    return WanPipeline.from_pretrained(small_wan)


def clip(frames: int = 9, size: int = 32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, size, size, 3)).astype(np.uint8)


def random_latents(seed: int, frames: int = 3) -> torch.Tensor:
    return torch.randn(16, frames, 4, 4, generator=torch.Generator().manual_seed(seed))


# --- encoding


@pytest.mark.parametrize("frames", [1, 5, 9])
def test_latents_are_the_posterior_mean_normalised(
    wan: Backbone, vae: AutoencoderKLWan, frames: int
) -> None:
    latents = wan.encode_video(clip(frames))["latents"]
    assert latents.shape == (16, (frames - 1) // 4 + 1, 4, 4)
    assert latents.dtype == torch.float32
    pixels = torch.tensor(clip(frames).astype(np.float64) / 255 * 2 - 1).float()
    with torch.no_grad():
        posterior = vae.encode(pixels.permute(3, 0, 1, 2)[None]).latent_dist
    for channel in range(16):
        mean, std = vae.config.latents_mean[channel], vae.config.latents_std[channel]
        expected = (posterior.mean[0, channel] - mean) / std
        assert torch.allclose(latents[channel], expected, atol=1e-5, rtol=1e-5)
    assert len(set(vae.config.latents_std)) > 10  # so that a forgotten normalisation shows


def test_encoding_twice_gives_the_same_latents(wan: Backbone) -> None:
    first = wan.encode_video(clip())["latents"]
    wan.encode_video(clip(seed=1))
    assert torch.equal(wan.encode_video(clip())["latents"], first)


def test_the_frame_map_is_the_vaes_own(wan: Backbone) -> None:
    """Changing a pixel frame first changes the latent frame that the map gives it."""
    before = wan.encode_video(clip())["latents"]
    for frame in range(9):
        frames = clip()
        frames[frame] = 255 - frames[frame]
        changed = (wan.encode_video(frames)["latents"] - before).abs().amax((0, 2, 3)) > 1e-6
        holder = next(k for k, covers in enumerate(wan.frame_map(9)) if frame in covers)
        assert int(changed.nonzero()[0]) == holder


@pytest.mark.parametrize("shape", [(5, 24, 32, 3), (5, 32, 40, 3), (5, 33, 32, 3)])
def test_sizes_that_the_patches_do_not_fit_are_refused(
    wan: Backbone, shape: tuple[int, ...]
) -> None:
    with pytest.raises(ClipError, match="multiples of 16 and 16 pixels"):
        wan.encode_video(np.zeros(shape, np.uint8))


@pytest.mark.parametrize(
    "caption", ["a ball", "", "  two   blanks &amp; an entity ", "ünknown łetters", "long " * 20]
)
def test_text_is_what_the_pipeline_encodes_without_its_padding(
    wan: Backbone, pipeline: WanPipeline, caption: str
) -> None:
    with torch.no_grad():
        padded, _ = pipeline.encode_prompt(
            caption, do_classifier_free_guidance=False, max_sequence_length=24
        )
    text = wan.encode_text(caption, 24)["text"]
    assert text.dtype == torch.float32
    assert 1 <= len(text) <= 24
    assert (len(text) < 24) == (caption.count("long") == 0)
    assert text[-1].abs().sum() > 0
    filled = torch.cat([text, torch.zeros(24 - len(text), text.shape[1])])
    assert torch.equal(filled, padded[0].float())


def test_no_text_without_its_encoder(small_wan: Path) -> None:
    fresh = load_backbone(find_model(str(small_wan)))
    with pytest.raises(AssertionError, match="load_text_encoder first"):
        fresh.encode_text("a", 24)
    with pytest.raises(AssertionError, match="load_vae first"):
        fresh.encode_video(clip())
    fresh.load_vae()
    fresh.unload()
    with pytest.raises(AssertionError, match="load_vae first"):
        fresh.encode_video(clip())


# --- what the model is


def described(tmp_path: Path, **configs: dict[str, object]) -> WanBackbone:
    for part, content in configs.items():
        name = "motive.json" if part == "motive" else f"{part}/config.json"
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(content))
    return WanBackbone(
        ModelSource("x", tmp_path, {"_class_name": "WanPipeline"}), torch.float32, CPU
    )


@pytest.mark.parametrize(
    ("scheduler", "timestep"),
    [
        ({"_class_name": "UniPCMultistepScheduler", "flow_shift": 3.0}, 751),  # as Wan 2.1 ships
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}, 751),
        ({"flow_shift": 5.0}, 834),
        ({"shift": 1.0}, 501),
        ({}, 501),
    ],
)
def test_the_default_timestep_is_the_middle_of_the_shifted_trajectory(
    tmp_path: Path, scheduler: dict[str, object], timestep: int
) -> None:
    assert described(tmp_path, scheduler=scheduler).default_timestep() == timestep
    shift = float(str(scheduler.get("flow_shift") or scheduler.get("shift") or 1.0))
    trajectory = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=shift).timesteps
    assert len(trajectory) == 1000
    assert abs(trajectory[499].item() - timestep) <= 0.5


def test_the_default_sampler_is_wans_or_the_model_folders(tmp_path: Path, wan: Backbone) -> None:
    plain = described(tmp_path).default_sampler()
    assert (plain.max_frames, plain.height, plain.width) == (81, 480, 832)
    assert (plain.length_step, plain.length_offset) == (4, 1)
    small = wan.default_sampler()
    assert (small.max_frames, small.height, small.width) == (9, 32, 32)


@pytest.mark.parametrize(("longest", "padded"), [(24, 24), (512, 512), (10**30, 512), (1e30, 512)])
def test_prompts_are_padded_to_the_tokenizers_length_up_to_the_pipelines(
    tmp_path: Path, longest: float, padded: int
) -> None:
    assert (
        described(tmp_path, tokenizer={"model_max_length": longest}).default_prompt_length()
        == padded
    )
    assert described(tmp_path / "..", tokenizer={}).default_prompt_length() == 512


def test_the_frame_map_covers_every_frame_once(wan: Backbone) -> None:
    assert wan.frame_map(9) == [range(1), range(1, 5), range(5, 9)]
    assert wan.frame_map(1) == [range(1)]
    for frames in (1, 5, 33, 81):
        covered = [f for covers in wan.frame_map(frames) for f in covers]
        assert covered == list(range(frames))
    for frames in (0, 2, 4, 80, 82):
        with pytest.raises(ValueError, match="the VAE would drop some"):
            wan.frame_map(frames)
    assert wan.spatial_stride() == 8


@pytest.mark.parametrize(
    ("configs", "multiples", "lengths"),
    [
        ({}, (16, 16), (4, 1)),
        ({"vae": {"scale_factor_spatial": 16}}, (32, 32), (4, 1)),
        ({"transformer": {"patch_size": [1, 2, 4]}}, (16, 32), (4, 1)),
        ({"transformer": {"patch_size": [1, 1, 1]}}, (8, 8), (4, 1)),
        # Latent frames in pairs: 5, 13, 21 frames.
        ({"transformer": {"patch_size": [2, 2, 2]}}, (16, 16), (8, 5)),
        ({"vae": {"scale_factor_temporal": 8}}, (16, 16), (8, 1)),
    ],
)
def test_what_sizes_and_lengths_fit_is_the_configurations(
    tmp_path: Path,
    configs: dict[str, dict[str, object]],
    multiples: tuple[int, int],
    lengths: tuple[int, int],
) -> None:
    backbone = described(tmp_path, **configs)
    sampler = backbone.default_sampler()
    assert backbone.size_multiples() == multiples
    assert (sampler.length_step, sampler.length_offset) == lengths


@pytest.mark.parametrize("patch", [2, [2, 2], [1, 2, 0], [1, 2, "2"], None])
def test_patches_that_are_no_patches_are_refused(tmp_path: Path, patch: object) -> None:
    with pytest.raises(UserError, match="has a patch_size of"):
        described(tmp_path, transformer={"patch_size": patch}).size_multiples()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_empty_denoiser_is_the_loaded_one_without_its_numbers(
    small_wan: Path, dtype: str
) -> None:
    backbone = load_backbone(find_model(str(small_wan)), dtype=dtype, device="cpu")
    empty, loaded = backbone.empty_denoiser(), backbone.load_denoiser()
    expected = [(n, tuple(p.shape), p.dtype) for n, p in loaded.named_parameters()]
    assert [(n, tuple(p.shape), p.dtype) for n, p in empty.named_parameters()] == expected
    assert {p.device.type for p in empty.parameters()} == {"meta"}
    assert empty.training is False
    assert backbone.parameter_shapes() == {name: shape for name, shape, _ in expected}


def test_the_empty_denoiser_of_wan_21_1_3b_has_its_parameters(tmp_path: Path) -> None:
    with torch.device("meta"):
        model = WanTransformer3DModel(num_attention_heads=12, num_layers=30, ffn_dim=8960)
    model.save_config(tmp_path / "transformer")
    shapes = described(tmp_path).parameter_shapes()
    assert len(shapes) == 825
    assert sum(math.prod(shape) for shape in shapes.values()) == 1_418_996_800


@pytest.mark.parametrize(
    "config", [{"num_layers": "many"}, {"attention_head_dim": "wide"}, {"patch_size": 3}]
)
def test_a_configuration_that_makes_no_model_is_refused(
    tmp_path: Path, config: dict[str, object]
) -> None:
    with pytest.raises(UserError, match="makes no Wan model"):
        described(tmp_path, transformer=config).empty_denoiser()


def test_a_whole_pipeline_is_required_with_or_without_its_weights(
    small_wan: Path, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(small_wan, tmp_path / "model"))
    backbone = load_backbone(find_model(str(model)))
    backbone.require_components()
    (model / "transformer/diffusion_pytorch_model.safetensors").unlink()
    backbone.require_components(weights=False)
    with pytest.raises(UserError, match="has no weights in its folder transformer"):
        backbone.require_components()
    shutil.rmtree(model / "scheduler")
    with pytest.raises(UserError, match="has no folder scheduler"):
        backbone.require_components(weights=False)


# --- the objective


@pytest.mark.parametrize("timestep", [1, 250, 751, 1000])
def test_noise_is_added_as_diffusers_adds_it(wan: Backbone, timestep: int) -> None:
    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=1.0)
    latents, noise = random_latents(0), random_latents(1)
    expected = scheduler.scale_noise(latents[None], torch.tensor([float(timestep)]), noise[None])[0]
    assert torch.allclose(wan.add_noise(latents, noise, timestep), expected, atol=1e-6, rtol=0)


def test_the_target_is_what_the_sampler_follows(wan: Backbone) -> None:
    """One Euler step of diffusers' scheduler along the target, from t to 0, ends in the clean latents."""
    latents, noise = random_latents(0), random_latents(1)
    scheduler = FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, shift=1.0)
    scheduler.set_timesteps(sigmas=[0.751])
    noisy, target = wan.add_noise(latents, noise, 751), wan.target(latents, noise, 751)
    landed = scheduler.step(target, scheduler.timesteps[0], noisy, return_dict=False)[0]
    assert torch.allclose(landed, latents, atol=1e-6)
    # And it is dz/dt of the noising itself (paper, section 3.1).
    change = (wan.add_noise(latents, noise, 800) - wan.add_noise(latents, noise, 700)) / 0.1
    assert torch.allclose(target, change, atol=1e-5)


def test_the_prediction_is_the_transformers_at_the_timestep_itself(
    wan: Backbone, small_wan: Path, pipeline: WanPipeline
) -> None:
    noisy = random_latents(2)
    text = wan.encode_text("a ball", 24)["text"]
    with torch.no_grad():
        prediction = wan.predict(wan.load_denoiser(), noisy, 751, {"text": text}, 24)
        padded, _ = pipeline.encode_prompt("a ball", None, False, max_sequence_length=24)
        transformer = WanTransformer3DModel.from_pretrained(small_wan / "transformer").eval()

        def plain(timestep: float, prompt: torch.Tensor) -> torch.Tensor:
            return transformer(
                hidden_states=noisy[None],
                timestep=torch.tensor([timestep]),
                encoder_hidden_states=prompt,
            ).sample[0]

        assert torch.allclose(prediction, plain(751.0, padded), atol=1e-6, rtol=1e-5)
        # What would go wrong unnoticed: t scaled to 0..1, and padding left out.
        assert not torch.allclose(prediction, plain(0.751, padded), atol=1e-4)
        assert not torch.allclose(prediction, plain(751.0, text[None]), atol=1e-6)
    assert prediction.shape == noisy.shape
    assert prediction.dtype == torch.float32


def test_the_denoiser_is_whole_trainable_and_not_in_training_mode(wan: Backbone) -> None:
    denoiser = wan.load_denoiser()
    assert isinstance(denoiser, WanTransformer3DModel)
    assert not denoiser.training
    assert all(p.requires_grad and p.dtype == torch.float32 for p in denoiser.parameters())


def test_bfloat16_is_the_denoisers_alone(small_wan: Path) -> None:
    half = load_backbone(find_model(str(small_wan)), dtype="bfloat16", device="cpu")
    denoiser = half.load_denoiser()
    blocks = {n: p.dtype for n, p in denoiser.named_parameters() if ".attn1.to_" in n}
    assert set(blocks.values()) == {torch.bfloat16}
    half.load_vae()
    assert half.encode_video(clip(1))["latents"].dtype == torch.float32
    with torch.no_grad():
        prediction = half.predict(denoiser, random_latents(0), 751, {"text": torch.ones(3, 16)}, 24)
    assert prediction.dtype == torch.float32


# --- checkpoints that are not whole


def lose_weight(file: Path) -> str:
    weights = load_file(file)
    name = sorted(weights)[3]
    save_file({k: v for k, v in weights.items() if k != name}, file, metadata={"format": "pt"})
    return f"lacks 1 of its weights, such as {name}"


def truncate(file: Path) -> str:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return "cannot be loaded"


def lose_weights_file(file: Path) -> str:
    file.unlink()
    return "cannot be loaded"


def lose_folder(file: Path) -> str:
    shutil.rmtree(file.parent)
    return f"has no folder {file.parent.name}"


def damage_config(file: Path) -> str:
    (file.parent / "config.json").write_text("{")
    return "cannot be "  # loaded, or read as JSON


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder"])
@pytest.mark.parametrize(
    "harm", [lose_weight, truncate, lose_weights_file, lose_folder, damage_config]
)
def test_a_damaged_checkpoint_is_refused_and_never_filled_up_with_random_numbers(
    small_wan: Path, tmp_path: Path, part: str, harm: object
) -> None:
    model = Path(shutil.copytree(small_wan, tmp_path / "model"))
    (file,) = (model / part).glob("*.safetensors")
    says = harm(file)  # type: ignore[operator]

    def load() -> None:
        backbone = load_backbone(find_model(str(model)))
        {
            "transformer": backbone.load_denoiser,
            "vae": backbone.load_vae,
            "text_encoder": backbone.load_text_encoder,
        }[part]()

    with pytest.raises(UserError) as error:
        load()
    assert says in str(error.value)
    assert part in str(error.value)
    assert str(error.value).endswith("again")


def test_pickled_weights_are_not_loaded(small_wan: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(small_wan, tmp_path / "model"))
    file = model / "transformer/diffusion_pytorch_model.safetensors"
    torch.save(load_file(file), file.with_suffix(".bin"))
    file.unlink()
    with pytest.raises(UserError, match=r"the transformer of .* cannot be loaded"):
        load_backbone(find_model(str(model))).load_denoiser()


@pytest.mark.parametrize("kept", ["shared.weight", "encoder.embed_tokens.weight"])
def test_one_name_of_a_shared_embedding_is_enough(
    small_wan: Path, tmp_path: Path, wan: Backbone, kept: str
) -> None:
    # Wan's own checkpoints say that embeddings are not tied, and hold them once.
    model = Path(shutil.copytree(small_wan, tmp_path / "model"))
    config = json.loads((model / "text_encoder/config.json").read_text())
    (model / "text_encoder/config.json").write_text(
        json.dumps(config | {"tie_word_embeddings": False})
    )
    file = model / "text_encoder/model.safetensors"
    weights = load_file(file)
    names = {"shared.weight", "encoder.embed_tokens.weight"}
    (table,) = [weights.pop(name) for name in names & weights.keys()]
    save_file({**weights, kept: table}, file, metadata={"format": "pt"})
    other = load_backbone(find_model(str(model)))
    other.load_text_encoder()
    assert torch.equal(
        other.encode_text("a ball", 24)["text"], wan.encode_text("a ball", 24)["text"]
    )
