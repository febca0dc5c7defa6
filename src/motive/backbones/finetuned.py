"""Fine-tuned weights over a base model: a full checkpoint in place of the denoiser's, a LoRA, or both.

Files are safetensors, in diffusers' own names or in others that diffusers converts: LoRAs with the keys of
peft, of musubi/kohya (`lora_unet_…`) or of the original network (`diffusion_model.…`), checkpoints with
those of the original network. Nothing is ever unpickled, and what does not fit whole is refused.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from motive.backbones.base import Backbone
from motive.backbones.source import file_digest
from motive.backbones.weight_files import safetensors_of
from motive.errors import UserError

if TYPE_CHECKING:
    import torch

ADAPTER = "default"  # peft's name for a LoRA that is the only one
_FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<which>[AB])\.(?P<kind>weight|bias)")
# What a LoRA file may say of itself; anything else could only change how new factors would be made.
_SETTINGS = ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "lora_bias")


@dataclass(frozen=True)
class Finetuned:
    """The files of a fine-tuned model, and what of it is differentiated.

    checkpoint, lora: what the user named, or None. Find them with `files`.
    train: `base` for the denoiser's own weights, the LoRA fused in; `lora` for the LoRA's factors.

    Raises UserError for `lora` without a LoRA.
    """

    checkpoint: str | None = None
    lora: str | None = None
    train: str = "base"

    def __post_init__(self) -> None:
        if self.train == "lora" and self.lora is None:
            raise UserError("there is no LoRA to train: give --lora, or leave out --train lora")

    def checkpoint_files(self, component: str) -> list[Path]:
        """The checkpoint's safetensors files, those of `component` in a pipeline's folder.

        Raises UserError when there are none.
        """
        return safetensors_of(self.checkpoint, "checkpoint", component) if self.checkpoint else []

    def lora_file(self) -> Path | None:
        """The LoRA's safetensors file.

        Raises UserError when there is none, or it is not clear which is meant.
        """
        if self.lora is None:
            return None
        files = safetensors_of(self.lora, "LoRA")
        if len(files) > 1:
            raise UserError(f"the LoRA {self.lora} is in several parts: save it as one file")
        return files[0]

    def fingerprint(
        self, base: str, component: str, digest: Callable[[Path], str] = file_digest
    ) -> str:
        """Of the base's fingerprint and the files' digests; the base's own where there are none.

        Raises UserError when a file is not there.
        """
        checkpoint, lora = self.checkpoint_files(component), self.lora_file()
        if not checkpoint and lora is None:
            return base
        whole = hashlib.blake2b(base.encode(), digest_size=10)
        for role, files in (("checkpoint", checkpoint), ("lora", [lora] if lora else [])):
            for file in files:
                whole.update(f"\n{role} {digest(file)}".encode())
        return whole.hexdigest()


def empty_network(backbone: Backbone, finetuned: Finetuned) -> "torch.nn.Module":
    """The network that is differentiated, on the `meta` device, once the files are found to fit it.

    Raises UserError when they do not, or are damaged; checkpoints are judged by their headers.
    """
    network = backbone.empty_denoiser()
    if finetuned.checkpoint is not None:
        files = finetuned.checkpoint_files(backbone.denoiser)
        _require_fit(_in_diffusers_names(_headers(files), network, backbone), network, finetuned)
    if finetuned.lora is not None:
        factors, metadata = _read_lora(finetuned, backbone, network)
        if finetuned.train == "lora":
            _attach(network, factors, metadata, finetuned)
    return network


def load_network(backbone: Backbone, finetuned: Finetuned) -> "torch.nn.Module":
    """The denoiser with the checkpoint's weights, and the LoRA fused into them or active beside them.

    Raises UserError as `empty_network`.
    """
    network = backbone.load_denoiser()
    if finetuned.checkpoint is not None:
        files = finetuned.checkpoint_files(backbone.denoiser)
        weights = _in_diffusers_names(_tensors(files), network, backbone)
        _require_fit(weights, network, finetuned)
        network.load_state_dict(weights)
    if finetuned.lora is not None:
        factors, metadata = _read_lora(finetuned, backbone, network)
        lora = _attach(network, factors, metadata, finetuned)
        if finetuned.train == "base":
            # W + s B A is the weight that the gradient of W is taken at, fused or not; fused, its
            # parameters have the base's names, and so features the base's projection.
            lora.fuse_lora()
            lora.unload_lora()
    return network.eval()


def is_factor(name: str) -> bool:
    """Whether a parameter is a factor of a LoRA."""
    return re.search(r"\.lora_[AB]\.", name) is not None


# Full checkpoints.


def _headers(files: Iterable[Path]) -> "dict[str, torch.Tensor]":
    """Tensors without numbers, on `meta`."""
    import torch
    from safetensors import safe_open

    found = {}
    for file in files:
        with safe_open(file, "pt") as opened:
            for name in opened.keys():  # noqa: SIM118  (not a mapping)
                shape = opened.get_slice(name).get_shape()
                found[name] = torch.empty(shape, device="meta")
    return found


def _tensors(files: Iterable[Path]) -> "dict[str, torch.Tensor]":
    from safetensors.torch import load_file

    return {name: tensor for file in files for name, tensor in load_file(file).items()}


def _in_diffusers_names(
    weights: "dict[str, torch.Tensor]", network: "torch.nn.Module", backbone: Backbone
) -> "dict[str, torch.Tensor]":
    """The weights under the names that they have, or that diffusers converts them to if more fit."""
    from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES

    own = network.state_dict().keys()
    convert = SINGLE_FILE_LOADABLE_CLASSES.get(type(network).__name__)
    if convert is None or weights.keys() == own:
        return weights
    config = backbone.source.config(backbone.denoiser)
    try:
        converted: dict[str, torch.Tensor] = convert["checkpoint_mapping_fn"](
            checkpoint=dict(weights), config=config
        )
    except (KeyError, ValueError, RuntimeError, IndexError, AttributeError, TypeError):
        return weights  # not the original's names either: `_require_fit` says which do not fit
    return max(weights, converted, key=lambda named: len(named.keys() & own))


def _require_fit(
    weights: "dict[str, torch.Tensor]", network: "torch.nn.Module", finetuned: Finetuned
) -> None:
    """Raise UserError, naming a tensor, unless these are the network's names and shapes."""
    own = network.state_dict()
    what = f"the checkpoint {finetuned.checkpoint} is not one of this model"
    advice = "give the fine-tuned transformer of the same base"
    if missing := sorted(own.keys() - weights.keys()):
        raise UserError(f"{what} (it lacks {len(missing)} weights, such as {missing[0]}): {advice}")
    if foreign := sorted(weights.keys() - own.keys()):
        raise UserError(f"{what} (it has {len(foreign)} others, such as {foreign[0]}): {advice}")
    for name, tensor in weights.items():
        if tensor.shape != own[name].shape:
            mine, theirs = list(own[name].shape), list(tensor.shape)
            raise UserError(f"{what} ({name} is {theirs} and not {mine}): {advice}")


