"""The stage that makes a clip's gradient feature."""

from typing import Any

import numpy as np
import pyarrow as pa
import torch

from motive.backbones.base import Backbone
from motive.gradients.loss import motion_weighted_loss
from motive.gradients.noise import shared_noise
from motive.gradients.objective import Objective
from motive.gradients.streaming import StreamingGradient, choose_parameters
from motive.motion.masks import motion_mask, pool_frames
from motive.motion.track import maps_of
from motive.runs.stage import Stage
from motive.runs.tables import Row

# Latent cells from which activations are recomputed: 17 frames of 480 × 832 have 31,200. Below, the
# activations of a 1.3B model are a few GB, and recomputing costs a third more time.
CHECKPOINT_CELLS = 16_384


class GradientStage(Stage):
    """Gradients of the motion-weighted loss, projected and normalised (paper, section 3).

    Takes rows of key, clip_id, caption_id, frames, and the stored rows `motion`, `video` and `text`
    of the stages before; gives the unit feature and the norm that it had.
    """

    name = "gradients"
    table = "features"
    schema = pa.schema(
        [
            ("clip_id", pa.string()),
            ("caption_id", pa.string()),
            ("feature", pa.list_(pa.float32())),
            ("norm", pa.float64()),
            ("loss", pa.float64()),
            ("static", pa.bool_()),
        ]
    )

    def __init__(self, backbone: Backbone, objective: Objective) -> None:
        self.backbone, self.objective = backbone, objective

    def fingerprint(self) -> str:
        return self.objective.id

    def open(self) -> None:
        objective = self.objective
        # Any: diffusers' models have methods that torch's Module does not declare.
        self._denoiser: Any = self.backbone.load_denoiser()
        parameters = choose_parameters(self._denoiser, objective.parameters)
        self._gradient = StreamingGradient(
            parameters, objective.projection, objective.dim, objective.projection_seed
        )

    def close(self) -> None:
        del self._denoiser, self._gradient
        self.backbone.unload()

    def process(self, row: Row) -> Row:
        objective, maps = self.objective, maps_of(row["motion"])
        device = self.backbone.device
        latents = torch.from_numpy(_array(row["video"], "latents")).to(device)
        text = torch.from_numpy(_array(row["text"], "embedding")).to(device)
        mask = motion_mask(
            maps,
            objective.mask,
            trusted=objective.mask_trusted,
            static_below=objective.static_below,
        )
        weights = torch.from_numpy(pool_frames(mask, self.backbone.frame_map(row["frames"])))
        frames = row["frames"] if objective.length_factor else None
        self._save_memory(latents)
        losses: list[float] = []
        features: list[np.ndarray] = []
        for draw, timestep in enumerate(objective.timesteps):
            noise = shared_noise(objective.noise_seed, tuple(latents.shape), draw).to(device)
            noisy = self.backbone.add_noise(latents, noise, timestep)
            target = self.backbone.target(latents, noise, timestep)

            def loss_of(
                noisy: torch.Tensor = noisy,
                target: torch.Tensor = target,
                timestep: int = timestep,
            ) -> torch.Tensor:
                prediction = self.backbone.predict(
                    self._denoiser, noisy, timestep, text, objective.prompt_length
                )
                loss = motion_weighted_loss(prediction, target, weights, frames)
                losses.append(loss.item())
                return loss

            features.append(self._gradient.feature(loss_of).astype(np.float64))
        feature, norm = average_of_units(features)
        return {
            "clip_id": row["clip_id"],
            "caption_id": row["caption_id"],
            "feature": feature.astype(np.float32),
            "norm": norm,
            "loss": float(np.mean(losses)),
            # Without weight there is no gradient, also where motion is too small for the latent grid.
            "static": not mask.any(),
        }

    def _save_memory(self, latents: torch.Tensor) -> None:
        """Recompute activations in the backward pass where keeping them would take the most memory.

        The numbers are the same: the same operations run on the same inputs.
        """
        if hasattr(self._denoiser, "enable_gradient_checkpointing"):
            if latents[0].numel() >= CHECKPOINT_CELLS:
                self._denoiser.enable_gradient_checkpointing()
            else:
                self._denoiser.disable_gradient_checkpointing()


def average_of_units(gradients: list[np.ndarray]) -> tuple[np.ndarray, float]:
    """The unit vector along the mean of the gradients, each normalised first, and their mean norm.

    A gradient of zero (a static clip's) stays zero: it has no direction.
    """
    norms = [float(np.linalg.norm(g)) for g in gradients]
    units = [g / n if n > 0 else g for g, n in zip(gradients, norms, strict=True)]
    mean = np.mean(units, axis=0)
    length = float(np.linalg.norm(mean))
    return (mean / length if length > 0 else mean), float(np.mean(norms))


def _array(row: Row, column: str) -> np.ndarray:
    # Rows come read-only from the table; torch wants memory of its own.
    return row[column].reshape(tuple(row["shape"])).copy()
