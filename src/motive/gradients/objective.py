"""The objective: everything that a gradient feature depends on besides its clip.

Features of different objectives are not comparable, so the objective is one value, hashed, and stored
beside every feature.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass

from motive.errors import UserError

_TUPLES = ("timesteps", "told", "weights")
# Fields that came after the first release.
_LATER = ("trainer", "told", "weights", "train", "floor", "average", "preconditioner")


@dataclass(frozen=True)
class Objective:
    """What is differentiated, where, with which randomness, and how the gradient is reduced.

    model: fingerprint of the model's weights and configurations.
    denoiser: the component that is differentiated: of two experts, the one that the timesteps are of.
    sampler: fingerprint of the frame sampler.
    tracker: fingerprint of the tracker.
    mask, mask_trusted, static_below: the mask's recipe (`motion.masks.motion_mask`).
    timesteps: 1000 σ; more than one are averaged after each gradient is normalised (paper, eq. for
        common randomness).
    noise_seed: of the noise that all clips and queries share.
    prompt_length: tokens that captions are padded to.
    parameters: name pattern of the trained parameters (`*` for all).
    length_factor: whether the loss carries the paper's 1 / F.
    projection, dim, projection_seed: how the gradient becomes a feature.
    dtype: of the denoiser's weights and activations. text_dtype: of the text encoder's.
    posterior: what of the VAE's posterior is the latent: its `mean`, or a `sample` by `noise_seed`.
    trainer: whose loss it is (`gradients.trainers`), or `paper`.
    told: what the denoiser is given as its timestep, for each of the timesteps; none are the timesteps
        themselves.
    weights: of the loss at each timestep, and of its unit gradient in the average; none are all 1.
    train: `base` for the denoiser's own weights, `lora` for a LoRA's factors alone.
    floor: added to the mask: the loss is weighted by W̃ + floor.
    average: over the timesteps, of the gradients' `units` or of the gradients themselves (`sums`).
    preconditioner: digest of the second moments that the gradient is scaled by, coordinate by
        coordinate, before the projection (`gradients.moments_file`); empty for none.
    """

    model: str
    sampler: str
    tracker: str
    mask: str
    mask_trusted: bool
    static_below: float
    timesteps: tuple[float, ...]
    noise_seed: int
    prompt_length: int
    parameters: str
    length_factor: bool
    projection: str
    dim: int
    projection_seed: int
    dtype: str
    text_dtype: str = "float32"
    posterior: str = "mean"
    denoiser: str = "transformer"
    trainer: str = "paper"
    told: tuple[float, ...] = ()
    weights: tuple[float, ...] = ()
    train: str = "base"
    floor: float = 0.0
    average: str = "units"
    preconditioner: str = ""

    def to_json(self) -> str:
        content = dataclasses.asdict(self)
        # So that objectives without them keep the id that their features are stored under.
        for field in dataclasses.fields(self):
            if field.name in _LATER and content[field.name] == field.default:
                del content[field.name]
        return json.dumps(content, sort_keys=True)

    @staticmethod
    def from_json(text: str) -> "Objective":
        content = json.loads(text)
        tuples = {name: tuple(content[name]) for name in _TUPLES if name in content}
        return Objective(**{**content, **tuples})

    @property
    def id(self) -> str:
        """16 hex digits, equal for equal objectives."""
        return hashlib.blake2b(self.to_json().encode(), digest_size=8).hexdigest()

    @property
    def feature_length(self) -> int | None:
        """Numbers in a feature; None for `identity`, whose length is the model's."""
        return None if self.projection == "identity" else self.dim

    @property
    def feature_table(self) -> str:
        """The table that features of this length are kept in."""
        return f"features-{self.feature_length or 'whole'}"

    def differences(self, other: "Objective") -> dict[str, tuple[object, object]]:
        """The fields that differ, with this objective's value and the other's."""
        mine, theirs = dataclasses.asdict(self), dataclasses.asdict(other)
        return {k: (mine[k], theirs[k]) for k in mine if mine[k] != theirs[k]}


def require_same(mine: Objective, other: Objective, *, mine_is: str, other_is: str) -> None:
    """Raise UserError, naming the differing fields, unless both objectives are the same.

    mine_is, other_is: what each belongs to, for the sentence ("the clips", "the queries").
    """
    different = mine.differences(other)
    if different:
        fields = "; ".join(
            f"{k} is {a} for {mine_is} and {b} for {other_is}" for k, (a, b) in different.items()
        )
        raise UserError(
            f"features of different objectives cannot be compared ({fields}): "
            "compute both with the same settings"
        )
