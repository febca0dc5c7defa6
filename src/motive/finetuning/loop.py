"""The training loop: AdamW on the model's own objective, the same algebra that attribution differentiates.

The recipe is the paper's (appendix on fine-tuning): AdamW, a constant learning rate of 1e-5, weight decay
0.01, no clipping, no warm-up, all weights of the denoiser. Weights and moments are float32, whatever the
precision of the computation; the network stays in eval mode, so that nothing is dropped out.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from motive.backbones.base import Backbone
from motive.errors import UserError
from motive.finetuning.clips import StoredClips, TrainingClip
from motive.finetuning.randomness import UNIFORM, ClipOrder, draw_at, noise_at, training_draws
from motive.finetuning.state import TrainingState
from motive.gradients.loss import motion_weighted_loss
from motive.gradients.per_sample import BatchError
from motive.gradients.stage import BATCH_CELLS, save_memory
from motive.gradients.together import predict_together
from motive.gradients.trainers import Draw

OnStep = Callable[[int, float], None]
_Predict = Callable[[Any], torch.Tensor]

# Latent cells that go through the model at once: more clips of a batch follow in another pass, and the
# gradients add up.
TOGETHER_CELLS = BATCH_CELLS

# Of the largest number of a prediction. What a clip gets in a batch and alone differs by the order of
# sums: 1e-6 has been seen in float32. A model in which the clips of a batch see each other is far off.
BATCH_TOLERANCE = {"float32": 1e-3, "bfloat16": 5e-2}


@dataclass(frozen=True)
class TrainingPlan:
    """What is done, but for the model and the clips.

    steps: optimiser steps in all. batch: clips in each.
    seed: of the order of clips, the timesteps and the noise (`motive.finetuning.randomness`).
    trainer, shift, timestep_range: which timesteps are drawn (`randomness.training_draws`).
    prompt_length: tokens that captions are padded to; None for the model's own.
    dtype: of the computation (`float32` or `bfloat16`), by autocast; weights are float32.
    """

    steps: int
    batch: int = 1
    lr: float = 1e-5
    weight_decay: float = 0.01
    seed: int = 0
    trainer: str = UNIFORM
    shift: float | None = None
    timestep_range: tuple[float, float] | None = None
    prompt_length: int | None = None
    dtype: str = "float32"


def train(
    backbone: Backbone,
    denoiser: torch.nn.Module,
    clips: Sequence[TrainingClip],
    plan: TrainingPlan,
    *,
    state: TrainingState | None = None,
    on_step: OnStep | None = None,
    accelerator: Any = None,
) -> TrainingState:
    """Train the parameters of `denoiser` that require gradients, in place.

    Each step minimises the mean over a batch of w(t) · mean((prediction − target)²), with the mean over
    what the model's training loss counts. Clips of one shape go through the model together; the result
    does not depend on how they are grouped, but for the order of sums.

    denoiser: as `backbone.load_denoiser` gives it, trained weights in float32. Its adapter must be in
        float32 too where all weights are.
    clips: in any order, which does not matter.
    state: of a training of this very denoiser, to go on with; None begins one. Kept up to date.
    on_step: told the number of steps done and the loss of the last, after each.
    accelerator: accelerate's, whose processes share each batch's clips, or None for this process alone.

    Returns the state, with the loss of each step.

    Raises UserError when there is no clip, no such timestep or nothing to train, or when the loss is no
    longer finite.
    """
    if not clips:
        raise UserError("there is no clip to train on: choose another --subset")
    state = state or TrainingState(denoiser, lr=plan.lr, weight_decay=plan.weight_decay)
    loss = BatchLoss(backbone, denoiser, plan)
    # Stored clips are not read for their ids.
    ids = clips.clip_ids if isinstance(clips, StoredClips) else [c.clip_id for c in clips]
    order = ClipOrder(ids, plan.seed)
    for step in range(state.step, plan.steps):
        positions = range(step * plan.batch, (step + 1) * plan.batch)
        if accelerator is not None:
            positions = positions[accelerator.process_index :: accelerator.num_processes]
        state.optimizer.zero_grad(set_to_none=True)
        value = loss.backward({p: clips[order[p]] for p in positions})
        if accelerator is not None and accelerator.num_processes > 1:
            value = _sum_over_processes(accelerator, state.parameters.values(), value)
        if not math.isfinite(value):
            raise UserError(f"the loss of step {step + 1} is {value}: use a lower --lr")
        state.optimizer.step()
        state.losses.append(value)
        if on_step is not None:
            on_step(state.step, value)
    state.optimizer.zero_grad(set_to_none=True)
    return state


def _sum_over_processes(
    accelerator: Any, parameters: Iterable[torch.nn.Parameter], loss: float
) -> float:
    """Add up the gradients of all processes, in each of them, and return the sum of their losses."""
    parameters = list(parameters)
    # A parameter that the loss does not reach has no gradient, and is left alone by the optimiser.
    reached = [float(p.grad is not None) for p in parameters]
    told = accelerator.reduce(
        torch.tensor([*reached, loss], dtype=torch.float64, device=accelerator.device), "sum"
    ).tolist()
    for parameter, count in zip(parameters, told, strict=False):
        if count:
            mine = parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
            parameter.grad = accelerator.reduce(mine, "sum")
    return float(told[-1])


@dataclass(frozen=True)
class _Noised:
    """A clip at its position's timestep and noise."""

    clip: TrainingClip
    draw: Draw
    noisy_cfhw: torch.Tensor
    target_cfhw: torch.Tensor


