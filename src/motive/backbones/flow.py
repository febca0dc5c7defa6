"""Flow matching as most video models train with it (rectified flow, Liu et al. 2022).

z = (1 − σ) h + σ ε with σ = t / 1000; the velocity dz/dσ = ε − h is predicted.
"""

from typing import TYPE_CHECKING

from motive.backbones.base import Backbone

if TYPE_CHECKING:
    import torch

TRAIN_STEPS = 1000
# σ in the middle of a linear-quadratic trajectory, whose first half takes away 0.025 of it.
LINEAR_QUADRATIC_MIDDLE = 0.975


class FlowBackbone(Backbone):
    """A model whose timestep is 1000 times the share of noise."""

    def add_noise(
        self, latents_cfhw: "torch.Tensor", noise_cfhw: "torch.Tensor", timestep: float
    ) -> "torch.Tensor":
        sigma = timestep / TRAIN_STEPS
        return (1 - sigma) * latents_cfhw + sigma * noise_cfhw

    def target(
        self, latents_cfhw: "torch.Tensor", noise_cfhw: "torch.Tensor", timestep: float
    ) -> "torch.Tensor":
        return noise_cfhw - latents_cfhw

    def default_timestep(self) -> int:
        """The middle entry of the 1000-step trajectory, shifted by the scheduler's own shift: 751 at 3."""
        scheduler = self.source.config("scheduler")
        return shifted_middle(
            float(str(scheduler.get("flow_shift") or scheduler.get("shift") or 1))
        )


def shifted(sigma: float, shift: float) -> float:
    """s σ / (1 + (s − 1) σ), which moves timesteps towards noise where s is above 1."""
    return shift * sigma / (1 + (shift - 1) * sigma)


def shifted_middle(shift: float) -> int:
    """The middle of 1000 shifted timesteps."""
    return round(TRAIN_STEPS * shifted((TRAIN_STEPS // 2 + 1) / TRAIN_STEPS, shift))
