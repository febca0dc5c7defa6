"""LoRAs over a base model: real ones that diffusers and peft save, and musubi's keys."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanTransformer3DModel
from finetuned_wan import NAME, ORIGINAL, as_adapter, as_pipeline, prediction, saved, with_lora
from peft import get_peft_model_state_dict
from safetensors.torch import load_file

from motive.backbones.base import Backbone
from motive.backbones.finetuned import Finetuned, empty_network, load_network
from motive.errors import UserError
from motive.gradients.parameters import trained_parameters


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
