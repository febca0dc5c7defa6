"""Latents as denoisers take them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def standardised(
    latents_cfhw: "torch.Tensor", mean_c: Sequence[float], std_c: Sequence[float]
) -> "torch.Tensor":
    """(z − mean) / std, channel by channel."""
    import torch

    mean, std = (
        torch.tensor(values, device=latents_cfhw.device, dtype=latents_cfhw.dtype)
        for values in (mean_c, std_c)
    )
    return (latents_cfhw - mean[:, None, None, None]) / std[:, None, None, None]
