"""Factored projection, after LoGra: a linear layer's gradient from its inputs and output gradients.

The gradient of a linear layer's weight for one clip is G = sum_t d_t a_t^T over its tokens t, with a_t
the layer's input and d_t the gradient of its output. With two small sign matrices L (p x out) and R
(q x in), entries +-1/sqrt(p) and +-1/sqrt(q),

    L G R^T = sum_t (L d_t)(R a_t)^T

is had from projected inputs and output gradients: G is never formed, which saves a third of a
backward pass, and the sums over tokens can be made for each clip of a batch apart (Choe et al., "What
is your data worth to GPT?", 2024). The reduced matrices, and all other gradients as they are, then go
through `fastfood` (sign-fold and Fastfood), which is what keeps the layers apart.

`FactoredProjection` computes that from whole gradients, behind the interface of `projection`;
`FactoredGradient` from a module's inputs and output gradients. Their features are the same but for
the rounding of float32 products: to 1e-5 of the norm, as tested.

What is reduced: tensors of exactly two dimensions, in each dimension of more than 2 x 128 = 256, to
128. L and R are drawn from (seed, name), each layer its own, when they are used; nothing is stored.

Unbiased: E L^T L and E R^T R are the identity, and what follows is unbiased. But this is not the
paper's projection, and its variance is its own. For a layer whose gradient has rank one, the worst
case, |L G R^T|^2 / |G|^2 has variance (1 + 2/p)(1 + 2/q) - 1, 0.0315 for p = q = 128. Layers err
independently: a model with the share w_l of its squared gradient in layer l adds sum_l w_l^2 x 0.0315
at most to the (1 + rho^2)/dim of Fastfood. Over 300 equal layers that is 1e-4 on 0.002 to 0.004 at
dim = 512. In one layer it is eight times as much as Fastfood's own. For gradients of higher rank it
falls with the stable rank.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from motive.errors import ClipError, UserError
from motive.gradients import counter_torch
from motive.gradients.counter import key
from motive.gradients.projection import FastfoodProjection, Shapes, StreamedProjection

RANK = 128
"""p and q: what a long side of a matrix is reduced to."""

_ROWS = 1 << 20  # numbers of a whole gradient that are widened to float32 at a time


class Factors:
    """The matrices L and R of every parameter.

    seed: of the projection.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def reduced(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of L G R^T for a gradient of `shape`; of G, if it is not reduced."""
        if len(shape) != 2:
            return shape
        return tuple(RANK if side > 2 * RANK else side for side in shape)

    def project(self, name: str, side: str, x: torch.Tensor) -> torch.Tensor:
        """x L^T or x R^T: (..., size) to float32 (..., p); x in float32 if `size` is not reduced.

        side: "out" for L, "in" for R.
        """
        size = x.shape[-1]
        if size <= 2 * RANK:
            return x.float()
        signs = counter_torch.signs(key(self.seed, "factored", side, name), RANK * size, x.device)
        return x.float() @ (signs.view(RANK, size) / RANK**0.5).t()

    def reduce(self, name: str, gradient: torch.Tensor) -> torch.Tensor:
        """L G R^T, float32; a gradient that is not reduced comes back as it is."""
        if self.reduced(tuple(gradient.shape)) == tuple(gradient.shape):
            return gradient
        rows = max(1, _ROWS // gradient.shape[1])
        narrow = torch.cat([self.project(name, "in", strip) for strip in gradient.split(rows)])
        return self.project(name, "out", narrow.t()).t()


class FactoredProjection(StreamedProjection):
    """The factored projection of whole gradients (see `gradients.projection.Projection`).

    Token embeddings are matrices too and are reduced like weights; biases, norms, convolutions and
    tables of other than two dimensions go to the sign-fold as they are.
    """

    kind = "factored"

    def __init__(self, dim: int, seed: int, shapes: Shapes, fold: int = 65_536) -> None:
        super().__init__(shapes)
        self.dim = dim
        self.seed = seed
        self._factors = Factors(seed)
        reduced = {name: self._factors.reduced(shape) for name, shape in self._shapes.items()}
        self._projection = FastfoodProjection(dim, seed, reduced, fold)

    @property
    def nbytes(self) -> int:
        """Bytes that it holds between two gradients."""
        return self._projection.nbytes

    def _reset(self) -> None:
        self._projection.begin()

    def _take(self, name: str, gradient: torch.Tensor) -> None:
        self._projection.add(name, self._factors.reduce(name, gradient))

    def _result(self) -> npt.NDArray[np.float32]:
        return self._projection.finish()


def linear_parameters(
    module: torch.nn.Module, parameters: dict[str, torch.nn.Parameter]
) -> dict[str, torch.nn.Parameter]:
    """Those of `parameters` whose gradients `FactoredGradient` can tell apart by clip.

    They are the weights and biases of `torch.nn.Linear` layers, LoRA factors among them, that no
    module of another class owns too. (Subclasses of Linear do not count: they may be used otherwise,
    as the output projection of `torch.nn.MultiheadAttention` is.) What is left out of a transformer
    such as Wan's are norms, modulation tables and the convolution that makes patches.
    """
    elsewhere = {
        id(parameter)
        for owner in module.modules()
        if type(owner) is not torch.nn.Linear
        for parameter in owner.parameters(recurse=False)
    }
    inside = {
        id(parameter)
        for owner in module.modules()
        if type(owner) is torch.nn.Linear
        for parameter in owner.parameters(recurse=False)
    }
    return {n: p for n, p in parameters.items() if id(p) in inside - elsewhere}


@dataclass
class _Pass:
    """One forward and backward pass."""

    calls: dict[str, int] = field(default_factory=dict)  # output gradients still to come
    sums: dict[str, torch.Tensor] = field(default_factory=dict)  # (clips, ...) of those that came
    leading: dict[str, int] = field(default_factory=dict)  # what a layer's first dimension was
    without_graph: set[str] = field(default_factory=set)
    projections: list[FastfoodProjection] = field(default_factory=list)
    done: set[str] = field(default_factory=set)
    backward: bool = False


class FactoredGradient:
    """Factored features of one clip, or of several in one batch, that never form a weight's gradient.

    The counterpart of `streaming.StreamingGradient`. The gradient stage would call it so:

        parameters = choose_parameters(denoiser, objective.parameters)
        parameters = linear_parameters(denoiser, parameters)       # to take clips in batches
        gradient = FactoredGradient(denoiser, parameters, objective.dim, objective.projection_seed)
        features = gradient.features(losses_of)                    # (clips, dim)

    with `losses_of` predicting for a batch of clips of one shape and returning each clip's own loss,
    (clips,). A clip's loss must depend on that clip alone: no batch norm. What is left out by
    `linear_parameters` must be part of the objective, as its features are of another gradient.

    Covered by hooks are the weights and biases that `linear_parameters` names (`covered`). All other
    parameters (`others`) get ordinary gradients, which are sums over the batch: with them only one
    clip at a time can be taken.

    Works under autocast and non-reentrant gradient checkpointing; not on a compiled module, whose
    layers are not called one by one. A covered parameter must be used through its layer only.

    Args:
        module: holds `parameters`.
        parameters: by name; names are what randomness is drawn by.
        dim, seed: of the projection, as in `make_projection("factored", ...)`.
    """

    def __init__(
        self,
        module: torch.nn.Module,
        parameters: dict[str, torch.nn.Parameter],
        dim: int,
        seed: int,
        fold: int = 65_536,
    ) -> None:
        self.parameters = parameters
        self.covered = tuple(linear_parameters(module, parameters))
        self.others = tuple(sorted(parameters.keys() - set(self.covered)))
        self._factors = Factors(seed)
        shapes = {name: tuple(p.shape) for name, p in parameters.items()}
        self._reduced = {name: self._factors.reduced(shape) for name, shape in shapes.items()}
        self._make_projection = partial(FastfoodProjection, dim, seed, self._reduced, fold)
        self._projections = [self._make_projection()]
        names = {id(parameters[name]): name for name in self.covered}
        self._layers = [
            (layer, names.get(id(layer.weight)), names.get(id(layer.bias)))
            for layer in module.modules()
            if type(layer) is torch.nn.Linear
            and (id(layer.weight) in names or id(layer.bias) in names)
        ]

    def features(self, losses_of: Callable[[], torch.Tensor]) -> npt.NDArray[np.float32]:
        """The projected gradient of each of the losses, float32 (clips, dim), not normalised.

        losses_of: gives the clips' losses, (clips,). Activations have the clips as their first
            dimension wherever a covered layer is called, unless there is one clip only.

        A parameter that the losses do not reach has gradient zero.

        Raises:
            ClipError: a loss or a gradient is not finite; names the parameter.
            UserError: several clips, and parameters outside linear layers.
            ValueError: losses of another shape, a layer whose first dimension is not the clips', or
                reentrant checkpointing.
        """
        with self._hooks() as current:
            losses = losses_of()
            if losses.dim() != 1 or not losses.numel():
                raise ValueError(f"losses are to be one for each clip, not {tuple(losses.shape)}")
            clips = losses.numel()
            self._check_batch(clips, current)
            for clip, loss in enumerate(losses.tolist()):
                if not np.isfinite(loss):
                    raise ClipError(f"the loss of clip {clip + 1} of {clips} is {loss}")
            while len(self._projections) < clips:
                self._projections.append(self._make_projection())
            current.projections = self._projections[:clips]
            for projection in current.projections:
                projection.begin()
            current.backward = True
            losses.sum().backward()
            for name in self.parameters.keys() - current.done:
                device = self.parameters[name].device
                zeros = torch.zeros(clips, *self._reduced[name], device=device)
                self._add(current, name, current.sums.get(name, zeros))
            return np.stack([projection.finish() for projection in current.projections])

    def _check_batch(self, clips: int, current: _Pass) -> None:
        if clips == 1:
            return
        if self.others:
            raise UserError(
                f"{len(self.others)} of the chosen parameters lie outside linear layers, "
                f"{self.others[0]!r} for one: choose others, or take clips one by one."
            )
        for name, leading in current.leading.items():
            if leading != clips:
                raise ValueError(
                    f"the layer of {name!r} was called with {leading} along its first dimension, "
                    f"not with the {clips} clips: their gradients cannot be told apart"
                )

    def _add(self, current: _Pass, name: str, gradients: torch.Tensor) -> None:
        """gradients: reduced, (clips, ...)."""
        current.done.add(name)
        for projection, gradient in zip(current.projections, gradients, strict=True):
            projection.add(name, gradient)

    def _arrived(self, current: _Pass, name: str, gradients: torch.Tensor) -> None:
        """Add the gradients through one call of a layer; the last call's completes the sum."""
        before = current.sums.pop(name, None)
        total = gradients if before is None else before + gradients
        current.calls[name] -= 1
        if current.calls[name]:
            current.sums[name] = total
        else:
            self._add(current, name, total)

    def _record(
        self,
        current: _Pass,
        weight: str | None,
        bias: str | None,
        layer: torch.nn.Module,
        inputs: tuple[torch.Tensor, ...],
        output: torch.Tensor,
    ) -> None:
        """Forward hook: keep the projected input, and wait for the output's gradient."""
        names = [name for name in (weight, bias) if name is not None]
        if not torch.is_grad_enabled():
            current.without_graph.add(names[0])
            return
        if not output.requires_grad:
            output.requires_grad_()  # the layer's own parameters have been told not to ask for it
        if (
            current.backward
        ):  # recomputed by checkpointing: the first call's output gets the gradient
            if names[0] in current.without_graph:
                raise ValueError("gradient checkpointing must be non-reentrant here")
            return
        for name in names:
            current.calls[name] = current.calls.get(name, 0) + 1
            current.leading[name] = inputs[0].shape[0] if inputs[0].dim() > 1 else 1
        kept = None
        if weight is not None:
            with torch.no_grad(), torch.autocast(output.device.type, enabled=False):
                kept = inputs[0].detach()
                if self._reduced[weight][1] != kept.shape[-1]:
                    kept = self._factors.project(weight, "in", kept)

        def take(gradient: torch.Tensor) -> None:
            clips = len(current.projections)
            with torch.no_grad(), torch.autocast(gradient.device.type, enabled=False):
                per_clip = gradient.reshape(clips, -1, gradient.shape[-1])
                if weight is not None and kept is not None:
                    left = self._factors.project(weight, "out", per_clip)
                    right = kept.reshape(clips, -1, kept.shape[-1]).float()
                    self._arrived(current, weight, left.transpose(1, 2) @ right)
                if bias is not None:
                    self._arrived(current, bias, per_clip.float().sum(dim=1))

        output.register_hook(take)

    @contextmanager
    def _hooks(self) -> Iterator[_Pass]:
        current = _Pass()

        def other(name: str, parameter: torch.Tensor) -> None:
            gradient, parameter.grad = parameter.grad, None
            assert gradient is not None
            self._add(current, name, self._factors.reduce(name, gradient)[None])

        asked = {name: p.requires_grad for name, p in self.parameters.items()}
        handles = []
        try:
            for name, parameter in self.parameters.items():
                parameter.requires_grad_(name in self.others)
            for name in self.others:
                hook = partial(other, name)
                handles.append(self.parameters[name].register_post_accumulate_grad_hook(hook))
            for layer, weight, bias in self._layers:
                record = partial(self._record, current, weight, bias)
                handles.append(layer.register_forward_hook(record))
            yield current
        finally:
            for handle in handles:
                handle.remove()
            for name, parameter in self.parameters.items():
                parameter.requires_grad_(asked[name])
                parameter.grad = None
