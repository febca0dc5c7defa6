"""Where in a clip its influence comes from: the derivative of the loss at each location.

Influence is the inner product of the query's unit gradient d = g̃(q) with the clip's (paper, section 3.4).
The clip's loss is a sum over locations, L = Σ ℓ(f, h, w), so its inner product with d is one too:

    d · ∇L / ‖∇L‖ = Σ (d · ∇ℓ(f, h, w)) / ‖∇L‖

and all the d · ∇ℓ(f, h, w) come from a single forward-mode derivative of the map ℓ along d. Nothing is
projected here: d is the query's whole gradient.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch.func import functional_call, jvp

from motive.errors import ClipError
from motive.explanation.attention import BlockwiseAttention
from motive.gradients.clip_loss import ClipDraw
from motive.gradients.stage import save_memory

Gradient = dict[str, torch.Tensor]


def unit_direction(
    denoiser: torch.nn.Module,
    parameters: Mapping[str, torch.nn.Parameter],
    draws: Iterable[ClipDraw],
) -> Gradient:
    """g̃: the unit vector along the mean of the draws' unit gradients, in the parameters' own space.

    Takes as much memory as the gradient, for several draws twice.

    Raises ClipError when the gradient is zero or not finite.
    """
    mean, _ = _mean_of_units(denoiser, parameters, draws)
    length = _norm(mean.values())
    return {name: part / length for name, part in mean.items()}


def heat_map(
    denoiser: torch.nn.Module,
    parameters: Mapping[str, torch.nn.Parameter],
    draws: Iterable[ClipDraw],
    direction: Gradient,
) -> torch.Tensor:
    """What each location of a clip adds to its influence along `direction`, `(F, H, W)` float32.

    The sum over the locations is the cosine of the whole gradients, -1..1.

    draws: the clip's, which are gone through twice.
    direction: the query's, from `unit_direction`.

    Raises ClipError when the clip's gradient is zero or not finite.
    """
    draws = list(draws)
    mean, norms = _mean_of_units(denoiser, parameters, draws)
    length = _norm(mean.values())
    del mean
    network = _Functional(denoiser)
    values = {name: parameter.detach() for name, parameter in parameters.items()}
    total = torch.zeros(())
    for draw, norm in zip(draws, norms, strict=True):

        def map_of(values: Gradient, draw: ClipDraw = draw) -> torch.Tensor:
            network.values = values
            return draw.loss_map(draw.predict(network))

        with torch.no_grad(), BlockwiseAttention():
            along_fhw = jvp(map_of, (values,), (direction,))[1]
        share = (draw.weight or 1.0) / (norm * len(draws) * length)
        total = total + share * along_fhw.float().cpu()
    return total


def _mean_of_units(
    denoiser: torch.nn.Module,
    parameters: Mapping[str, torch.nn.Parameter],
    draws: Iterable[ClipDraw],
) -> tuple[Gradient, list[float]]:
    """The mean of the draws' unit gradients, each times its weight, and the gradients' norms."""
    mean: Gradient = {}
    norms: list[float] = []
    draws = list(draws)
    for draw in draws:
        save_memory(denoiser, draw.noisy_cfhw)
        loss = draw.loss(draw.predict(denoiser))
        found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        norm = _norm(part for part in found if part is not None)
        if not 0 < norm < float("inf"):
            raise ClipError("its gradient is zero or not finite, so its influence has no place")
        norms.append(norm)
        share = (draw.weight or 1.0) / (norm * len(draws))
        for (name, parameter), part in zip(parameters.items(), found, strict=True):
            # A parameter that the loss does not reach has no gradient.
            part = torch.zeros_like(parameter) if part is None else part
            part = part.detach().mul_(share)
            mean[name] = part if name not in mean else mean[name].add_(part)
    return mean, norms


def _norm(parts: Iterable[torch.Tensor]) -> float:
    return sum(float(part.double().square().sum()) for part in parts) ** 0.5


class _Functional:
    """What an adapter takes for the denoiser: its attributes, and a call with other parameters."""

    def __init__(self, denoiser: torch.nn.Module) -> None:
        self._denoiser = denoiser
        self.values: Gradient = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._denoiser, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return functional_call(self._denoiser, self.values, args, kwargs)