# LoRAs.


def _read_lora(
    finetuned: Finetuned, backbone: Backbone, network: "torch.nn.Module"
) -> "tuple[dict[str, torch.Tensor], dict[str, Any]]":
    """The factors by the network's own names, and what the file says of rank and alpha.

    Raises UserError unless every tensor of the file is a factor for a weight of the network.
    """
    from safetensors import safe_open

    file = finetuned.lora_file()
    assert file is not None
    weights = _tensors([file])
    with safe_open(file, "pt") as opened:
        said = (opened.metadata() or {}).get("lora_adapter_metadata", "{}")
    if dora := [n for n in weights if "dora_scale" in n or "magnitude" in n]:
        raise UserError(f"{finetuned.lora} is a DoRA ({dora[0]}): give a plain LoRA")
    prefix, factors = _own_part(_converted(weights, finetuned, backbone), backbone, finetuned)
    _require_factors(factors, network, finetuned)
    try:
        metadata = json.loads(said)
        own = {n.removeprefix(prefix): v for n, v in metadata.items() if n.startswith(prefix)}
    except (ValueError, AttributeError):
        raise UserError(f"{finetuned.lora} has damaged metadata: save the LoRA again") from None
    if own.get("use_dora"):
        raise UserError(f"{finetuned.lora} is a DoRA: give a plain LoRA")
    said_of_it = {name: own[name] for name in _SETTINGS if name in own}
    return factors, _peft_settings(factors, said_of_it)


def _peft_settings(factors: "dict[str, torch.Tensor]", said: dict[str, Any]) -> dict[str, Any]:
    """peft's settings for these factors. Of a file that says nothing, each pair's alpha is its rank."""
    ranks = {
        n.removesuffix(".lora_A.weight"): len(f) for n, f in factors.items() if ".lora_A." in n
    }
    if not said:
        patterns = {f"^{re.escape(module)}$": rank for module, rank in ranks.items()}
        said = {"rank_pattern": patterns, "alpha_pattern": dict(patterns)}
        said["r"] = said["lora_alpha"] = next(iter(ranks.values()))
        said["lora_bias"] = any(name.endswith(".lora_B.bias") for name in factors)
    return {**said, "target_modules": list(ranks)}


