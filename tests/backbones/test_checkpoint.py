"""Full fine-tuned checkpoints in place of the base's weights."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import WanTransformer3DModel
from finetuned_wan import NAME, ORIGINAL, as_adapter, prediction, saved, with_lora

from motive.backbones.base import Backbone
from motive.backbones.finetuned import Finetuned, empty_network, load_network


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
