"""Latents as denoisers take them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def first_frame_given(latents_cfhw: "torch.Tensor") -> "torch.Tensor":
    """0 in latent frame 0, which the model is given, and 1 in the others, `(F, H, W)`."""
    weights_fhw = latents_cfhw.new_ones(latents_cfhw.shape[1:])
    weights_fhw[0] = 0
    return weights_fhw


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
