"""Mutants of the ε- and v-predicting families, and the losses of whole runs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from adapter_checks import (
    CAPTION,
    Family,
    Mutation,
    argument,
    check_run,
    clip_for,
    result,
    swapped_noise,
)

from motive import Run
from motive.backbones.base import Backbone
from motive.clips.decoding import decode_clip
from motive.gradients.noise import shared_noise

# The loss of (frames, caption, timestep), for noise that is a function of the latents' shape.
TrainingLoss = Callable[[np.ndarray, str, int], torch.Tensor]


class Expected:
    """The training loss of a family's own clip, written out in its test and computed once."""

    def __init__(self, training_loss: Callable[[Path, np.ndarray, str, int], torch.Tensor]) -> None:
        self._training_loss = training_loss
        self._known: dict[tuple[Path, float], torch.Tensor] = {}

    def __call__(self, family: Family) -> torch.Tensor:
        key = (family.path, family.timestep)
        if key not in self._known:
            clip = clip_for(family.backbone)
            self._known[key] = self._training_loss(family.path, clip, CAPTION, family.timestep)
        return self._known[key]


def noise_like(latents_cfhw: torch.Tensor) -> torch.Tensor:
    """The noise of the objectives here, whose seed is 0."""
    return shared_noise(0, tuple(latents_cfhw.shape))


def pixels(change: Callable[[np.ndarray], np.ndarray]) -> Mutation:
    """The VAE is given another clip."""

    def mutate(patch: pytest.MonkeyPatch, backbone: Backbone) -> None:
        encode = backbone.encode_video
        patch.setattr(backbone, "encode_video", lambda frames: encode(change(frames)))

    return mutate


def timestep_of(method: str, change: Callable[[int], int], place: int = 2) -> Mutation:
    """`method` is called for another timestep, its argument number `place`."""

    def mutate(patch: pytest.MonkeyPatch, backbone: Backbone) -> None:
        original = getattr(backbone, method)
        patch.setattr(
            backbone,
            method,
            lambda *given: original(*given[:place], change(given[place]), *given[place + 1 :]),
        )

    return mutate


def another_target(change: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Mutation:
    """The target is something else of latents and noise."""

    def mutate(patch: pytest.MonkeyPatch, backbone: Backbone) -> None:
        patch.setattr(backbone, "target", lambda latents, noise, _: change(latents, noise))

    return mutate


def another_caption(patch: pytest.MonkeyPatch, backbone: Backbone) -> None:
    encode = backbone.encode_text
    patch.setattr(backbone, "encode_text", lambda _, length: encode("another", length))


def noise_of_a_flow(patch: pytest.MonkeyPatch, backbone: Backbone) -> None:
    patch.setattr(backbone, "add_noise", lambda h, e, t: h + (e - h) * t / 1000)


def noisy(change: Callable[[torch.Tensor], torch.Tensor]) -> Mutation:
    """The denoiser is given other noisy latents, and its prediction is taken for the right ones'."""

    def mutate(patch: pytest.MonkeyPatch, backbone: Backbone) -> None:
        predict = backbone.predict
        patch.setattr(backbone, "predict", lambda d, z, *rest: predict(d, change(z), *rest))

    return mutate


# Whatever is predicted, whatever the layout.
COMMON_MUTANTS: dict[str, Mutation] = {
    "the target's sign": result("target", lambda x: -x),
    "the prediction's sign": result("predict", lambda x: -x),
    "the target is the latents": another_target(lambda h, _: h),
    "noise and latents exchanged": swapped_noise,
    "noise of another timestep": timestep_of("add_noise", lambda t: t - 20),
    "the model is told the next timestep": timestep_of("predict", lambda t: t + 1),
    "another caption": another_caption,
    "pixels in 0..1": pixels(lambda f: f // 2 + 128),
    "colours exchanged": pixels(lambda f: f[..., ::-1]),
    "latent rows and columns exchanged": noisy(lambda z: z.transpose(-1, -2)),
    "latent frames in reverse": noisy(lambda z: z.flip(1)),
    "latent channels in reverse": noisy(lambda z: z.flip(0)),
}
DIFFUSION_MUTANTS: dict[str, Mutation] = COMMON_MUTANTS | {
    "the target is a flow": another_target(lambda h, e: e - h),
    "noise of a flow": noise_of_a_flow,
    "noise of the next timestep": timestep_of("add_noise", lambda t: t + 1),
    "the timestep counted from one": argument("timestep", lambda t: t + 1),
    "the timestep in 0..1": argument("timestep", lambda t: t / 1000),
}


def check_run_losses(
    path: Path, clips: Path, out: Path, loss_of: TrainingLoss, **settings: Any
) -> Run:
    """`check_run`, and every clip's stored loss is its trainer's: with a mask of one and without 1 / F."""
    plain = {"motion.mask": "none", "gradients.length_factor": False}
    run = check_run(path, clips, out, **plain | settings)
    (timestep,) = run.objective.timesteps
    losses = {
        row["clip_id"]: row["loss"]
        for row in run.feature_table(run.objective).rows(run.objective.id)
    }
    for clip_id, member in run.usable("clip").items():
        frames = decode_clip(Path(member.path), run.sampler).frames_fhw3
        expected = loss_of(frames, member.caption, timestep).item()
        assert losses[clip_id] == pytest.approx(expected, rel=1e-5)
    return run
