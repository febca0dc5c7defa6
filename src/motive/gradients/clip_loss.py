"""The objective's loss of one clip: what the clip brings to it, and one term of it for each draw."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from motive.backbones.base import Backbone
from motive.backbones.encode import tensors_of
from motive.gradients.loss import loss_map, motion_weighted_loss
from motive.gradients.noise import shared_noise
from motive.gradients.objective import Objective
from motive.motion.masks import motion_mask, pool_frames
from motive.motion.track import maps_of
from motive.runs.tables import Row


@dataclass(frozen=True)
class ClipInputs:
    """What a clip brings to the loss, on the device.

    latents_cfhw: the clip itself. conditions: what the denoiser sees beside it, by name.
    weights_fhw: the mask W̃ with the objective's floor, zero where the model's training loss does not
        count.
    frames: F of the loss, or None. static: nothing moves, so there is no gradient.
    """

    latents_cfhw: torch.Tensor
    conditions: dict[str, torch.Tensor]
    weights_fhw: torch.Tensor
    frames: int | None
    static: bool


@dataclass(frozen=True)
class ClipDraw:
    """A clip's loss at one pair of timestep and noise.

    told: the timestep as the denoiser is told it. weight: of this draw's loss; None is 1.
    """

    backbone: Backbone
    clip: ClipInputs
    noisy_cfhw: torch.Tensor
    target_cfhw: torch.Tensor
    told: float
    weight: float | None
    prompt_length: int

    def predict(self, denoiser: Any) -> torch.Tensor:
        """What the denoiser, or something called like it, predicts: `(C, F, H, W)`."""
        return self.backbone.predict(
            denoiser, self.noisy_cfhw, self.told, self.clip.conditions, self.prompt_length
        )

    def loss(self, prediction_cfhw: torch.Tensor) -> torch.Tensor:
        """The scalar that is differentiated."""
        clip = self.clip
        loss = motion_weighted_loss(
            prediction_cfhw, self.target_cfhw, clip.weights_fhw, clip.frames
        )
        return loss if self.weight is None else self.weight * loss

    def loss_map(self, prediction_cfhw: torch.Tensor) -> torch.Tensor:
        """What each location of the latent's grid contributes to the loss, `(F, H, W)`."""
        clip = self.clip
        shares = loss_map(prediction_cfhw, self.target_cfhw, clip.weights_fhw, clip.frames)
        return shares if self.weight is None else self.weight * shares


class ClipLosses:
    """The losses of clips under an objective, on the backbone's device."""

    def __init__(self, backbone: Backbone, objective: Objective) -> None:
        self.backbone, self.objective = backbone, objective
        self._noises: dict[tuple[tuple[int, ...], int], torch.Tensor] = {}

    def inputs(self, row: Row) -> ClipInputs:
        """What the clip of a row brings, a row as `motive.rows.gradient_rows` gives it."""
        objective, device = self.objective, self.backbone.device
        conditions = {
            name: tensor.to(device)
            for part in ("video", "text")
            for name, tensor in tensors_of(row[part]).items()
        }
        latents = conditions.pop("latents")
        mask = motion_mask(
            maps_of(row["motion"]),
            objective.mask,
            trusted=objective.mask_trusted,
            static_below=objective.static_below,
        )
        weights = torch.from_numpy(pool_frames(mask, self.backbone.frame_map(row["frames"])))
        if objective.floor:
            weights = weights + objective.floor
        if (counted := self.backbone.loss_weights(latents)) is not None:
            weights = weights * counted.cpu()
        return ClipInputs(
            latents,
            conditions,
            weights,
            row["frames"] if objective.length_factor else None,
            # Without weight there is no gradient, also where motion is too small for the latent grid.
            static=not weights.any(),
        )

    def draws(self, clip: ClipInputs) -> Iterator[ClipDraw]:
        """The clip's loss at each of the objective's pairs of timestep and noise, one at a time."""
        return (self._draw(clip, i) for i in range(len(self.objective.timesteps)))

    def _draw(self, clip: ClipInputs, draw: int) -> ClipDraw:
        backbone, objective, latents = self.backbone, self.objective, clip.latents_cfhw
        timestep = objective.timesteps[draw]
        noise = self._noise(tuple(latents.shape), draw)
        return ClipDraw(
            backbone,
            clip,
            backbone.add_noise(latents, noise, timestep),
            backbone.target(latents, noise, timestep),
            objective.told[draw] if objective.told else timestep,
            objective.weights[draw] if objective.weights else None,
            objective.prompt_length,
        )

    def _noise(self, shape: tuple[int, ...], draw: int) -> torch.Tensor:
        """The shared noise of a shape, kept for the next clip while its shape is the same."""
        if (shape, draw) not in self._noises:
            self._noises = {kept: n for kept, n in self._noises.items() if kept[0] == shape}
            noise = shared_noise(self.objective.noise_seed, shape, draw)
            self._noises[shape, draw] = noise.to(self.backbone.device)
        return self._noises[shape, draw]
