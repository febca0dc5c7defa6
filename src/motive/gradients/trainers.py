"""The timesteps that a trainer draws, at fixed quantiles: what `--trainer` means.

The paper differentiates at one fixed timestep. A trainer minimises an expectation over timesteps that it
draws from a distribution of its own, weights by, and tells the denoiser in its own way. Here K draws stand
for that expectation: the quantiles (k + ½) / K of the trainer's distribution, each with the number that the
denoiser is told and the weight of its loss. All of flow matching: z = (1 − σ) h + σ ε, target ε − h.

Read in the trainers' sources, at the commits named: modelscope/DiffSynth-Studio fed7b18
(diffusion/flow_match.py, diffusion/loss.py), kohya-ss/musubi-tuner 30c658c (training/trainer_base.py and its
docs), a-r-r-o-w/finetrainers f476c37 (utils/diffusion.py, models/*/base_specification.py),
tdrussell/diffusion-pipe 8f83dbf (utils/common.py, models/wan/wan.py, models/hunyuan_video*.py).

Where a trainer draws latents from the VAE's posterior, anew for each step or once for its cache, the draw is
one for all clips (`noise.posterior_noise`).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

import numpy as np

from motive.backbones.flow import shifted
from motive.errors import UserError

PAPER = "paper"
STEPS = 1000


@dataclass(frozen=True)
class Draw:
    """One of K timesteps.

    timestep: 1000 σ, the share of noise in thousandths, 0..1000, not always whole.
    told: what the denoiser is given as its timestep.
    weight: of the loss, 1 on average over the trainer's distribution.
    """

    timestep: float
    told: float
    weight: float


@dataclass(frozen=True)
class Trainer:
    """How a trainer draws a timestep.

    shifts: of each family that the trainer trains: the trainer's default, or what its guide for that
        family uses where its default is for none.
    sigma: of a uniform number in 0..1 and the shift; monotonic in the number.
    told: of σ. weight: of σ and the shift.
    draws_latents: the families whose latents it draws from the VAE's posterior; of others it takes the mean.
    """

    shifts: Mapping[str, float]
    sigma: Callable[[float, float], float]
    told: Callable[[float], float]
    weight: Callable[[float, float], float]
    draws_latents: frozenset[str] = frozenset()

    def draws(
        self, count: int, shift: float, between: tuple[float, float] = (0.0, 1000.0)
    ) -> list[Draw]:
        """The quantiles (k + ½) / count of the distribution of timesteps that lie in `between`.

        between: 1000 σ, from the first number on and below the second (1000 included).

        Raises UserError when the trainer draws no timestep there.
        """
        first, last = self._share(between, shift)
        if not first < last:
            raise UserError(
                f"no timestep lies in {between[0]:g},{between[1]:g}: use a wider --timestep-range"
            )
        sigmas = [
            self.sigma(first + (last - first) * (k + 0.5) / count, shift) for k in range(count)
        ]
        return [Draw(STEPS * s, self.told(s), self.weight(s, shift)) for s in sigmas]

    def _share(self, between: tuple[float, float], shift: float) -> tuple[float, float]:
        """The uniform numbers whose timesteps lie in `between`: an interval, since σ is monotonic."""
        rises = self.sigma(0.75, shift) > self.sigma(0.25, shift)
        low = _crossing(lambda u: (STEPS * self.sigma(u, shift) >= between[0]) == rises)
        high = 1.0 if rises else 0.0
        if between[1] < STEPS:
            high = _crossing(lambda u: (STEPS * self.sigma(u, shift) >= between[1]) == rises)
        return (low, high) if rises else (high, low)


def trainer_draws(
    name: str,
    model: str,
    family: str,
    count: int,
    shift: float | None = None,
    between: tuple[float, float] | None = None,
) -> list[Draw]:
    """The draws of the trainer `name` for a model of `family`.

    model: what the user calls it. shift: None for the trainer's own. between: as of `Trainer.draws`.

    Raises UserError for a family that the trainer does not train with flow matching, as far as its
    source was read.
    """
    trainer = TRAINERS[name]
    if family not in trainer.shifts:
        others = [n for n, t in TRAINERS.items() if family in t.shifts]
        advice = " or ".join(f"--trainer {n}" for n in [PAPER, *others])
        raise UserError(f"how {name} trains {model} ({family}) is not known here: use {advice}")
    chosen = trainer.shifts[family] if shift is None else shift
    return trainer.draws(count, chosen, between or (0.0, float(STEPS)))


def trainer_posterior(name: str, family: str) -> str:
    """What of the VAE's posterior the trainer's latents are: its `mean`, or a `sample`."""
    trainer = TRAINERS.get(name)
    return "sample" if trainer is not None and family in trainer.draws_latents else "mean"


def _crossing(beyond: Callable[[float], bool]) -> float:
    """Where a condition of a number in 0..1 that holds from somewhere on begins to hold."""
    low, high = 0.0, 1.0
    if beyond(0.0):
        return 0.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if beyond(middle) else (middle, high)
    return high


def _index(uniform: float, count: int) -> int:
    return min(int(uniform * count), count - 1)


# DiffSynth-Studio: a uniform index into 1000 shifted steps from σ = 1 down; a bell of weights.


def _diffsynth_sigma(uniform: float, shift: float) -> float:
    return shifted(1 - _index(uniform, STEPS) / STEPS, shift)


def _bell(sigma: float) -> float:
    return math.exp(-2 * (sigma - 0.5) ** 2)


@cache
def _bell_normaliser(shift: float) -> tuple[float, float]:
    """The smallest value of the bell on the grid, and the mean above it."""
    bell = [_bell(shifted(1 - i / STEPS, shift)) for i in range(STEPS)]
    return min(bell), sum(b - min(bell) for b in bell) / STEPS


def _diffsynth_weight(sigma: float, shift: float) -> float:
    smallest, mean = _bell_normaliser(shift)
    return (_bell(sigma) - smallest) / mean


# musubi-tuner, --timestep_sampling shift: a shifted logistic of a normal number; told 1000 σ + 1.


def _musubi_sigma(uniform: float, shift: float) -> float:
    return shifted(_logistic_normal(min(max(uniform, 1e-7), 1 - 1e-7)), shift)


def _logistic_normal(quantile: float) -> float:
    return 1 / (1 + math.exp(-NormalDist().inv_cdf(quantile)))


# finetrainers, flow_weighting_scheme none: a uniform index into the scheduler's 1000 steps from σ = 1 down.


def _finetrainers_sigma(uniform: float, shift: float) -> float:
    return shifted(1 - _index(uniform, STEPS) / STEPS, shift)


def _cut_off(sigma: float) -> float:
    """1000 σ without its fraction, multiplied in float32 as the trainer does: of σ = 0.251 it is 250."""
    return float(np.floor(np.float32(sigma) * np.float32(STEPS)))


# diffusion-pipe, timestep_sample_method logit_normal: a uniform index into 10,000 quantiles.

_BUCKETS = 10_000


def _diffusion_pipe_sigma(uniform: float, shift: float) -> float:
    first, last = 1 / _BUCKETS, 1 - 1 / _BUCKETS
    quantile = first + (last - first) * _index(uniform, _BUCKETS) / (_BUCKETS - 1)
    return shifted(_logistic_normal(quantile), shift)


def _thousandfold(sigma: float) -> float:
    return STEPS * sigma


def _one(sigma: float, shift: float) -> float:
    return 1.0


TRAINERS = {
    "diffsynth": Trainer(
        {"wan": 5.0, "wan-image": 5.0}, _diffsynth_sigma, _thousandfold, _diffsynth_weight
    ),
    # Its default is another sampling; these are the commands of its guides (docs/wan.md and so on).
    "musubi": Trainer(
        {"wan": 3.0, "wan-image": 3.0, "hunyuan-video": 7.0, "hunyuan-video-1.5": 2.0},
        _musubi_sigma,
        lambda sigma: STEPS * sigma + 1,
        _one,
        frozenset({"hunyuan-video"}),
    ),
    # For Wan it also normalises the posterior's log-variance as if it were a mean, so that its draws have
    # another spread. That is not mirrored: a draw here has the spread that the VAE gives.
    "finetrainers": Trainer(
        {"wan": 1.0, "wan-image": 1.0, "hunyuan-video": 1.0},
        _finetrainers_sigma,
        _cut_off,
        _one,
        frozenset({"wan", "wan-image", "hunyuan-video"}),
    ),
    "diffusion-pipe": Trainer(
        {"wan": 1.0, "wan-image": 1.0, "hunyuan-video": 1.0, "hunyuan-video-1.5": 1.0},
        _diffusion_pipe_sigma,
        _thousandfold,
        _one,
        frozenset({"hunyuan-video"}),
    ),
}
