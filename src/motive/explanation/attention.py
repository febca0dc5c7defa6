"""Attention that forward-mode derivatives pass through, at any length.

The fused kernels of attention have no forward-mode derivative, and the plain formula holds a matrix of
queries × keys for every head: 32,760 tokens of a Wan clip make 26 GB of it. Forward mode keeps nothing for
later, so the formula a block of queries at a time needs one block only.
"""

import math
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

BLOCK_NUMBERS = 2**25  # attention weights of one block: 128 MB in float32


class BlockwiseAttention(TorchFunctionMode):
    """Within it, `torch.nn.functional.scaled_dot_product_attention` is computed block by block."""

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is torch.nn.functional.scaled_dot_product_attention:
            return attention(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """softmax(Q Kᵀ · scale + mask) V with the arguments of torch's function; `(…, L, E)` tensors.

    Raises NotImplementedError for dropout, which no network in eval mode has.
    """
    if dropout_p:
        raise NotImplementedError("a derivative through dropout is not that of the loss")
    if enable_gqa:
        repeats = query.shape[-3] // key.shape[-3]
        key, value = (t.repeat_interleave(repeats, -3) for t in (key, value))
    length, keys = query.shape[-2], key.shape[-2]
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    if is_causal:
        attn_mask = torch.ones(length, keys, dtype=torch.bool, device=query.device).tril()
    rows = max(1, BLOCK_NUMBERS // max(1, query[..., 0, 0].numel() * keys))
    transposed = key.transpose(-2, -1)
    blocks = []
    for start in range(0, length, rows):
        stop = min(start + rows, length)
        logits = (query[..., start:stop, :] * scale) @ transposed
        if attn_mask is not None:
            mask = attn_mask if attn_mask.shape[-2] == 1 else attn_mask[..., start:stop, :]
            if mask.dtype == torch.bool:
                logits = logits.masked_fill(~mask, -math.inf)
            else:
                logits = logits + mask
        blocks.append(logits.softmax(-1) @ value)
    return torch.cat(blocks, -2)
