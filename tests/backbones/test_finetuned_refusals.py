"""Fine-tuned weights that do not fit, or cannot be trusted, are refused before anything is written."""

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanTransformer3DModel
from finetuned_wan import NAME, as_adapter, saved, with_lora
from safetensors.torch import load_file

from motive.backbones.base import Backbone
from motive.backbones.finetuned import Finetuned, empty_network, load_network
from motive.errors import UserError


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
