"""The stage that makes a clip's gradient feature."""

from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import torch

from motive.backbones.base import Backbone
from motive.backbones.finetuned import Finetuned, load_network
from motive.errors import ClipError
from motive.gradients.clip_loss import ClipDraw, ClipInputs, ClipLosses
from motive.gradients.moments_file import MomentsFile, scale_of
from motive.gradients.objective import Objective
from motive.gradients.parameters import trained_parameters
from motive.gradients.per_sample import BatchError
from motive.gradients.streaming import StreamingGradient
from motive.gradients.together import predict_together
from motive.runs.stage import Resources, Stage
from motive.runs.tables import Row

# Latent cells from which activations are recomputed: 17 frames of 480 × 832 have 31,200. Below, the
# activations of a 1.3B model are a few GB, and recomputing costs a third more time.
CHECKPOINT_CELLS = 16_384

# Of a batch. Small clips and models gain, since most of their time goes into starting operations; from a
# thousand tokens or a few million numbers in a matrix the products have the whole time. The gradients of
# one parameter are there for every clip at once: 16 MB keep models that fill a machine to one clip, and so
# to the memory of one.
BATCH_CELLS, BATCH_CLIPS, BATCH_GRADIENT_BYTES = 4096, 32, 16 * 2**20

# Of the norm. On a CPU a clip's feature in a batch has been seen to be the one that it has alone, bit
# for bit; other devices' kernels may add up in another order for another batch.
BATCH_TOLERANCE = 1e-5


def feature_schema(objective: Objective) -> pa.Schema:
    """Of the table of features.

    Lists of one length are kept without their offsets and read several times as fast.
    """
    length = objective.feature_length
    return pa.schema(
        [
            ("clip_id", pa.string()),
            ("caption_id", pa.string()),
            ("feature", pa.list_(pa.float32(), -1 if length is None else length)),
            ("norm", pa.float64()),
            ("loss", pa.float64()),
            ("static", pa.bool_()),
        ]
    )


