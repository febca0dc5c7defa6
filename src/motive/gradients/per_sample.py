"""Gradients of several clips from one backward pass, each clip's by itself.

In a batch, autograd adds the clips' weight gradients up. Here every use of a chosen parameter in the
forward pass is replaced by one whose backward keeps the clips apart: of a linear layer, clip b's
gradient is δ_bᵀ a_b, its output gradients times its inputs, so that nothing is computed twice. A
parameter's B gradients exist together and nothing else does.

Replaced are uses, not modules: a `TorchFunctionMode` sees every torch function that is given a chosen
parameter, whichever module calls it. Linear layers, convolutions, layer norms, RMS norms and sums and
products that broadcast a parameter over the batch are known. Any other use is refused with
`BatchError`, and so is one that the mode did not see (fused or compiled code), since its gradient
arrives in the parameter itself.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from motive.gradients.per_sample_functions import (
    Convolution,
    Expand,
    LayerNorm,
    Linear,
    row_by_row,
)

Sink = Callable[[str, torch.Tensor], None]


class BatchError(Exception):
    """The model uses a parameter in a way in which the clips of a batch cannot be told apart."""


@contextmanager
def per_sample_gradients(
    parameters: dict[str, torch.nn.Parameter], size: int, take: Sink
) -> Iterator[Callable[[torch.Tensor], None]]:
    """A context in whose forward pass the clips of a batch are kept apart.

    parameters: those whose gradients are wanted; they must require gradients.
    size: B, the clips of the batch. Axis 0 of every tensor that meets a parameter is theirs.
    take: is given each parameter's name and gradients (B, *shape) once, as the backward pass finishes
        them. Gradients of a parameter that is used several times come as their sum.

    Yields `backward`, to be called in the context with the losses (B,), clip b's depending on clip b
    alone. Parameters that the losses do not reach are left out.

    Raises BatchError when a parameter is used in another way than those known.
    """
    if torch.is_autocast_enabled(next(iter(parameters.values())).device.type):
        raise BatchError("under autocast, weight gradients are rounded in another place")
    collector = _Collector(parameters, size, take)
    for parameter in parameters.values():
        parameter.grad = None  # whatever is there afterwards came from an unknown use
    handles = [
        p.register_post_accumulate_grad_hook(collector.escaped(name))
        for name, p in parameters.items()
    ]
    mode = _KeepApart(parameters, collector)
    try:
        with mode:
            yield lambda losses: collector.backward(losses, mode)
    finally:
        for handle in handles:
            handle.remove()


class _Collector:
    """Counts the uses of each parameter, and hands on its gradients when the last one has come."""

    def __init__(self, parameters: dict[str, torch.nn.Parameter], size: int, take: Sink) -> None:
        self.parameters, self.size, self.take = parameters, size, take
        self.uses: dict[str, int] = defaultdict(int)
        self.sums: dict[str, torch.Tensor] = {}

    def add(self, name: str, gradients: torch.Tensor) -> None:
        """One use's gradients, (B, *) with the numbers of each in the parameter's order."""
        parameter = self.parameters[name]
        gradients = gradients.reshape(self.size, *parameter.shape).to(parameter.dtype)
        if name in self.sums:
            # Not in place: the gradients may be a view of what autograd still needs.
            gradients = self.sums.pop(name) + gradients
        self.uses[name] -= 1
        if self.uses[name]:
            self.sums[name] = gradients
        else:
            self.take(name, gradients)

    def escaped(self, name: str) -> Callable[[torch.Tensor], None]:
        def hook(parameter: torch.Tensor) -> None:
            if parameter.grad is None:  # torch calls the hook for our functions' None too
                return
            parameter.grad = None
            raise BatchError(f"{name} is used in code that cannot be looked into")

        return hook

    def backward(self, losses: torch.Tensor, mode: "_KeepApart") -> None:
        with mode.resting():
            losses.sum().backward()
        # Uses that the losses do not reach never come.
        for name, gradients in self.sums.items():
            self.take(name, gradients)
        self.sums.clear()


class _KeepApart(TorchFunctionMode):
    """Replaces each use of a chosen parameter by one that keeps the clips' gradients apart."""

    def __init__(self, parameters: dict[str, torch.nn.Parameter], collector: _Collector) -> None:
        super().__init__()
        self.collector = collector
        # By identity; of a parameter's copies in other shapes or types too, which are kept alive here.
        self.names: dict[int, str] = {id(p): name for name, p in parameters.items()}
        self.copies: list[torch.Tensor] = []
        self.awake = True

    @contextmanager
    def resting(self) -> Iterator[None]:
        self.awake = False
        try:
            yield
        finally:
            self.awake = True

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if not self.awake or not torch.is_grad_enabled():
            return func(*args, **kwargs)
        name = self._first_chosen((*args, *kwargs.values()))
        if name is None:
            if func in _ROW_BY_ROW and args and len(args[0]) == self.collector.size:
                return row_by_row(lambda rows: func(rows, *args[1:], **kwargs), args[0])
            return func(*args, **kwargs)
        replacement = _REPLACEMENTS.get(func)
        if replacement is not None:
            return replacement(self, func, *args, **kwargs)
        result = func(*args, **kwargs)
        if func in _SAME_NUMBERS:
            return self._register_copy(name, result)
        if _needs_gradient(result):
            self.refuse(name, func)
        return result

    def _first_chosen(self, values: Sequence[Any]) -> str | None:
        for value in values:
            name = self.names.get(id(value))
            if name is None and type(value) in (list, tuple):
                name = self._first_chosen(value)
            if name is not None:
                return name
        return None

    def _register_copy(self, name: str, copy: torch.Tensor) -> torch.Tensor:
        if id(copy) not in self.names:
            self.names[id(copy)] = name
            self.copies.append(copy)
        return copy

    def refuse(self, name: str, func: Callable[..., Any]) -> NoReturn:
        raise BatchError(f"{name} is used in {getattr(func, '__name__', func)}")

    def name_of(self, tensor: torch.Tensor | None) -> str | None:
        """The chosen parameter that a tensor is; counts as a use of it."""
        name = self.names.get(id(tensor))
        if name is not None:
            self.collector.uses[name] += 1
        return name

    def require_batch(self, x: torch.Tensor, name: str, func: Callable[..., Any]) -> None:
        if x.dim() < 2 or x.shape[0] != self.collector.size:
            raise BatchError(
                f"{name} meets a tensor of shape {tuple(x.shape)} in {func.__name__}, "
                "which is not the batch"
            )

    def expanded(self, tensor: torch.Tensor, batched_dim: int, func: Callable[..., Any]) -> Any:
        """A chosen parameter once for each clip, to be broadcast against `batched_dim` axes."""
        name = self.names[id(tensor)]
        missing = batched_dim - tensor.dim()
        if missing < 0 or (missing == 0 and tensor.shape[0] != 1):
            self.refuse(name, func)
        self.name_of(tensor)
        shape = (1,) * missing + tuple(tensor.shape)
        return Expand.apply(tensor, shape, self.collector.size, name, self.collector)


