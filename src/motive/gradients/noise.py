"""The noise that all clips share (paper, Method 3 and 4: common randomness, one shared epsilon).

And that of draws from the VAE's posterior, for trainers that draw: shared in the same way, another stream.
"""

import numpy as np
import torch

from motive.errors import UserError
from motive.gradients.counter import key, normal

_FIELD_BITS = 16


def shared_noise(seed: int, shape_cfhw: tuple[int, ...], draw: int = 0) -> torch.Tensor:
    """Standard normal noise on the latent grid, a pure function of (seed, draw, c, f, h, w).

    The number at a coordinate does not depend on the shape that is asked for: the noise of a
    shorter, smaller or thinner latent is bit for bit the leading part `[:c, :f, :h, :w]` of that of
    a larger one. So clips of different lengths are still compared at the same (t, epsilon), which
    the paper leaves open.

    Args:
        seed: the objective's noise seed.
        shape_cfhw: channels, latent frames, latent height, latent width; each from 1 to 65,536.
        draw: which of several noises, for objectives that average over pairs (t, epsilon).

    Returns:
        float32 tensor (C, F, H, W) on the CPU.

    Raises:
        UserError: an extent is outside 1..65,536 (a coordinate has 16 bits of the counter).
    """
    return _noise(key(seed, "shared noise", draw), shape_cfhw)


def posterior_noise(seed: int, shape_cfhw: tuple[int, ...]) -> torch.Tensor:
    """As `shared_noise`, for a draw from the posterior: unrelated to the noise of every timestep."""
    return _noise(key(seed, "posterior noise"), shape_cfhw)


def _noise(stream: int, shape_cfhw: tuple[int, ...]) -> torch.Tensor:
    limit = 2**_FIELD_BITS
    for axis, extent in zip(("channels", "frames", "height", "width"), shape_cfhw, strict=True):
        if not 1 <= extent <= limit:
            raise UserError(
                f"A latent of {extent} {axis} cannot be given noise, each extent must lie between "
                f"1 and {limit:,}: use clips of another size."
            )
    channels, frames, height, width = (np.arange(n, dtype=np.uint64) for n in shape_cfhw)
    plane_fhw = (
        (frames << np.uint64(2 * _FIELD_BITS))[:, None, None]
        | (height << np.uint64(_FIELD_BITS))[:, None]
        | width
    )
    noise_cfhw = np.empty(shape_cfhw, dtype=np.float32)
    # A channel at a time keeps the 64-bit intermediates to one channel's size.
    for c, noise_fhw in zip(channels << np.uint64(3 * _FIELD_BITS), noise_cfhw, strict=True):
        noise_fhw[...] = normal(stream, plane_fhw | c)
    return torch.from_numpy(noise_cfhw)
