"""Fine-tuned weights: real LoRAs that diffusers and peft save, musubi's keys, and full checkpoints."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import WanPipeline, WanTransformer3DModel
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from motive import Run
from motive.backbones import load_backbone
from motive.backbones.base import Backbone
from motive.backbones.finetuned import Finetuned, empty_network, is_factor, load_network
from motive.backbones.source import find_model
from motive.cli import main
from motive.errors import UserError
from motive.gradients.parameters import trained_parameters

NAME = "pytorch_lora_weights.safetensors"
TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "ffn.net.0.proj", "ffn.net.2"]
# Independent of diffusers' own table, for the blocks that a LoRA or a checkpoint has.
ORIGINAL = {
    "attn1.to_q": "self_attn.q", "attn1.to_k": "self_attn.k", "attn1.to_v": "self_attn.v",
    "attn1.to_out.0": "self_attn.o", "attn2.to_q": "cross_attn.q", "attn2.to_k": "cross_attn.k",
    "attn2.to_v": "cross_attn.v", "attn2.to_out.0": "cross_attn.o", "ffn.net.0.proj": "ffn.0",
    "ffn.net.2": "ffn.2", "attn1.norm_q": "self_attn.norm_q", "attn1.norm_k": "self_attn.norm_k",
    "attn2.norm_q": "cross_attn.norm_q", "attn2.norm_k": "cross_attn.norm_k", "norm2": "norm3",
    "condition_embedder.time_embedder.linear_1": "time_embedding.0",
    "condition_embedder.time_embedder.linear_2": "time_embedding.2",
    "condition_embedder.text_embedder.linear_1": "text_embedding.0",
    "condition_embedder.text_embedder.linear_2": "text_embedding.2",
    "condition_embedder.time_proj": "time_projection.1", "proj_out": "head.head",
    "patch_embedding": "patch_embedding",
}  # fmt: skip


@pytest.fixture
def backbone(small_wan: Path) -> Backbone:
    return load_backbone(find_model(str(small_wan)), dtype="float32", device="cpu")


def with_lora(small_wan: Path, *, zero: bool = False, **settings: Any) -> WanTransformer3DModel:
    torch.manual_seed(3)
    model = WanTransformer3DModel.from_pretrained(small_wan / "transformer")
    settings = {"r": 4, "lora_alpha": 8, "target_modules": TARGETS} | settings
    model.add_adapter(LoraConfig(**settings))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name and not zero:
                parameter.normal_(std=0.3)
    return model.eval()


def as_adapter(model: WanTransformer3DModel, folder: Path) -> Path:
    model.save_lora_adapter(folder)
    return folder


def as_pipeline(model: WanTransformer3DModel, folder: Path) -> Path:
    """As training scripts of diffusers save it."""
    factors = get_peft_model_state_dict(model)
    metadata = model.peft_config["default"].to_dict()
    WanPipeline.save_lora_weights(
        folder,
        factors,
        transformer_lora_adapter_metadata=json.loads(json.dumps(metadata, default=list)),
    )
    return folder


def as_musubi(model: WanTransformer3DModel, folder: Path) -> Path:
    """The keys that musubi-tuner saves, with alphas of their own."""
    weights = {}
    for name, factor in get_peft_model_state_dict(model).items():
        module, _, which = name.removesuffix(".weight").rpartition(".lora_")
        block, _, part = module.removeprefix("blocks.").partition(".")
        key = f"lora_unet_blocks_{block}_{ORIGINAL[part].replace('.', '_')}"
        weights[f"{key}.lora_{'down' if which == 'A' else 'up'}.weight"] = factor
        weights[f"{key}.alpha"] = torch.tensor(8.0)
    return saved(weights, folder / "musubi.safetensors")


def saved(weights: dict[str, torch.Tensor], file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.detach().contiguous() for name, tensor in weights.items()}, file)
    return file


def prediction(model: torch.nn.Module) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(1, 16, 3, 4, 4, generator=generator)
    text = torch.randn(1, 24, 16, generator=generator)
    return model(latents, torch.tensor([500]), text, return_dict=False)[0]


# --- LoRAs


@pytest.mark.parametrize("train", ["base", "lora"])
@pytest.mark.parametrize("save", [as_adapter, as_pipeline, as_musubi])
def test_a_lora_is_read_as_diffusers_saves_it(
    small_wan: Path,
    backbone: Backbone,
    tmp_path: Path,
    save: Callable[[WanTransformer3DModel, Path], Path],
    train: str,
) -> None:
    model = with_lora(small_wan)
    place = save(model, tmp_path / "lora")
    network = load_network(backbone, Finetuned(lora=str(place), train=train))
    with torch.no_grad():
        expected, found = prediction(model), prediction(network)
        base = prediction(backbone.load_denoiser())
    assert torch.allclose(found, expected, atol=1e-5, rtol=1e-4)
    assert (base - expected).abs().max() > 0.01


@pytest.mark.parametrize(
    "settings",
    [
        {"rank_pattern": {"to_q": 2}, "alpha_pattern": {"to_k": 1}},
        {"use_rslora": True},
        {"lora_bias": True},
        {"target_modules": ["proj_out"], "r": 1},
    ],
)
def test_rank_and_alpha_are_the_files(
    small_wan: Path, backbone: Backbone, tmp_path: Path, settings: dict[str, Any]
) -> None:
    model = with_lora(small_wan, **settings)
    place = as_pipeline(model, tmp_path / "lora")
    for train in ("base", "lora"):
        network = load_network(backbone, Finetuned(lora=str(place), train=train))
        with torch.no_grad():
            assert torch.allclose(prediction(network), prediction(model), atol=1e-5, rtol=1e-4)


def test_without_metadata_alpha_is_the_rank_of_each_pair(
    small_wan: Path, backbone: Backbone, tmp_path: Path
) -> None:
    patterns = {"rank_pattern": {"to_q": 2}, "alpha_pattern": {"to_q": 2}, "lora_alpha": 4}
    model = with_lora(small_wan, **patterns)
    file = saved(get_peft_model_state_dict(model), tmp_path / "plain.safetensors")
    network = load_network(backbone, Finetuned(lora=str(file)))
    with torch.no_grad():
        assert torch.allclose(prediction(network), prediction(model), atol=1e-5, rtol=1e-4)


def test_fused_the_parameters_are_the_bases(
    small_wan: Path, backbone: Backbone, tmp_path: Path
) -> None:
    place = as_adapter(with_lora(small_wan), tmp_path)
    network = load_network(backbone, Finetuned(lora=str(place)))
    base = dict(backbone.load_denoiser().named_parameters())
    fused = trained_parameters(network, "*", "base")
    assert list(fused) == list(base)
    changed = {n for n in base if not torch.equal(base[n], fused[n])}
    assert changed == {f"{m}.weight" for m in modules_of(place / NAME)}
    assert not network.training


def test_the_gradient_of_a_base_weight_is_that_of_an_active_lora(
    small_wan: Path, backbone: Backbone, tmp_path: Path
) -> None:
    model = with_lora(small_wan)
    network = load_network(backbone, Finetuned(lora=str(as_adapter(model, tmp_path))))
    active = dict(model.named_parameters())
    for parameter in active.values():
        parameter.requires_grad_(True)
    trained_parameters(network, "*", "base")
    prediction(model).square().mean().backward()
    prediction(network).square().mean().backward()
    for name, parameter in network.named_parameters():
        module, _, kind = name.rpartition(".")
        twin = active[name if name in active else f"{module}.base_layer.{kind}"]
        if parameter.grad is None:
            assert twin.grad is None
            continue
        assert twin.grad is not None
        assert torch.allclose(parameter.grad, twin.grad, atol=1e-6, rtol=1e-3), name


def test_the_factors_alone_are_trained(small_wan: Path, backbone: Backbone, tmp_path: Path) -> None:
    model = with_lora(small_wan)
    finetuned = Finetuned(lora=str(as_adapter(model, tmp_path)), train="lora")
    network = load_network(backbone, finetuned)
    chosen = trained_parameters(network, "*", "lora")
    expected = {n: p for n, p in model.named_parameters() if "lora_" in n}
    assert chosen.keys() == expected.keys()
    assert all(torch.equal(chosen[n], expected[n]) for n in chosen)
    frozen = [n for n, p in network.named_parameters() if not p.requires_grad]
    assert set(frozen) == dict(network.named_parameters()).keys() - chosen.keys()
    empty = trained_parameters(empty_network(backbone, finetuned), "*", "lora")
    assert {n: p.shape for n, p in empty.items()} == {n: p.shape for n, p in chosen.items()}
    assert all(p.is_meta for p in empty.values())
    some = trained_parameters(network, "blocks.1.*", "lora")
    assert some.keys() == {n for n in chosen if n.startswith("blocks.1.")}
    assert not chosen["blocks.0.attn1.to_q.lora_A.default.weight"].requires_grad
    with pytest.raises(UserError, match="no factor of the LoRA is called like 'proj_out"):
        trained_parameters(network, "proj_out.*", "lora")


def modules_of(file: Path) -> set[str]:
    return {name.split(".lora_")[0] for name in load_file(file)}


# --- full checkpoints


@pytest.fixture
def tuned(small_wan: Path) -> WanTransformer3DModel:
    model = WanTransformer3DModel.from_pretrained(small_wan / "transformer").eval()
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return model


def as_original(model: WanTransformer3DModel) -> dict[str, torch.Tensor]:
    """With the names of the published network."""
    weights = {}
    for name, tensor in model.state_dict().items():
        block, dot, rest = "", "", name
        if name.startswith("blocks."):
            _, number, rest = name.split(".", 2)
            block, dot = f"blocks.{number}", "."
        if rest == "scale_shift_table":
            key = f"{block}.modulation" if block else "head.modulation"
        else:
            module, _, kind = rest.rpartition(".")
            key = f"{block}{dot}{ORIGINAL[module]}.{kind}"
        weights[key] = tensor
    return weights


def in_parts(model: WanTransformer3DModel, folder: Path) -> Path:
    model.save_pretrained(folder, max_shard_size="20KB")
    assert len(list(folder.glob("*.safetensors"))) > 1
    return folder


def as_whole_pipeline(model: WanTransformer3DModel, folder: Path) -> Path:
    model.save_pretrained(folder / "transformer")
    return folder


CHECKPOINTS: dict[str, Callable[[WanTransformer3DModel, Path], Path]] = {
    "a folder": lambda m, p: (m.save_pretrained(p), p)[1],
    "in parts": in_parts,
    "a pipeline's": as_whole_pipeline,
    "a file": lambda m, p: saved(m.state_dict(), p / "epoch-4.safetensors"),
    "a folder with one file": lambda m, p: saved(m.state_dict(), p / "epoch-4.safetensors").parent,
    "half precision": lambda m, p: saved(
        {n: t.bfloat16() for n, t in m.state_dict().items()}, p / "x.safetensors"
    ),
    "the original's names": lambda m, p: saved(as_original(m), p / "wan.safetensors"),
    "a workflow's names": lambda m, p: saved(
        {f"model.diffusion_model.{n}": t for n, t in as_original(m).items()}, p / "wan.safetensors"
    ),
}


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_a_checkpoint_takes_the_place_of_the_bases_weights(
    backbone: Backbone, tuned: WanTransformer3DModel, tmp_path: Path, kind: str
) -> None:
    place = CHECKPOINTS[kind](tuned, tmp_path / "tuned")
    finetuned = Finetuned(checkpoint=str(place))
    empty_network(backbone, finetuned)
    found = dict(load_network(backbone, finetuned).named_parameters())
    for name, tensor in tuned.named_parameters():
        expected = tensor.bfloat16().float() if kind == "half precision" else tensor
        assert torch.equal(found[name], expected), name


def test_a_lora_over_a_checkpoint(
    small_wan: Path, backbone: Backbone, tuned: WanTransformer3DModel, tmp_path: Path
) -> None:
    model = with_lora(small_wan)
    as_adapter(model, tmp_path / "lora")
    tuned.save_pretrained(tmp_path / "tuned")
    tuned.load_lora_adapter(tmp_path / "lora", prefix=None, weight_name=NAME)
    both = Finetuned(str(tmp_path / "tuned"), str(tmp_path / "lora"))
    with torch.no_grad():
        found, expected = prediction(load_network(backbone, both)), prediction(tuned)
    assert torch.allclose(found, expected, atol=1e-5, rtol=1e-4)


# --- what does not fit


def wide(weights: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    return weights | {name: torch.zeros(7, 5)}


def without(weights: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    return {n: t for n, t in weights.items() if n != name}


A = "blocks.0.attn1.to_q.lora_A.weight"
LORAS: dict[str, tuple[Callable[[dict[str, Any]], dict[str, Any]], str]] = {
    "another rank": (lambda w: wide(w, A), r"is \[7, 5\] for a weight of \[24, 24\]"),
    "half a pair": (lambda w: without(w, A), "has no other factor"),
    "another model's": (
        lambda w: {f"blocks.9.{n}": t for n, t in w.items()}, "is no factor of one of its weights"
    ),
    "not a factor": (lambda w: w | {"proj_out.weight": torch.zeros(2)}, "proj_out.weight is no factor"),
    "a DoRA": (
        lambda w: w | {"blocks.0.attn1.to_q.lora_magnitude_vector": torch.ones(24)}, "is a DoRA"
    ),
    "a text encoder's too": (
        lambda w: {f"transformer.{n}": t for n, t in w.items()}
        | {"text_encoder.x.lora_A.weight": torch.zeros(1)},
        "also one of another component",
    ),
    "nothing": (lambda w: {}, "it has no factors"),
    "kohya's of another": (
        lambda w: {"lora_unet_blocks_0_other.lora_down.weight": torch.zeros(1)}, "diffusers does not read"
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", LORAS)
def test_a_lora_that_does_not_fit_is_refused_early(
    small_wan: Path, backbone: Backbone, tmp_path: Path, kind: str
) -> None:
    harm, complaint = LORAS[kind]
    weights = load_file(as_adapter(with_lora(small_wan), tmp_path) / NAME)
    file = saved(harm(weights), tmp_path / "harmed.safetensors")
    refused(backbone, Finetuned(lora=str(file)), complaint)


def test_a_checkpoint_that_does_not_fit_is_refused_early(
    backbone: Backbone, tuned: WanTransformer3DModel, tmp_path: Path
) -> None:
    weights = tuned.state_dict()
    for harmed, complaint in (
        (without(weights, "proj_out.bias"), r"it lacks 1 weights, such as proj_out.bias"),
        (weights | {"other": torch.zeros(1)}, r"it has 1 others, such as other"),
        (wide(weights, "proj_out.weight"), r"proj_out.weight is \[7, 5\] and not \[64, 24\]"),
        ({f"x.{n}": t for n, t in weights.items()}, "it lacks"),
    ):
        file = saved(harmed, tmp_path / "harmed.safetensors")
        refused(backbone, Finetuned(checkpoint=str(file)), complaint)


def refused(backbone: Backbone, finetuned: Finetuned, complaint: str) -> None:
    for work in (empty_network, load_network):
        with pytest.raises(UserError, match=complaint) as error:
            work(backbone, finetuned)
        assert "\n" not in str(error.value)
        assert ". " not in str(error.value)


class Trap:
    """Unpickled, it leaves a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.file,)