def _linear(
    mode: _KeepApart,
    func: Callable[..., Any],
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
) -> Any:
    names = mode.name_of(weight), mode.name_of(bias)
    mode.require_batch(input, names[0] or names[1] or "", func)
    return Linear.apply(input, weight, bias, *names, mode.collector)


def _convolution(
    mode: _KeepApart,
    func: Callable[..., Any],
    input: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Any:
    names = mode.name_of(weight), mode.name_of(bias)
    name, axes = names[0] or names[1] or "", weight.dim() - 2
    mode.require_batch(input, name, func)
    if isinstance(padding, str) or input.dim() != weight.dim():
        mode.refuse(name, func)

    def per_axis(value: Any) -> list[int]:
        return [value] * axes if isinstance(value, int) else list(value)

    settings = (per_axis(stride), per_axis(padding), per_axis(dilation), groups)
    return Convolution.apply(input, weight, bias, settings, *names, mode.collector)


def _layer_norm(
    mode: _KeepApart,
    func: Callable[..., Any],
    input: torch.Tensor,
    normalized_shape: Any,
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    eps: float = 1e-5,
) -> Any:
    names = mode.name_of(weight), mode.name_of(bias)
    mode.require_batch(input, names[0] or names[1] or "", func)
    shape = list(normalized_shape)
    return LayerNorm.apply(input, weight, bias, shape, eps, names, mode.collector)


def _rms_norm(
    mode: _KeepApart,
    func: Callable[..., Any],
    input: torch.Tensor,
    normalized_shape: Any,
    weight: torch.Tensor | None = None,
    eps: float | None = None,
) -> Any:
    output = F.rms_norm(input, normalized_shape, None, eps)
    if weight is None:
        return output
    mode.require_batch(output, mode.names[id(weight)], func)
    return output * mode.expanded(weight, output.dim(), func)


def _elementwise(
    mode: _KeepApart, func: Callable[..., Any], left: Any, right: Any, **options: Any
) -> Any:
    chosen = [mode.names.get(id(side)) for side in (left, right)]
    name = chosen[0] or chosen[1]
    if name is None or options:
        mode.refuse(name or "a parameter", func)
    other = right if chosen[0] else left
    if all(chosen) or not isinstance(other, torch.Tensor):
        mode.refuse(name, func)
    mode.require_batch(other, name, func)
    if chosen[0]:
        return func(mode.expanded(left, other.dim(), func), other)
    return func(other, mode.expanded(right, other.dim(), func))


_REPLACEMENTS: dict[Any, Callable[..., Any]] = {
    F.linear: _linear,
    F.layer_norm: _layer_norm,
    F.rms_norm: _rms_norm,
    **dict.fromkeys((F.conv1d, F.conv2d, F.conv3d), _convolution),
    **dict.fromkeys(
        (
            *(torch.add, torch.Tensor.add, torch.Tensor.__add__, torch.Tensor.__radd__),
            *(torch.sub, torch.Tensor.sub, torch.Tensor.__sub__),
            *(torch.mul, torch.Tensor.mul, torch.Tensor.__mul__, torch.Tensor.__rmul__),
        ),
        _elementwise,
    ),
}

# Computed clip by clip where each clip has a single row, as in the embedding of the timestep.
_ROW_BY_ROW = frozenset((F.linear, F.silu, F.gelu))

# The result has the parameter's numbers in the parameter's order, in another shape, type or place.
_SAME_NUMBERS = frozenset(
    (
        *(torch.Tensor.float, torch.Tensor.half, torch.Tensor.bfloat16),
        *(torch.Tensor.to, torch.Tensor.type_as, torch.Tensor.contiguous),
        *(torch.Tensor.unsqueeze, torch.unsqueeze, torch.Tensor.squeeze, torch.squeeze),
        *(torch.Tensor.reshape, torch.reshape, torch.Tensor.view, torch.Tensor.flatten),
        torch.flatten,
    )
)


def _needs_gradient(result: Any) -> bool:
    if isinstance(result, torch.Tensor):
        return result.requires_grad
    return isinstance(result, list | tuple) and any(_needs_gradient(part) for part in result)