def _converted(
    weights: "dict[str, torch.Tensor]", finetuned: Finetuned, backbone: Backbone
) -> "dict[str, torch.Tensor]":
    """With the names that the pipeline's own loader gives them."""
    import diffusers

    pipeline: Any = getattr(diffusers, backbone.source.pipeline_class, None)
    if not hasattr(pipeline, "lora_state_dict"):
        return weights
    try:
        found = pipeline.lora_state_dict(dict(weights))
    except (KeyError, ValueError, RuntimeError, IndexError, AttributeError, TypeError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise UserError(
            f"diffusers does not read the LoRA {finetuned.lora} ({reason}): "
            "save it with diffusers' save_lora_weights"
        ) from None
    if isinstance(found, tuple):  # of networks whose alphas come apart
        found, alphas = found
        if alphas:
            raise UserError(
                f"{finetuned.lora} has alphas apart from its factors: "
                "save it with diffusers' save_lora_weights"
            )
    converted: dict[str, torch.Tensor] = found
    return converted


def _own_part(
    factors: "dict[str, torch.Tensor]", backbone: Backbone, finetuned: Finetuned
) -> "tuple[str, dict[str, torch.Tensor]]":
    """The prefix of the denoiser's factors in the file, and the factors without it."""
    experts = [c for c in backbone.components if c.startswith(("transformer", "unet"))]
    prefixes = {e for e in experts if any(n.startswith(f"{e}.") for n in factors)}
    for name in factors:
        if name.partition(".")[0] in backbone.components.keys() - set(experts):
            raise UserError(
                f"{finetuned.lora} is also one of another component ({name}): give one with factors "
                f"of the {backbone.denoiser} alone"
            )
    if not prefixes:  # as save_lora_adapter writes it
        return "", factors
    # Of two experts' factors, the others belong to the other expert; a file for either has the first's.
    prefix = backbone.denoiser if backbone.denoiser in prefixes else sorted(prefixes)[0]
    own = {n: f for n, f in factors.items() if n.partition(".")[0] not in prefixes - {prefix}}
    return f"{prefix}.", {n.removeprefix(f"{prefix}."): f for n, f in own.items()}


def _require_factors(
    factors: "dict[str, torch.Tensor]", network: "torch.nn.Module", finetuned: Finetuned
) -> None:
    """Raise UserError, naming a tensor, unless all are pairs of factors of the network's weights."""
    what = f"the LoRA {finetuned.lora} is not one of this model"
    advice = "give one that was trained on the same base"
    own = dict(network.named_parameters())
    if not factors:
        raise UserError(f"{what} (it has no factors): {advice}")
    for name, factor in factors.items():
        match = _FACTOR.fullmatch(name)
        weight = own.get(f"{match['module']}.weight") if match else None
        if match is None or weight is None:
            raise UserError(f"{what} ({name} is no factor of one of its weights): {advice}")
        if match["kind"] == "bias":
            continue
        down, up = (factors.get(f"{match['module']}.lora_{which}.weight") for which in "AB")
        if down is None or up is None:
            raise UserError(f"{what} ({name} has no other factor): {advice}")
        fits = down.ndim == up.ndim == weight.ndim and up.shape[1] == down.shape[0]
        if not fits or (up.shape[0], down.shape[1]) != tuple(weight.shape[:2]):
            raise UserError(
                f"{what} ({name} is {list(factor.shape)} for a weight of {list(weight.shape)}): "
                f"{advice}"
            )


def _attach(
    network: Any,
    factors: "dict[str, torch.Tensor]",
    metadata: dict[str, Any],
    finetuned: Finetuned,
) -> Any:
    """The network itself, with the LoRA active in it.

    Raises UserError when peft is not installed, or the network takes no LoRA.
    """
    if not hasattr(network, "load_lora_adapter"):
        raise UserError(f"diffusers loads no LoRA into {type(network).__name__}: leave out --lora")
    try:
        import peft  # noqa: F401
    except ImportError:
        raise UserError("a LoRA needs the package peft: run pip install peft") from None
    try:
        network.load_lora_adapter(
            dict(factors),
            prefix=None,
            adapter_name=ADAPTER,
            metadata=metadata,
            low_cpu_mem_usage=True,  # no random numbers in between, whose shapes meta has alone
        )
    except (KeyError, ValueError, RuntimeError, AttributeError, TypeError) as error:
        reason = str(error).strip().splitlines()[0][:200]
        raise UserError(
            f"the LoRA {finetuned.lora} cannot be loaded ({reason}): save it with diffusers' "
            "save_lora_weights"
        ) from None
    loaded = sum(is_factor(name) for name, _ in network.named_parameters())
    if loaded != len(factors):
        raise UserError(
            f"of the {len(factors)} factors of {finetuned.lora} {loaded} were loaded: "
            "save it with diffusers' save_lora_weights"
        )
    return network
