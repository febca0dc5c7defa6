"""Diffusion in discrete time: noise and targets by a scheduler's own betas.

z = √ᾱ h + √(1 − ᾱ) ε, where ᾱ is the scheduler's cumulative product at index t − 1 for the timestep t of
1..1000: the training timesteps are 0..999, and the model is given the index.
"""

from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from motive.backbones.diffusers_backbone import DiffusersBackbone
from motive.backbones.source import AGAIN
from motive.errors import UserError

if TYPE_CHECKING:
    import torch

TIMESTEPS = 1000  # of the objective, whatever number the scheduler has


class DiffusionBackbone(DiffusersBackbone):
    """A denoiser that is trained with ε- or v-prediction.

    own_schedulers: classes of the family with a forward process of their own. Any other scheduler in the
        checkpoint is one for sampling, whose betas are given to `DDPMScheduler`, as trainers do.
    """

    own_schedulers: ClassVar[tuple[str, ...]] = ()

    @cached_property
    def schedule(self) -> Any:
        """The scheduler that adds noise.

        Raises UserError when its configuration makes none, or for an unknown kind of prediction.
        """
        import diffusers

        config = self.source.config("scheduler")
        name = str(config.get("_class_name"))
        cls = getattr(diffusers, name if name in self.own_schedulers else "DDPMScheduler")
        try:
            schedule = cls.from_config(config)
        except (TypeError, ValueError, NotImplementedError) as error:
            raise UserError(
                f"the scheduler of {self.source.name} has no noise to train with ({error}): {AGAIN}"
            ) from None
        if schedule.config.prediction_type not in ("epsilon", "v_prediction"):
            raise UserError(
                f"the scheduler of {self.source.name} predicts {schedule.config.prediction_type}, "
                "neither epsilon nor v_prediction: use another checkpoint"
            )
        return schedule

    def index(self, timestep: float) -> "torch.Tensor":
        """The scheduler's training timestep that stands for `timestep` of 1..1000, `(1,)`."""
        import torch

        steps = self.schedule.config.num_train_timesteps
        index = max(0, round(timestep * steps / TIMESTEPS) - 1)
        return torch.tensor([index], device=self.device)

    def default_timestep(self) -> int:
        """The middle of the scheduler's own timesteps: index 500 of 999..0."""
        return TIMESTEPS // 2 + 1

    def add_noise(
        self, latents_cfhw: "torch.Tensor", noise_cfhw: "torch.Tensor", timestep: float
    ) -> "torch.Tensor":
        noisy: torch.Tensor = self.schedule.add_noise(
            latents_cfhw[None], noise_cfhw[None], self.index(timestep)
        )
        return noisy[0]

    def target(
        self, latents_cfhw: "torch.Tensor", noise_cfhw: "torch.Tensor", timestep: float
    ) -> "torch.Tensor":
        if self.schedule.config.prediction_type == "epsilon":
            return noise_cfhw
        velocity: torch.Tensor = self.schedule.get_velocity(
            latents_cfhw[None], noise_cfhw[None], self.index(timestep)
        )
        return velocity[0]