@pytest.mark.parametrize("role", ["lora", "checkpoint"])
def test_nothing_is_unpickled(backbone: Backbone, tmp_path: Path, role: str) -> None:
    trap = pickle.dumps(Trap(tmp_path / "sprung"))
    for name in ("model.pt", "pytorch_lora_weights.bin", "model.safetensors", NAME):
        (tmp_path / name).write_bytes(trap)
        for place in (tmp_path / name, tmp_path):
            with pytest.raises(UserError):
                load_network(backbone, Finetuned(**{role: str(place)}))
        (tmp_path / name).unlink()
    assert not (tmp_path / "sprung").exists()


def test_files_that_are_not_there_or_not_clear(
    backbone: Backbone, tuned: WanTransformer3DModel, tmp_path: Path
) -> None:
    def complaint(place: Path) -> str:
        with pytest.raises(UserError) as error:
            Finetuned(checkpoint=str(place)).fingerprint("base", "transformer")
        return str(error.value)

    assert "there is no checkpoint" in complaint(tmp_path / "none")
    assert "has no safetensors file" in complaint(tmp_path)
    saved(tuned.state_dict(), tmp_path / "epoch-1.safetensors")
    shutil.copy(tmp_path / "epoch-1.safetensors", tmp_path / "epoch-2.safetensors")
    assert "has several files (epoch-1.safetensors, epoch-2.safetensors)" in complaint(tmp_path)
    whole = (tmp_path / "epoch-1.safetensors").read_bytes()
    (tmp_path / "epoch-1.safetensors").write_bytes(whole[:-10])
    assert "no whole safetensors file" in complaint(tmp_path / "epoch-1.safetensors")
    with pytest.raises(UserError, match="there is no LoRA to train: give --lora"):
        Finetuned(train="lora")


