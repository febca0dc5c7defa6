"""What a training is in the middle of: the trained weights, the optimiser's moments, the losses so far."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from motive.errors import UserError

_LOSSES = "losses"
_PARTS = ("weight", "exp_avg", "exp_avg_sq", "step")


class TrainingState:
    """The parameters of `denoiser` that require gradients, with AdamW over them (no clipping, no warm-up).

    losses: of each step done, so their number is the number of steps done.

    Raises UserError when nothing is to be trained, or a trained weight is not in float32: many updates of
    1e-5 are smaller than half a unit in the last place of bfloat16, and lost.
    """

    def __init__(
        self, denoiser: torch.nn.Module, *, lr: float = 1e-5, weight_decay: float = 0.01
    ) -> None:
        self.parameters = {n: p for n, p in denoiser.named_parameters() if p.requires_grad}
        if not self.parameters:
            raise UserError("no parameter of the model is trained: let some require gradients")
        rounded = next((n for n, p in self.parameters.items() if p.dtype != torch.float32), None)
        if rounded is not None:
            raise UserError(
                f"{rounded} is not in float32: load the model that is trained in float32"
            )
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(),
            lr=lr,
            weight_decay=weight_decay,
            # One kernel over all numbers of a parameter; the moments of a large model have no copies.
            fused=all(p.device.type in ("cpu", "cuda", "mps") for p in self.parameters.values()),
        )
        self.losses: list[float] = []

    @property
    def step(self) -> int:
        """Steps done."""
        return len(self.losses)

    def save(self, path: Path) -> None:
        """Write everything to a safetensors file, whole or not at all."""
        tensors = {_LOSSES: torch.tensor(self.losses, dtype=torch.float64)}
        for name, parameter in self.parameters.items():
            # A parameter that the loss does not reach has no moments.
            parts: Mapping[str, Any] = self.optimizer.state.get(parameter, {})
            for part, tensor in {"weight": parameter.detach(), **parts}.items():
                tensors[f"{part}:{name}"] = tensor.contiguous()
        part_file = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            save_file(tensors, part_file)
            os.replace(part_file, path)
        finally:
            part_file.unlink(missing_ok=True)

    def load(self, path: Path) -> None:
        """Take up what `save` wrote of a training of the same parameters.

        Raises UserError when the file is damaged or of other parameters.
        """
        again = f"remove {path} to begin this training anew"
        try:
            tensors = load_file(path)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise UserError(f"{path} cannot be read ({error}): {again}") from None
        losses = tensors.pop(_LOSSES, None)
        kept: dict[str, dict[str, torch.Tensor]] = {}
        for full_name, tensor in tensors.items():
            part, _, name = full_name.partition(":")
            kept.setdefault(name, {})[part] = tensor
        fits = kept.keys() == self.parameters.keys() and all(
            parts.keys() <= set(_PARTS)
            and "weight" in parts
            and parts["weight"].shape == self.parameters[name].shape
            for name, parts in kept.items()
        )
        if losses is None or not fits:
            raise UserError(f"{path} is not a state of this training: {again}")
        self.losses = losses.tolist()
        self._take(kept)

    def _take(self, kept: dict[str, dict[str, torch.Tensor]]) -> None:
        moments = {}
        for number, (name, parameter) in enumerate(self.parameters.items()):
            parts = kept[name]
            with torch.no_grad():
                parameter.copy_(parts.pop("weight"))
            if parts:
                moments[number] = parts
        whole = self.optimizer.state_dict()
        self.optimizer.load_state_dict({**whole, "state": moments})
