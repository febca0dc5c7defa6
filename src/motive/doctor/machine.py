"""What this machine can do: its memory, its speed at a model's own shapes, and its gradients in batches."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

# Of a calibration: seconds for each of the two, and what keeps them short on a slow machine.
_SECONDS, _ROWS, _PAIRS = 1.0, 2048, 1024


@dataclass(frozen=True)
class Speed:
    """Floating point operations per second of forward and backward, timed."""

    linear: float
    attention: float

    def seconds(self, linear_flop: float, attention_flop: float) -> float:
        return linear_flop / self.linear + attention_flop / self.attention


def memory_bytes(device: torch.device) -> int:
    """Of the device in all: a GPU's own, else the machine's."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def calibrate(
    device: torch.device,
    dtype: torch.dtype,
    *,
    tokens: int,
    width: int,
    inner: int,
    heads: int,
) -> Speed:
    """Time a block's largest linear layer and its attention, forward and backward.

    tokens: of a clip; more than a few thousand are not tried, and go at the same speed.
    width, inner: of the linear layer. heads: of the attention, each of width // heads.
    """
    rows, pairs = min(tokens, _ROWS), min(tokens, _PAIRS)
    layer = torch.nn.Linear(width, inner, device=device, dtype=dtype)
    given = torch.randn(rows, width, device=device, dtype=dtype, requires_grad=True)
    linear = _rate(device, lambda: layer(given), 3 * 2 * rows * width * inner)
    shape = (1, heads, pairs, width // heads)
    query, key, value = (
        torch.randn(shape, device=device, dtype=dtype, requires_grad=True) for _ in range(3)
    )
    attention = _rate(
        device,
        lambda: torch.nn.functional.scaled_dot_product_attention(query, key, value),
        3 * 2 * 2 * pairs * pairs * width,
    )
    return Speed(linear, attention)


def _rate(device: torch.device, forward: Callable[[], torch.Tensor], flop: int) -> float:
    """Operations per second of a forward and a backward, the best of several tries."""
    best, deadline, tries = float("inf"), time.monotonic() + _SECONDS, 0
    while tries < 3 or time.monotonic() < deadline:
        start = time.perf_counter()
        forward().sum().backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        elapsed = time.perf_counter() - start
        if tries:  # the first one allocates and compiles
            best = min(best, elapsed)
        tries += 1
    return flop / best


def batch_difference(
    denoiser: torch.nn.Module,
    alone: Callable[[torch.nn.Module], torch.Tensor],
    together: Callable[[torch.nn.Module], torch.Tensor],
) -> float:
    """How far a clip's gradient moves when another clip is in its batch, relative to its norm.

    alone: gives the clip's prediction, computed by itself. together: the same, computed in a batch.
    """
    gradients = []
    for predict in (alone, together):
        denoiser.zero_grad(set_to_none=True)
        predict(denoiser).square().mean().backward()
        gradients.append(
            torch.cat(
                [p.grad.flatten().double() for p in denoiser.parameters() if p.grad is not None]
            )
        )
    first, second = gradients
    return float((first - second).norm() / first.norm())
