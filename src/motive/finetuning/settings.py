"""What a user says about a fine-tuning."""

import math
from dataclasses import dataclass
from typing import Any

from motive.errors import UserError

TRACKERS = ("none", "tensorboard", "trackio", "wandb")
DTYPES = ("auto", "float32", "bfloat16")
PAPER_REPEATS = 50


@dataclass(frozen=True)
class FinetuneSettings:
    """How a model is fine-tuned on a subset; the defaults are the paper's recipe, but for the timesteps.

    steps, repeats: optimiser steps in all (trainings on other subsets then have *matched steps*), or how
        often each clip is shown (*matched repeats*: a tenth of the clips has a tenth of the steps). One of
        them; neither is the paper's 50 repeats.
    batch: clips in a step.
    lora: the rank of a LoRA that is trained instead of the weights themselves, or None.
    parameters: name pattern of the weights that are trained; None for all that the family trains.
    seed: of the order of clips, the timesteps, the noise, and a LoRA's first values.
    subset_seed, fraction, embedding_model: of the subset (`motive.subsets.choose_subset`).
    trainer, shift, timestep_range: of the timesteps (`finetuning.randomness.training_draws`).
    dtype: of the computation: `float32`, `bfloat16`, or `auto`: bfloat16 on CUDA. Trained weights are
        float32.
    checkpoint_every: steps after which an interrupted training loses nothing.
    tracker: to which the loss is told, beside training.json: one of `TRACKERS`.

    Raises UserError for values that make no training.
    """

    steps: int | None = None
    repeats: int | None = None
    batch: int = 1
    lr: float = 1e-5
    weight_decay: float = 0.01
    lora: int | None = None
    parameters: str | None = None
    seed: int = 0
    subset_seed: int = 0
    fraction: float | None = None
    embedding_model: str | None = None
    trainer: str = "uniform"
    shift: float | None = None
    timestep_range: tuple[float, float] | None = None
    dtype: str = "auto"
    device: str = "auto"
    threads: int | None = None
    checkpoint_every: int = 200
    tracker: str = "none"

    def __post_init__(self) -> None:
        if self.steps is not None and self.repeats is not None:
            raise UserError(
                "--steps and --repeats both say how long to train: give one of them, "
                "--steps for subsets compared at equal steps"
            )
        for name in ("steps", "repeats", "batch", "lora", "checkpoint_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name.replace('_', '-')} is {value}: use at least 1")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise UserError(f"the learning rate {self.lr:g} is wrong: use a --lr above 0")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise UserError(f"--weight-decay is {self.weight_decay:g}: use 0 or more")
        if self.shift is not None and not (math.isfinite(self.shift) and self.shift > 0):
            raise UserError(f"--shift is {self.shift:g}: use a number above 0")
        if self.lora is not None and self.parameters is not None:
            raise UserError("a LoRA has weights of its own: leave out --parameters or --lora")
        if self.dtype not in DTYPES:
            raise UserError(
                f"nothing is trained in '{self.dtype}' here: use --dtype {', '.join(DTYPES[:-1])} "
                f"or {DTYPES[-1]}"
            )
        if self.tracker not in TRACKERS:
            raise UserError(f"there is no tracker '{self.tracker}': use {', '.join(TRACKERS)}")

    @property
    def matched(self) -> str:
        """What trainings with these settings have in common, whatever their subset."""
        return "steps" if self.steps is not None else "repeats"

    def steps_for(self, clips: int) -> int:
        """Optimiser steps of a training on so many clips."""
        if self.steps is not None:
            return self.steps
        return math.ceil((self.repeats or PAPER_REPEATS) * clips / self.batch)

    def as_record(self) -> dict[str, Any]:
        """The settings that the trained weights depend on, but for the subset and the model."""
        return {
            "steps": self.steps,
            "repeats": None if self.steps is not None else self.repeats or PAPER_REPEATS,
            "batch": self.batch,
            "lr": self.lr,
            "weight_decay": self.weight_decay,
            "lora": self.lora,
            "parameters": self.parameters,
            "seed": self.seed,
            "trainer": self.trainer,
            "shift": self.shift,
            "timestep_range": self.timestep_range,
        }
