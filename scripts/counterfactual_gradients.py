"""Gradients of every clip and query at several timesteps and noises, as the estimators need them.

They are raw: not normalised, with the plain or the masked loss, and optionally scaled coordinate by
coordinate, in the full space of the parameters, before the product's own Fastfood. Fastfood's first rows are
those of a smaller one, so that of one set of features every smaller dimension is there.

Each draw of each set is a file of its own: an interrupted study goes on where it was.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from counterfactual_corpora import Corpus
from counterfactual_retraining import measured_timesteps

from motive.gradients.loss import motion_weighted_loss
from motive.gradients.noise import shared_noise
from motive.gradients.per_sample import per_sample_gradients
from motive.gradients.projection import make_projection
from motive.gradients.projection_batch import ProjectionBatch
from motive.gradients.together import predict_together
from motive.runs.members import Role

BATCH = 10
EPSILON = 1e-3  # of the mean second moment, added to each: AdamW's ε and rare coordinates


@dataclass(frozen=True)
class Draws:
    """Timesteps with a noise of each: `count` quantiles of what training draws from, or one timestep.

    noise_seed: equal seeds are equal noise, for clips and queries alike (the paper's common randomness);
        different ones are independent.
    """

    count: int
    noise_seed: int
    timestep: float | None = None

    def timesteps(self, backbone: Any) -> list[float]:
        if self.timestep is not None:
            return [self.timestep]
        return measured_timesteps(backbone, self.count)


class Gradients:
    """The gradient features of one corpus."""

    def __init__(self, corpus: Corpus, folder: Path, dim: int) -> None:
        self.corpus, self.folder, self.dim = corpus, folder, dim
        self.backbone: Any = corpus.run.plan.backbone
        self.passes = 0  # forward and backward, of one clip or query, that were computed here
        self._denoiser: Any = None

    def of(self, role: Role, *, masked: bool, draws: Draws, preconditioned: bool) -> np.ndarray:
        """Features `(K, N, dim)` float32, one for each draw and each clip or query."""
        found = []
        for k, timestep in enumerate(draws.timesteps(self.backbone)):
            name = (
                f"{role}-{'masked' if masked else 'plain'}-{draws.count}-{draws.noise_seed}-{k}"
                f"-{timestep:g}{'-preconditioned' if preconditioned else ''}"
            )
            file = self.folder / f"{name}.npy"
            if not file.is_file():
                scale = self.scale if preconditioned else None
                _save(file, self._features(role, masked, timestep, (draws.noise_seed, k), scale))
            found.append(np.load(file))
        return np.stack(found)

    @property
    def scale(self) -> dict[str, torch.Tensor]:
        """What both sides' gradients are multiplied by, (v + ε)^(−1/4) with the clips' second moment v.

        Their dot product is then g_qᵀ (v + ε)^(−1/2) g_n: the step that AdamW takes along g_n, seen by q.
        """
        if not hasattr(self, "_scale"):
            file = self.folder / "second_moment.npy"
            if not file.is_file():
                _save(file, self._second_moment(Draws(4, 900)))
            flat = torch.from_numpy(np.load(file))
            flat = (flat + EPSILON * flat.mean()).pow(-0.25)
            parts = (flat / flat.mean()).split([p.numel() for p in self.parameters.values()])
            self._scale = {
                name: part.view_as(p)
                for (name, p), part in zip(self.parameters.items(), parts, strict=True)
            }
        return self._scale

    @property
    def parameters(self) -> dict[str, torch.nn.Parameter]:
        if self._denoiser is None:
            self._denoiser = self.backbone.load_denoiser().requires_grad_(True)
        return dict(self._denoiser.named_parameters())

    def _features(
        self,
        role: Role,
        masked: bool,
        timestep: float,
        noise: tuple[int, int],
        scale: Mapping[str, torch.Tensor] | None,
    ) -> np.ndarray:
        shapes = {name: tuple(p.shape) for name, p in self.parameters.items()}
        projections = ProjectionBatch(
            lambda: make_projection("fastfood", self.dim, self.corpus.plan.seed, shapes)
        )
        features = np.empty((len(self.corpus.members[role]), self.dim), np.float32)
        for some in self._batches(role):
            projections.begin(len(some))

            def take(name: str, gradients: torch.Tensor) -> None:
                projections.add(name, gradients if scale is None else gradients * scale[name])

            self._backward(role, some, masked, timestep, noise, take)
            features[some] = projections.finish()
        return features

    def _second_moment(self, draws: Draws) -> np.ndarray:
        """E[g²] of the clips' training gradients, one number for each parameter's number."""
        total = {name: torch.zeros_like(p) for name, p in self.parameters.items()}

        def take(name: str, gradients: torch.Tensor) -> None:
            total[name] += gradients.square().sum(0)

        for k, timestep in enumerate(draws.timesteps(self.backbone)):
            for some in self._batches("clip"):
                self._backward("clip", some, False, timestep, (draws.noise_seed, k), take)
        count = draws.count * len(self.corpus.members["clip"])
        return torch.cat([(t / count).flatten() for t in total.values()]).detach().numpy()

    def _backward(
        self,
        role: Role,
        some: list[int],
        masked: bool,
        timestep: float,
        noise: tuple[int, int],
        take: Any,
    ) -> None:
        """One forward and backward pass of some clips, each parameter's gradients handed to `take`."""
        backbone, corpus = self.backbone, self.corpus
        everything = corpus.clips if role == "clip" else corpus.queries
        masks = corpus.masks(role) if masked else None
        length, seen = backbone.default_prompt_length(), set()

        def hand_on(name: str, gradients: torch.Tensor) -> None:
            seen.add(name)
            take(name, gradients)

        def prediction(index: int) -> Any:
            clip = everything[index]
            shared = shared_noise(noise[0], tuple(clip.latents_cfhw.shape), noise[1])
            noisy = backbone.add_noise(clip.latents_cfhw, shared, timestep)
            targets.append(backbone.target(clip.latents_cfhw, shared, timestep))
            return lambda net: backbone.predict(net, noisy, timestep, clip.conditions, length)

        targets: list[torch.Tensor] = []
        with per_sample_gradients(self.parameters, len(some), hand_on) as backward:
            outputs = predict_together(self._denoiser, [prediction(i) for i in some])
            losses = [
                motion_weighted_loss(
                    output, target, torch.ones_like(output[0]) if masks is None else masks[i]
                )
                for i, output, target in zip(some, outputs, targets, strict=True)
            ]
            backward(torch.stack(losses))
        for name, parameter in self.parameters.items():
            if name not in seen:
                take(name, torch.zeros(len(some), *parameter.shape))
        self.passes += len(some)

    def _batches(self, role: Role) -> list[list[int]]:
        """Indices of clips of one shape, some at a time."""
        clips = self.corpus.clips if role == "clip" else self.corpus.queries
        by_shape: dict[tuple[int, ...], list[int]] = {}
        for i, clip in enumerate(clips):
            by_shape.setdefault(tuple(clip.latents_cfhw.shape), []).append(i)
        return [
            same[first : first + BATCH]
            for same in by_shape.values()
            for first in range(0, len(same), BATCH)
        ]


def _save(file: Path, array: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.part.npy")
    np.save(part, array)
    os.replace(part, file)
