"""What a model's loss is on rendered clips that nobody chose from: of all of a clip, and of its motion.

A generated clip shows what a model learned only where the model draws well. The loss on held-out clips of
the motions that were asked for says it of a weak model too.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from counterfactual_retraining import measured_timesteps

from motive import Run
from motive.backbones import load_backbone
from motive.backbones.source import find_model
from motive.gradients.clip_loss import ClipInputs, ClipLosses
from motive.gradients.loss import motion_weighted_loss
from motive.gradients.together import predict_together
from motive.rows import gradient_rows, ready_for_gradients
from motive.runs.progress import Progress
from motive.zoo.render import render_corpus

NOISE = 8_000_000  # a seed that no training and no feature has
BATCH = 20  # clips whose losses are computed together


class HeldOut:
    """Rendered clips of these motions, and the losses of models on them.

    folder: of the clips and what is computed of them, once.
    draws: timesteps, quantiles of what training draws from, each with a noise that all models see.
    """

    def __init__(
        self,
        folder: Path,
        kinds: tuple[str, ...],
        *,
        clips: int,
        frames: int,
        seed: int,
        draws: int,
        progress: Progress,
    ) -> None:
        if not (folder / "clips" / "metadata.csv").is_file():
            render_corpus(
                folder / "clips", clips, seed=seed, kinds=kinds, camera="none", lengths=(frames,)
            )
        metadata = str(folder / "clips" / "metadata.csv")
        self._run = Run.create(
            folder / "run",
            clips=metadata,
            queries=metadata,
            model="tiny-wan",
            sampling__frames=frames,
            compute__threads=1,
            progress=progress,
        )
        for stage in ("ingest", "track", "encode"):
            getattr(self._run, stage)()
        plan = self._run.plan
        self._objective = replace(
            self._run.objective,
            timesteps=tuple(measured_timesteps(plan.backbone, draws)),
            noise_seed=NOISE,
        )
        losses = ClipLosses(plan.backbone, self._objective)
        ready = ready_for_gradients(self._run.members, plan, self._run.store)
        rows = gradient_rows(ready, plan, self._run.store)
        self._clips = [clip for clip in map(losses.inputs, rows) if not clip.static]

    def losses(self, model: str) -> dict[str, float]:
        """Of the model in this folder, or of that name; both fall as a model learns.

        motion_loss: the motion-weighted loss, mean over clips and draws. plain_loss: the unweighted.
        """
        backbone = load_backbone(find_model(model), threads=1)
        denoiser = backbone.load_denoiser()
        drawn = ClipLosses(backbone, self._objective)
        found: list[tuple[float, float]] = []
        with torch.no_grad():
            for first in range(0, len(self._clips), BATCH):
                found += self._of(denoiser, drawn, self._clips[first : first + BATCH])
        motion, plain = np.mean(found, axis=0)
        return {"motion_loss": float(motion), "plain_loss": float(plain)}

    def _of(
        self, denoiser: torch.nn.Module, losses: ClipLosses, clips: list[ClipInputs]
    ) -> list[tuple[float, float]]:
        found = []
        for draws in zip(*map(losses.draws, clips), strict=True):
            predictions = predict_together(denoiser, [draw.predict for draw in draws])
            for draw, prediction in zip(draws, predictions, strict=True):
                everywhere = torch.ones_like(draw.clip.weights_fhw)
                plain = motion_weighted_loss(prediction, draw.target_cfhw, everywhere)
                weights = draw.clip.weights_fhw
                motion = motion_weighted_loss(prediction, draw.target_cfhw, weights)
                found.append((float(motion), float(plain)))
        return found