class GradientStage(Stage):
    """Gradients of the motion-weighted loss, projected and normalised (paper, section 3).

    Other objectives (`motive.influence.estimators`) scale them by second moments before the projection,
    or average them over draws as they are; the feature is a unit vector all the same.

    Takes rows of key, clip_id, caption_id, frames, and the stored rows `motion`, `video` and `text`
    of the stages before; gives the unit feature and the norm that it had.

    batch: clips that go through the model together, at most. None chooses by the size of their
        latents and of the model, 1 takes one after the other. Features do not depend on it: each batch
        size is tried against a clip alone first, and a model or a device on which they would is worked
        through clip by clip, which `notes` then says.
    moments: where the second moments lie whose digest the objective names.
    """

    name = "gradients"

    def __init__(
        self,
        backbone: Backbone,
        objective: Objective,
        batch: int | None = None,
        finetuned: Finetuned | None = None,
        moments: MomentsFile | None = None,
    ) -> None:
        self.backbone, self.objective, self.batch = backbone, objective, batch
        self.moments = moments
        self.finetuned = finetuned or Finetuned()
        self.table, self.schema = objective.feature_table, feature_schema(objective)
        self.notes: list[str] = []

    def fingerprint(self) -> str:
        return self.objective.id

    @property
    def resources(self) -> Resources:
        return self.backbone.resources

    @property
    def places(self) -> list[Path]:
        named = (self.finetuned.checkpoint, self.finetuned.lora)
        return [self.backbone.source.path, *(Path(name) for name in named if name)]

    def open(self) -> None:
        objective = self.objective
        self.backbone.settle(objective.timesteps)
        # Any: diffusers' models have methods that torch's Module does not declare.
        self._denoiser: Any = load_network(self.backbone, self.finetuned)
        parameters = trained_parameters(self._denoiser, objective.parameters, objective.train)
        self._gradient = StreamingGradient(
            parameters,
            objective.projection,
            objective.dim,
            objective.projection_seed,
            self._scale(parameters),
        )
        self._largest = max(p.numel() * p.element_size() for p in parameters.values())
        self._losses = ClipLosses(self.backbone, objective)
        self._tried: set[tuple[int, ...]] = set()  # shapes whose features are right in a batch
        self._one_by_one = self.batch == 1
        if any(p.dtype != torch.float32 for p in parameters.values()):
            # Rounded so coarsely, sums in another order differ in the third digit.
            self._no_batches("the model is not in float32")

    def _scale(self, parameters: dict[str, torch.nn.Parameter]) -> dict[str, torch.Tensor] | None:
        """What the objective's preconditioner multiplies gradients by, on the parameters' device."""
        if not self.objective.preconditioner:
            return None
        assert self.moments is not None
        scale = scale_of(self.moments.load(self.objective.preconditioner))
        return {name: scale.pop(name).to(p.device) for name, p in parameters.items()}

    def close(self) -> None:
        self._gradient.close()
        del self._denoiser, self._gradient, self._losses
        self.backbone.unload()

    def process(self, row: Row) -> Row:
        inputs = self._losses.inputs(row)
        return self._result(row, inputs, *self._alone(inputs))

    def batch_of(self, row: Row) -> tuple[Hashable, int]:
        video = row["video"]
        shapes = {n: tuple(s) for n, s in zip(video["names"], video["shapes"], strict=True)}
        shape, cells = tuple(sorted(shapes.items())), int(np.prod(shapes["latents"][1:]))
        if self._one_by_one:
            return None, 1
        by_memory = min(BATCH_CELLS // cells, BATCH_GRADIENT_BYTES // self._largest, BATCH_CLIPS)
        return shape, max(1, by_memory if self.batch is None else self.batch)

    def process_batch(self, rows: list[Row]) -> list[Row | Exception]:
        inputs: list[ClipInputs | Exception] = [_attempt(self._losses.inputs, row) for row in rows]
        sound = [clip for clip in inputs if isinstance(clip, ClipInputs)]
        features = iter(self._batch(sound))
        results: list[Row | Exception] = []
        for row, clip in zip(rows, inputs, strict=True):
            found = clip if isinstance(clip, Exception) else next(features)
            if isinstance(clip, ClipInputs) and not isinstance(found, Exception):
                results.append(self._result(row, clip, *found))
            else:
                assert isinstance(found, Exception)
                results.append(found)
        return results

    def _batch(self, clips: list[ClipInputs]) -> list["_Found | Exception"]:
        """The features of clips of one shape, together if that is right, else one by one."""
        if len(clips) > 1 and not self._one_by_one:
            try:
                found = self._together(clips)
            except BatchError as reason:
                self._no_batches(str(reason))
            except (RuntimeError, ValueError, ArithmeticError, LookupError, TypeError):
                pass  # one of the clips, or too little memory: alone, the others may go through
            else:
                if self._is_right(clips, found):
                    return found
        return [_attempt(self._alone, clip) for clip in clips]

    def _is_right(self, clips: list[ClipInputs], found: list["_Found | Exception"]) -> bool:
        """Whether a batch gives what a clip alone gives, tried once for each shape of latents."""
        shape = tuple(clips[0].latents_cfhw.shape)
        whole = [i for i, f in enumerate(found) if not isinstance(f, Exception) and f[0].any()]
        if shape in self._tried or not whole:
            return True
        feature, norm, _ = self._alone(clips[whole[-1]])
        in_batch = found[whole[-1]]
        assert not isinstance(in_batch, Exception)
        error = float(np.linalg.norm(in_batch[0] * in_batch[1] - feature * norm)) / in_batch[1]
        if not error <= BATCH_TOLERANCE:
            self._no_batches(f"in a batch, a feature is off by {error:.1g}")
            return False
        self._tried.add(shape)
        return True

    def _no_batches(self, reason: str) -> None:
        if not self._one_by_one:
            self._one_by_one = True
            self.notes.append(f"one clip at a time ({reason})")

    def _alone(self, clip: ClipInputs) -> "_Found":
        save_memory(self._denoiser, clip.latents_cfhw)
        losses: list[float] = []
        features: list[np.ndarray] = []
        for draw in self._losses.draws(clip):

            def scalar(draw: ClipDraw = draw) -> torch.Tensor:
                loss = draw.loss(draw.predict(self._denoiser))
                losses.append(loss.item())
                return loss

            features.append(self._gradient.feature(scalar).astype(np.float64))
        return (*self._average(features), float(np.mean(losses)))

    def _together(self, clips: list[ClipInputs]) -> list["_Found | Exception"]:
        """`_alone` of each, with an exception for the clips that are bad."""
        save_memory(self._denoiser, clips[0].latents_cfhw)
        losses: list[list[float]] = []
        features: list[list[np.ndarray | ClipError]] = []
        for draws in zip(*map(self._losses.draws, clips), strict=True):

            def vector(draws: tuple[ClipDraw, ...] = draws) -> torch.Tensor:
                predictions = predict_together(self._denoiser, [draw.predict for draw in draws])
                found = [
                    draw.loss(prediction)
                    for draw, prediction in zip(draws, predictions, strict=True)
                ]
                vector = torch.stack(found)
                losses.append(vector.tolist())
                return vector

            features.append(self._gradient.features(vector, len(clips)))
        results: list[_Found | Exception] = []
        for own, own_losses in zip(
            zip(*features, strict=True), zip(*losses, strict=True), strict=True
        ):
            failed = [f for f in own if isinstance(f, ClipError)]
            sound = [f.astype(np.float64) for f in own if not isinstance(f, ClipError)]
            results.append(
                failed[0] if failed else (*self._average(sound), float(np.mean(own_losses)))
            )
        return results

    def _average(self, gradients: list[np.ndarray]) -> tuple[np.ndarray, float]:
        if self.objective.average == "sums":
            return average_of_gradients(gradients)
        return average_of_units(gradients, self.objective.weights or None)

    def _result(
        self, row: Row, inputs: ClipInputs, feature: np.ndarray, norm: float, loss: float
    ) -> Row:
        return {
            "clip_id": row["clip_id"],
            "caption_id": row["caption_id"],
            "feature": feature.astype(np.float32),
            "norm": norm,
            "loss": loss,
            "static": inputs.static,
        }


class QueryGradientStage(GradientStage):
    """The queries' gradients, where an estimator gives them an objective of their own."""

    name = "query gradients"


def save_memory(denoiser: Any, latents_cfhw: torch.Tensor) -> None:
    """Recompute activations in the backward pass where keeping them would take the most memory.

    The numbers are the same: the same operations run on the same inputs.
    """
    if hasattr(denoiser, "enable_gradient_checkpointing"):
        if latents_cfhw[0].numel() >= CHECKPOINT_CELLS:
            denoiser.enable_gradient_checkpointing()
        else:
            denoiser.disable_gradient_checkpointing()


_Found = tuple[np.ndarray, float, float]  # the feature (float64, unit length), its norm, the loss
Given = TypeVar("Given")
Result = TypeVar("Result")


def average_of_units(
    gradients: list[np.ndarray], weights: Sequence[float] | None = None
) -> tuple[np.ndarray, float]:
    """The unit vector along the mean of the gradients, each normalised first, and their mean norm.

    weights: of the unit vectors. A weight of the loss goes into a gradient's norm alone, which
        normalising takes away: to count, it must stand before the unit vector.

    A gradient of zero (a static clip's) stays zero: it has no direction.
    """
    norms = [float(np.linalg.norm(g)) for g in gradients]
    units = [g / n if n > 0 else g for g, n in zip(gradients, norms, strict=True)]
    if weights is not None:
        units = [weight * unit for weight, unit in zip(weights, units, strict=True)]
    mean = np.mean(units, axis=0)
    length = float(np.linalg.norm(mean))
    return (mean / length if length > 0 else mean), float(np.mean(norms))


def average_of_gradients(gradients: list[np.ndarray]) -> tuple[np.ndarray, float]:
    """The unit vector along the mean of the gradients, and the mean's norm: their product is the mean.

    Weights of the draws are in the gradients already, as they are in the loss.
    """
    mean = np.mean(gradients, axis=0)
    length = float(np.linalg.norm(mean))
    return (mean / length if length > 0 else mean), length


def _attempt(work: Callable[[Given], Result], given: Given) -> Result | Exception:
    """The result, or the error that is about this clip alone."""
    try:
        return work(given)
    except (ClipError, RuntimeError, ValueError, ArithmeticError, LookupError, TypeError) as error:
        return error
