"""The motion-weighted loss (paper, section 3.3)."""

import torch


def motion_weighted_loss(
    prediction_cfhw: torch.Tensor,
    target_cfhw: torch.Tensor,
    mask_fhw: torch.Tensor,
    frames: int | None = None,
) -> torch.Tensor:
    """L_mot = (1 / F) · mean over (c, f, h, w) of W̃ · (prediction − target)², a scalar in float32.

    The mask weights the loss and leaves the noising alone; with W̃ = 1 and `frames=None` this is the
    plain mean squared error, bit for bit.

    mask_fhw: W̃ in 0..1 on the latent's grid, the same for every channel.
    frames: F, the clip's pixel frames; None leaves the factor out.
    """
    error = (prediction_cfhw.float() - target_cfhw.float()).square()
    loss = (mask_fhw.to(error) * error).mean()
    return loss if frames is None else loss / frames


def loss_map(
    prediction_cfhw: torch.Tensor,
    target_cfhw: torch.Tensor,
    mask_fhw: torch.Tensor,
    frames: int | None = None,
) -> torch.Tensor:
    """What each location of the latent's grid contributes to `motion_weighted_loss`, `(F, H, W)`.

    The sum over the locations is the loss, but for the order of sums.
    """
    error = (prediction_cfhw.float() - target_cfhw.float()).square()
    map_fhw = (mask_fhw.to(error) * error).sum(0) / error.numel()
    return map_fhw if frames is None else map_fhw / frames
