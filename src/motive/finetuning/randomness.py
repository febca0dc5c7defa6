"""The random choices of a training, each a pure function of what it is for.

A training has `steps × batch` positions, numbered from 0. A position's timestep and noise depend on the
seed and the position alone, and the order of clips in an epoch on the seed, the epoch and the clips' ids.
So a resumed training draws what an undisturbed one draws, and trainings on different subsets see the same
timesteps and noise, and their common clips in the same order (common random numbers: what differs between
them is the subset).
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch

from motive.backbones.base import Backbone
from motive.backbones.flow import FlowBackbone, shifted
from motive.errors import UserError
from motive.gradients.counter import hash64, key, uniform
from motive.gradients.trainers import STEPS, TRAINERS, Draw, Trainer, trainer_draws

UNIFORM = "uniform"

# Of a trainer's distribution of timesteps. All trainers that draw from a grid have one of 1,000 or of
# 10,000 entries, which this many quantiles give exactly.
QUANTILES = 10_000

_UNIFORM_FLOW = Trainer(
    {}, shifted, told=lambda sigma: STEPS * sigma, weight=lambda sigma, shift: 1.0
)


class ClipOrder:
    """Which clip is at which position: every clip once in each epoch, in an order of the epoch's own.

    clip_ids: in any order, which does not matter.
    """

    def __init__(self, clip_ids: Sequence[str], seed: int) -> None:
        self.by_id = sorted(range(len(clip_ids)), key=lambda i: clip_ids[i])
        self.hashes = np.array([key(0, clip_ids[i]) for i in self.by_id], np.uint64)
        self.seed = seed
        self.of_epoch = lru_cache(2)(self._of_epoch)

    def __getitem__(self, position: int) -> int:
        """The index of the clip at a position."""
        epoch, place = divmod(position, len(self.by_id))
        return self.of_epoch(epoch)[place]

    def _of_epoch(self, epoch: int) -> list[int]:
        drawn = hash64(key(self.seed, "order of clips", epoch), self.hashes)
        return [self.by_id[i] for i in np.argsort(drawn, kind="stable")]


def training_draws(
    backbone: Backbone,
    trainer: str,
    shift: float | None,
    between: tuple[float, float] | None,
) -> list[Draw]:
    """The timesteps that a training draws from, each with the same probability.

    trainer: one of `motive.gradients.trainers`, or `uniform`: for flow matching σ = shift(u), u uniform
        in 0..1; for diffusion one of the scheduler's timesteps 1..1000. Every loss counts the same.
    shift: None for the trainer's own; of `uniform` for the model's own, its scheduler's.
    between: 1000 σ (of diffusion the timestep itself), from the first on and below the second.

    Raises UserError for a trainer that does not train such a model, or when no timestep is left.
    """
    if trainer != UNIFORM:
        if trainer not in TRAINERS:
            known = ", ".join([UNIFORM, *TRAINERS])
            raise UserError(f"there are no timesteps of '{trainer}': use --trainer {known}")
        return trainer_draws(
            trainer, backbone.source.name, backbone.family, QUANTILES, shift, between
        )
    between = between or (0.0, float(STEPS))
    if isinstance(backbone, FlowBackbone):
        chosen = model_shift(backbone) if shift is None else shift
        return _UNIFORM_FLOW.draws(QUANTILES, chosen, between)
    if shift is not None:
        raise UserError(
            f"{backbone.source.name} is not trained by flow matching and has no shift: "
            "leave out --shift"
        )
    first, last = between
    timesteps = [t for t in range(1, STEPS + 1) if first <= t < last or t == last == STEPS]
    if not timesteps:
        raise UserError(f"no timestep lies in {first:g},{last:g}: use a wider --timestep-range")
    return [Draw(t, t, 1.0) for t in timesteps]


def quantile_draws(
    backbone: Backbone,
    count: int,
    shift: float | None = None,
    between: tuple[float, float] | None = None,
) -> list[Draw]:
    """`count` equally likely timesteps of what `uniform` training draws from: its quantiles (k + ½) / count.

    shift, between: as of `training_draws`, which says what is raised.
    """
    every = training_draws(backbone, UNIFORM, shift, between)
    every.sort(key=lambda draw: draw.timestep)
    return [every[int((k + 0.5) * len(every) / count)] for k in range(count)]


def model_shift(backbone: Backbone) -> float:
    """The shift of a flow model's own scheduler; 1 where it has none of its own."""
    scheduler = backbone.source.config("scheduler")
    return float(str(scheduler.get("flow_shift") or scheduler.get("shift") or 1))


def draw_at(draws: Sequence[Draw], seed: int, position: int) -> Draw:
    """The timestep at a position."""
    number = float(uniform(key(seed, "timestep"), np.uint64(position)))
    return draws[min(int(number * len(draws)), len(draws) - 1)]


def noise_at(seed: int, position: int, shape_cfhw: Sequence[int]) -> torch.Tensor:
    """Standard normal noise at a position, float32 (C, F, H, W) on the CPU.

    The noise of a shorter clip is the leading part of a longer one's of the same size. Philox is
    counter-based, so a stream of its own for each position costs nothing; the noise that clips share in
    attribution (`gradients.noise`) is the prefix along every axis, which training does not need, at 30
    times the cost.
    """
    channels, frames, height, width = shape_cfhw
    stream = np.random.Generator(np.random.Philox(key=key(seed, "training noise", position)))
    noise_fchw = stream.standard_normal((frames, channels, height, width), np.float32)
    return torch.from_numpy(np.ascontiguousarray(noise_fchw.swapaxes(0, 1)))