# --- in a run


def run_of(small_wan: Path, few_clips: Path, path: Path, **settings: Any) -> Run:
    named = {f"finetuned__{name}": str(value) for name, value in settings.items()}
    run = Run.create(
        path, clips=str(few_clips), queries=str(few_clips), model=str(small_wan), **named
    )
    for stage in ("ingest", "track", "encode", "gradients"):
        getattr(run, stage)()
    return run


def test_features_are_of_the_fine_tuned_model(
    small_wan: Path, few_clips: Path, tuned: WanTransformer3DModel, tmp_path: Path
) -> None:
    """The base's with a LoRA of zeros; others with a LoRA or a checkpoint that changes the weights."""
    zeros = as_adapter(with_lora(small_wan, zero=True), tmp_path / "zeros")
    lora = as_adapter(with_lora(small_wan), tmp_path / "lora")
    tuned.save_pretrained(tmp_path / "tuned")
    runs = {
        "base": run_of(small_wan, few_clips, tmp_path / "1"),
        "zeros": run_of(small_wan, few_clips, tmp_path / "2", lora=zeros),
        "lora": run_of(small_wan, few_clips, tmp_path / "3", lora=lora),
        "tuned": run_of(small_wan, few_clips, tmp_path / "4", checkpoint=tmp_path / "tuned"),
    }
    features = {name: run.features("clip").features_nd for name, run in runs.items()}
    assert np.array_equal(features["zeros"], features["base"])
    for name in ("lora", "tuned"):
        assert np.abs(features[name] - features["base"]).max() > 1e-3
    assert len({run.objective.model for run in runs.values()}) == 4
    assert len({run.plan.model_fingerprint for run in runs.values()}) == 1

    # The file's content counts, not its name.
    copy = shutil.copytree(lora, tmp_path / "copy")
    settings = {"clips": str(few_clips), "queries": str(few_clips), "model": str(small_wan)}
    moved = Run.create(tmp_path / "5", **settings, finetuned__lora=str(copy))
    assert moved.objective == runs["lora"].objective
    with pytest.raises(UserError, match=r"finetuned\.lora is .* there and .* now"):
        Run.create(tmp_path / "5", **settings, finetuned__lora=str(zeros))
    shutil.copy(zeros / NAME, copy / NAME)
    changed = Run.open(tmp_path / "5")
    assert changed.objective.model == runs["zeros"].objective.model