class BatchLoss:
    """The mean loss of a plan's batches and its gradients."""

    def __init__(self, backbone: Backbone, denoiser: torch.nn.Module, plan: TrainingPlan) -> None:
        self.backbone, self.plan = backbone, plan
        # Any: diffusers' models have methods that torch's Module does not declare.
        self.denoiser: Any = denoiser
        self.draws = training_draws(backbone, plan.trainer, plan.shift, plan.timestep_range)
        self.prompt_length = plan.prompt_length or backbone.default_prompt_length()
        self._together: dict[tuple[int, ...], bool] = {}  # what was found, by shape of latents

    def backward(self, clips: dict[int, TrainingClip]) -> float:
        """The mean loss of the clips, by position; its gradients are added to the parameters'."""
        total = 0.0
        for group in self._groups(clips):
            with self._precision():
                losses = [
                    noised.draw.weight * self._error(prediction, noised)
                    for noised, prediction in zip(group, self._predict(group), strict=True)
                ]
            loss = torch.stack(losses).sum() / self.plan.batch
            loss.backward()
            total += loss.item()
        return total

    def _groups(self, clips: dict[int, TrainingClip]) -> list[list[_Noised]]:
        """The clips by shape, no more of them than go through the model at once, in a fixed order."""
        by_shape: dict[tuple[int, ...], list[_Noised]] = defaultdict(list)
        for position, clip in clips.items():
            by_shape[tuple(clip.latents_cfhw.shape)].append(self._noised(position, clip))
        groups = []
        for same in by_shape.values():
            cells = same[0].noisy_cfhw[0].numel()
            size = max(1, TOGETHER_CELLS // cells)
            groups += [same[i : i + size] for i in range(0, len(same), size)]
        return groups

    def _noised(self, position: int, clip: TrainingClip) -> _Noised:
        device, seed = self.backbone.device, self.plan.seed
        latents_cfhw = clip.latents_cfhw.to(device)
        conditions = {name: tensor.to(device) for name, tensor in clip.conditions.items()}
        draw = draw_at(self.draws, seed, position)
        noise_cfhw = noise_at(seed, position, latents_cfhw.shape).to(device)
        return _Noised(
            TrainingClip(clip.clip_id, latents_cfhw, conditions),
            draw,
            self.backbone.add_noise(latents_cfhw, noise_cfhw, draw.timestep),
            self.backbone.target(latents_cfhw, noise_cfhw, draw.timestep),
        )

    def _predict(self, group: list[_Noised]) -> list[torch.Tensor]:
        save_memory(self.denoiser, group[0].noisy_cfhw)
        predictions = [self._prediction(noised) for noised in group]
        if len(group) > 1 and self._may_be_together(group, predictions):
            try:
                return predict_together(self.denoiser, predictions)
            except BatchError:
                pass  # this model takes such clips one at a time
        return [predict(self.denoiser) for predict in predictions]

    def _prediction(self, noised: _Noised) -> _Predict:
        def predict(denoiser: Any) -> torch.Tensor:
            return self.backbone.predict(
                denoiser,
                noised.noisy_cfhw,
                noised.draw.told,
                noised.clip.conditions,
                self.prompt_length,
            )

        return predict

    def _may_be_together(self, group: list[_Noised], predictions: list[_Predict]) -> bool:
        """Whether a clip gets in a batch what it gets alone, tried once for each shape of latents."""
        shape = tuple(group[0].noisy_cfhw.shape)
        if shape not in self._together:
            with torch.no_grad():
                try:
                    in_batch = predict_together(self.denoiser, predictions)[-1]
                except BatchError:
                    return False  # these clips, or all of this model
                except (RuntimeError, ValueError, IndexError):
                    self._together[shape] = False
                    return False
                alone = predictions[-1](self.denoiser)
            error = (in_batch - alone).abs().max() / alone.abs().max()
            self._together[shape] = bool(error <= BATCH_TOLERANCE[self.plan.dtype])
        return self._together[shape]

    def _error(self, prediction_cfhw: torch.Tensor, noised: _Noised) -> torch.Tensor:
        counted = self.backbone.loss_weights(noised.clip.latents_cfhw)
        if counted is None:
            counted = torch.ones_like(noised.noisy_cfhw[0])
        return motion_weighted_loss(prediction_cfhw, noised.target_cfhw, counted)

    def _precision(self) -> AbstractContextManager[Any]:
        if self.plan.dtype == "float32":
            return nullcontext()
        return torch.autocast(self.backbone.device.type, getattr(torch, self.plan.dtype))
