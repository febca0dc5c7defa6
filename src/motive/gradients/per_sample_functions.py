"""Layers whose backward keeps the clips of a batch apart: the functions behind `per_sample`.

Each computes what torch's own function computes, and hands a parameter's gradients (B, *) to a
collector instead of adding them up. Operations are chosen such that a clip meets the same sums in the
same order as alone: on the CPUs measured its gradients are then the same bit for bit.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F


class Collector(Protocol):
    """Takes the gradients in. size: B."""

    size: int

    def add(self, name: str, gradients: torch.Tensor) -> None:
        """One use's gradients of the parameter `name`, (B, *)."""


class Expand(torch.autograd.Function):
    """A parameter once for each clip: (1, *) to (B, *)."""

    @staticmethod
    def forward(
        ctx: Any, tensor: torch.Tensor, shape: tuple[int, ...], size: int, name: str, to: Collector
    ) -> torch.Tensor:
        ctx.name, ctx.to = name, to
        return tensor.detach().reshape(shape).expand(size, *shape[1:])

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        ctx.to.add(ctx.name, gradient)
        return None, None, None, None, None


class Linear(torch.autograd.Function):
    """x (B, ..., in) to (B, ..., out)."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        weight_name: str | None,
        bias_name: str | None,
        to: Collector,
    ) -> torch.Tensor:
        ctx.names, ctx.to = (weight_name, bias_name), to
        ctx.save_for_backward(x if weight_name else None, weight)
        return row_by_row(lambda rows: F.linear(rows, weight, bias), x)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        x, weight = ctx.saved_tensors
        weight_name, bias_name = ctx.names
        at_input = None
        if ctx.needs_input_grad[0]:
            at_input = row_by_row(lambda rows: rows @ weight, gradient)
        gradient_bto = gradient.reshape(ctx.to.size, -1, gradient.shape[-1])
        if weight_name:
            x_bti = x.reshape(ctx.to.size, -1, x.shape[-1])
            ctx.to.add(weight_name, gradient_bto.mT @ x_bti)
        if bias_name:
            ctx.to.add(bias_name, gradient_bto.sum(1))
        return at_input, None, None, None, None, None


def row_by_row(apply: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """`apply` on all rows of x, or, where each clip has a single one, on one after the other.

    A matrix product adds up in another order for one row than for several. With this a clip's numbers
    are, bit for bit where the kernels allow it, those that it has alone.
    """
    return torch.cat([apply(row) for row in x.split(1)]) if x.dim() == 2 else apply(x)


class LayerNorm(torch.autograd.Function):
    """x (B, ..., *shape) to the same."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor | None,
        bias: torch.Tensor | None,
        shape: list[int],
        eps: float,
        names: tuple[str | None, str | None],
        to: Collector,
    ) -> torch.Tensor:
        output, mean, deviation = torch.native_layer_norm(x, shape, weight, bias, eps)
        ctx.shape, ctx.names, ctx.to = shape, names, to
        ctx.save_for_backward(x, mean, deviation, weight, bias)
        return output

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        x, mean, deviation, weight, bias = ctx.saved_tensors
        of_clips = (gradient, x, mean, deviation)

        def backward_of(tensors: Sequence[torch.Tensor], wanted: list[bool]) -> Any:
            g, x, mean, deviation = tensors
            return torch.ops.aten.native_layer_norm_backward(
                g, x, ctx.shape, mean, deviation, weight, bias, wanted
            )

        at_input = None
        if ctx.needs_input_grad[0]:
            at_input = backward_of(of_clips, [True, False, False])[0]
        wanted = [False, *(name is not None for name in ctx.names)]
        clips = zip(*(tensor.split(1) for tensor in of_clips), strict=True)
        own = [backward_of(clip, wanted) for clip in clips]
        for place, name in enumerate(ctx.names, start=1):
            if name is not None:
                ctx.to.add(name, torch.stack([gradients[place] for gradients in own]))
        return at_input, None, None, None, None, None, None


class Convolution(torch.autograd.Function):
    """x (B, in, ...) to (B, out, ...), any dimension, stride, padding, dilation and groups."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        settings: tuple[Any, ...],
        weight_name: str | None,
        bias_name: str | None,
        to: Collector,
    ) -> torch.Tensor:
        ctx.settings, ctx.names, ctx.to = settings, (weight_name, bias_name), to
        ctx.save_for_backward(x, weight)
        stride, padding, dilation, groups = settings
        zeros = [0] * len(stride)

        def of_clip(own_x: torch.Tensor) -> torch.Tensor:
            return torch.convolution(
                own_x, weight, bias, stride, padding, dilation, False, zeros, groups
            )

        return torch.cat([of_clip(own_x) for own_x in x.split(1)])

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> Any:
        x, weight = ctx.saved_tensors
        weight_name, bias_name = ctx.names
        stride, padding, dilation, groups = ctx.settings

        zeros = [0] * len(stride)
        wanted = [ctx.needs_input_grad[0], weight_name is not None, bias_name is not None]

        def of_clip(g: torch.Tensor, own_x: torch.Tensor) -> Any:
            sizes = [weight.shape[0]] if bias_name else None
            return torch.ops.aten.convolution_backward(
                g, own_x, weight, sizes, stride, padding, dilation, False, zeros, groups, wanted
            )

        # Clip by clip: a model has one or two convolutions, and their kernels differ by batch size.
        clips = [of_clip(g, x) for g, x in zip(gradient.split(1), x.split(1), strict=True)]
        at_input, of_weight, of_bias = zip(*clips, strict=True)
        if weight_name:
            ctx.to.add(weight_name, torch.stack(of_weight))
        if bias_name:
            ctx.to.add(bias_name, torch.stack(of_bias))
        return torch.cat(at_input) if wanted[0] else None, None, None, None, None, None, None
