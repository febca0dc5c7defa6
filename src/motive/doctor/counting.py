"""What one forward pass of a denoiser costs, counted on the `meta` device: no weight, no activation, no time.

Attention counts as the fused kernels compute it, which keep queries, keys, values and the output for the
backward pass and never the matrix of all pairs. Where a model asks what its numbers are, a mask is taken to
be true everywhere: every token counts.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count


@dataclass(frozen=True)
class ForwardCost:
    """One clip through the denoiser, forward only.

    tokens: that the first of the denoiser's blocks sees; of a U-Net, pixels of its first feature maps.
    linear_flop, attention_flop: floating point operations, a multiplication and an addition being two.
    kept_bytes: of activations that autograd keeps for the backward pass, each storage once.
    recomputed_bytes: the most that is kept at once when each block's are computed again in the backward
        pass (gradient checkpointing): what blocks are given, what lies outside of them, and one block's.
    largest_bytes: of the largest activation kept.
    """

    tokens: int
    linear_flop: int
    attention_flop: int
    kept_bytes: int
    recomputed_bytes: int
    largest_bytes: int

    @property
    def flop(self) -> int:
        return self.linear_flop + self.attention_flop


def count_forward(
    denoiser: torch.nn.Module, predict: Callable[[torch.nn.Module], torch.Tensor]
) -> ForwardCost:
    """Count one call of `predict`, which calls the denoiser; both live on the `meta` device."""
    blocks = repeated_blocks(denoiser)
    kept = _Kept(denoiser.parameters())
    handles = [
        handle
        for number, block in enumerate(blocks)
        for handle in (
            block.register_forward_pre_hook(kept.entering(number), with_kwargs=True),
            block.register_forward_hook(lambda *_: kept.leave()),
        )
    ]
    attention = _Meta()
    try:
        with (
            _autocast_on_meta(),
            FlopCounterMode(display=False) as counter,
            attention,
            torch.enable_grad(),
            torch.autograd.graph.saved_tensors_hooks(kept.pack, lambda tensor: tensor),
        ):
            predict(denoiser)
    finally:
        for handle in handles:
            handle.remove()
    sizes = kept.bytes_by_block()
    return ForwardCost(
        tokens=kept.tokens,
        linear_flop=counter.get_total_flops(),
        attention_flop=attention.flop,
        kept_bytes=sum(sizes.values()),
        recomputed_bytes=kept.given_bytes()
        + sizes.get(None, 0)
        + max((size for block, size in sizes.items() if block is not None), default=0),
        largest_bytes=kept.largest_bytes(),
    )


def repeated_blocks(denoiser: torch.nn.Module) -> list[torch.nn.Module]:
    """The blocks that the denoiser is a stack of, by diffusers' own list of their classes.

    Of a class without one, what the lists among its own parts hold: a transformer's blocks, or the levels of
    a U-Net, whose activations are computed again in smaller parts than these.
    """
    if names := set(getattr(denoiser, "_repeated_blocks", None) or ()):
        return [module for module in denoiser.modules() if type(module).__name__ in names]
    lists = [part for part in denoiser.children() if isinstance(part, torch.nn.ModuleList)]
    return [block for part in lists for block in part]


@contextmanager
def _autocast_on_meta() -> Iterator[None]:
    """`torch.autocast` where it does nothing on `meta`, which it refuses; some models ask for float32."""
    autocast = torch.autocast

    def wherever(device_type: str, *args: Any, **kwargs: Any) -> Any:
        return nullcontext() if device_type == "meta" else autocast(device_type, *args, **kwargs)

    setattr(torch, "autocast", wherever)  # noqa: B010  (a class, to which nothing is assigned)
    try:
        yield
    finally:
        setattr(torch, "autocast", autocast)  # noqa: B010


class _Kept:
    """The activations that autograd keeps, by the block in which they were made."""

    def __init__(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        self._parameters = {p.untyped_storage()._cdata for p in parameters}
        # Storages are held, so that no two have the same address.
        self._kept: dict[int, tuple[int | None, torch.UntypedStorage]] = {}
        self._given: dict[int, torch.UntypedStorage] = {}
        self._block: int | None = None
        self.tokens = 0

    def pack(self, tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in self._parameters:
            self._kept.setdefault(storage._cdata, (self._block, storage))
        return tensor

    def entering(self, block: int) -> Callable[..., None]:
        def enter(module: torch.nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
            given = [a for a in (*args, *kwargs.values()) if isinstance(a, torch.Tensor)]
            for tensor in given:
                storage = tensor.untyped_storage()
                self._given[storage._cdata] = storage
            # The first thing that a block is given are the tokens, (batch, tokens, width), or a U-Net's
            # feature maps, (images, width, rows, columns) or with frames behind the width.
            shape = given[0].shape
            maps = shape.numel() // shape[1]
            self.tokens = self.tokens or (maps if len(shape) > 3 else shape[-2])
            self._block = block

        return enter

    def leave(self) -> None:
        self._block = None

    def bytes_by_block(self) -> dict[int | None, int]:
        """Of what was made in each block, and outside of them (None)."""
        sizes: dict[int | None, int] = {}
        for block, storage in self._kept.values():
            sizes[block] = sizes.get(block, 0) + storage.nbytes()
        return sizes

    def given_bytes(self) -> int:
        outside = {key for key, (block, _) in self._kept.items() if block is None}
        return sum(s.nbytes() for key, s in self._given.items() if key not in outside)

    def largest_bytes(self) -> int:
        return max((storage.nbytes() for _, storage in self._kept.values()), default=0)


class _Meta(TorchFunctionMode):
    """Counts attention, in place of what the `meta` device would do: build the matrix of all pairs.

    And answers what it cannot: a mask's elements are true, those of its inverse false.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flop = 0
        self._false: list[torch.Tensor] = []

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.Tensor.__bool__ and args[0].is_meta:
            return True
        if func is torch.Tensor.__invert__ and args[0].is_meta:
            self._false.append(func(*args))
            return self._false[-1]
        if func is torch.Tensor.__getitem__ and _is_mask(args[1]):
            none = any(args[1] is mask for mask in self._false)
            return args[0][:0] if none else args[0]
        if func is torch.nonzero and _is_mask(args[0]):
            return torch.arange(len(args[0]), device="meta")[:, None]
        if func is not torch.nn.functional.scaled_dot_product_attention:
            return func(*args, **kwargs)
        names = ("query", "key", "value")
        named = dict(zip(names, args, strict=False)) | kwargs
        query, key, value = (named[name] for name in names)
        self.flop += sdpa_flop_count(query.shape, key.shape, value.shape)
        return _Fused.apply(query, key, value)


def _is_mask(index: Any) -> bool:
    """Whether it chooses elements along the first axis by numbers that are not there."""
    mask = isinstance(index, torch.Tensor) and index.is_meta and index.dtype == torch.bool
    return mask and index.ndim == 1


class _Fused(torch.autograd.Function):
    """The shapes of fused attention, and what it keeps."""

    @staticmethod
    def forward(ctx: Any, query: Any, key: Any, value: Any) -> Any:
        output = torch.empty_like(query[..., :1]).expand(*query.shape[:-1], value.shape[-1]).clone()
        ctx.save_for_backward(query, key, value, output)
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        raise NotImplementedError("only the forward pass is counted")
