"""Train again on a part of the corpus, by the product's own loop, and measure what the queries' loss became.

Every training starts at the base model, and every one of a seed sees the same timesteps and the same noise
at the same positions (`motive.finetuning.randomness`), so that what differs is the subset. Each result is a
file of its own: an interrupted study goes on where it was.
"""

import hashlib
import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from counterfactual_corpora import Corpus

from motive.backbones.base import Backbone
from motive.finetuning.loop import TrainingClip, TrainingPlan, train
from motive.finetuning.randomness import quantile_draws
from motive.gradients.loss import motion_weighted_loss
from motive.gradients.noise import shared_noise
from motive.gradients.together import predict_together

LOSSES = ("masked", "plain")
EVALUATION_NOISE = 7_000_000  # seeds of noise that no training and no feature has
BATCH = 20  # queries that are evaluated together


@dataclass(frozen=True)
class Measurement:
    """The queries' losses: at `draws` timesteps, quantiles of what training draws from, each with a noise."""

    draws: int
    noise_seed: int


class Retraining:
    """Trainings of one corpus.

    folder: of the results, one file for each training.
    """

    def __init__(
        self, corpus: Corpus, plan: TrainingPlan, measurement: Measurement, folder: Path
    ) -> None:
        self.corpus, self.plan, self.measurement = corpus, plan, measurement
        self.folder = folder
        self.backbone: Backbone = corpus.run.plan.backbone
        self._denoiser: Any = None

    def losses(self, chosen: Sequence[int], seed: int) -> np.ndarray:
        """Losses `(Q, 2)`, masked and plain, after training on these clips (by index).

        No clip is the base model itself.
        """
        file = self.folder / f"{self._name(chosen, seed)}.json"
        if not file.is_file():
            started = time.monotonic()
            denoiser = self._base()
            if len(chosen):
                clips = [self.corpus.clips[i] for i in chosen]
                train(self.backbone, denoiser, clips, self._plan(seed))
            trained = time.monotonic()
            losses = self._measure(denoiser)
            record = {
                "clips": [int(i) for i in chosen],
                "seed": seed,
                "losses": losses.tolist(),
                "seconds": [round(trained - started, 2), round(time.monotonic() - trained, 2)],
            }
            self.folder.mkdir(parents=True, exist_ok=True)
            part = file.with_suffix(".part")
            part.write_text(json.dumps(record))
            os.replace(part, file)
        return np.array(json.loads(file.read_text())["losses"]).mean(1)

    def base_losses(self) -> np.ndarray:
        return self.losses((), 0)

    def seconds(self) -> float:
        """Of all trainings and measurements so far."""
        return sum(sum(json.loads(f.read_text())["seconds"]) for f in self.folder.glob("*.json"))

    def _name(self, chosen: Sequence[int], seed: int) -> str:
        what = [sorted(int(i) for i in chosen), seed, asdict(self.plan), asdict(self.measurement)]
        what += [self.corpus.run.objective.model, asdict(self.corpus.plan)]
        return hashlib.blake2b(json.dumps(what).encode(), digest_size=10).hexdigest()

    def _plan(self, seed: int) -> TrainingPlan:
        return TrainingPlan(**{**asdict(self.plan), "seed": seed})

    def _base(self) -> torch.nn.Module:
        if self._denoiser is None:
            self._denoiser = self.backbone.load_denoiser().requires_grad_(True)
            self._start = {k: v.clone() for k, v in self._denoiser.state_dict().items()}
        self._denoiser.load_state_dict(self._start)
        return self._denoiser

    @torch.no_grad()
    def _measure(self, denoiser: torch.nn.Module) -> np.ndarray:
        """`(Q, draws, 2)`: every draw's masked and plain loss."""
        corpus, many = self.corpus, self.measurement.draws
        found = np.empty((len(corpus.queries), many, len(LOSSES)))
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for i, query in enumerate(corpus.queries):
            by_shape.setdefault(tuple(query.latents_cfhw.shape), []).append(i)
        for draw, timestep in enumerate(measured_timesteps(self.backbone, many)):
            for shape, indices in by_shape.items():
                noise = shared_noise(EVALUATION_NOISE + self.measurement.noise_seed, shape, draw)
                for first in range(0, len(indices), BATCH):
                    some = indices[first : first + BATCH]
                    queries = [corpus.queries[i] for i in some]
                    errors = self._losses(denoiser, queries, some, noise, timestep)
                    found[some, draw] = errors
        return found

    def _losses(
        self,
        denoiser: torch.nn.Module,
        queries: list[TrainingClip],
        indices: list[int],
        noise: torch.Tensor,
        timestep: float,
    ) -> list[list[float]]:
        backbone = self.backbone
        length = backbone.default_prompt_length()

        def prediction(clip: TrainingClip) -> Any:
            noisy = backbone.add_noise(clip.latents_cfhw, noise, timestep)
            return lambda network: backbone.predict(
                network, noisy, timestep, clip.conditions, length
            )

        predicted = predict_together(denoiser, [prediction(q) for q in queries])
        found = []
        for query, index, output in zip(queries, indices, predicted, strict=True):
            target = backbone.target(query.latents_cfhw, noise, timestep)
            mask = self.corpus.masks("query")[index]
            found.append(
                [
                    float(motion_weighted_loss(output, target, weights))
                    for weights in (mask, torch.ones_like(mask))
                ]
            )
        return found


def measured_timesteps(backbone: Backbone, count: int) -> list[float]:
    """`count` equally likely timesteps of what the trainer draws from: its quantiles (k + ½) / count."""
    return [draw.timestep for draw in quantile_draws(backbone, count)]


def random_subsets(count: int, clips: int, share: float, seed: int) -> np.ndarray:
    """Membership `(count, clips)` of random subsets of `share` of the clips."""
    members = np.zeros((count, clips), bool)
    for s in range(count):
        rng = np.random.default_rng([seed, 5, s])
        members[s, rng.choice(clips, round(share * clips), replace=False)] = True
    return members