def test_features_of_the_factors_under_a_trainers_objective_from_the_command_line(
    small_wan: Path, few_clips: Path, tmp_path: Path
) -> None:
    model = with_lora(small_wan)
    words = ["--clips", few_clips, "--queries", few_clips, "--model", small_wan, "--quiet"]
    words += ["--lora", as_adapter(model, tmp_path / "lora"), "--train", "lora"]
    words += ["--trainer", "diffsynth", "--draws", 2, "--timestep-range", "300,900", "--shift", 4]
    words += ["--projection", "identity", "--out", tmp_path / "run"]
    with pytest.raises(SystemExit) as outcome:
        main(["curate", *map(str, words)])
    assert outcome.value.code == 0
    run = Run.open(tmp_path / "run")
    features = run.features("clip").features_nd
    factors = [p.numel() for n, p in model.named_parameters() if is_factor(n)]
    assert features.shape[1] == sum(factors)
    moving = features.any(axis=1)
    assert moving.sum() > 1
    assert np.abs(np.linalg.norm(features[moving], axis=1) - 1).max() < 1e-5
    assert (run.objective.train, run.objective.trainer) == ("lora", "diffsynth")
    assert len(run.objective.timesteps) == 2
    assert all(300 <= t < 900 for t in run.objective.timesteps)
    assert (tmp_path / "run" / "selection.csv").is_file()


def test_a_run_is_not_begun_with_files_that_do_not_fit(
    small_wan: Path, few_clips: Path, tmp_path: Path
) -> None:
    file = saved({"x.lora_A.weight": torch.zeros(1, 2)}, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="is not one of this model"):
        run_of(small_wan, few_clips, tmp_path / "run", lora=file)
    with pytest.raises(UserError, match="there is no LoRA to train"):
        run_of(small_wan, few_clips, tmp_path / "run", train="lora")
    assert not (tmp_path / "run").exists()
