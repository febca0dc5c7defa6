"""The objective: everything that a gradient feature depends on besides its clip.

Features of different objectives are not comparable, so the objective is one value, hashed, and stored
beside every feature.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass

from motive.errors import UserError


@dataclass(frozen=True)
class Objective:
    """What is differentiated, where, with which randomness, and how the gradient is reduced.

    model: fingerprint of the model's weights and configurations.
    sampler: fingerprint of the frame sampler.
    tracker: fingerprint of the tracker.
    mask, mask_trusted, static_below: the mask's recipe (`motion.masks.motion_mask`).
    timesteps: of 1000; more than one are averaged after each gradient is normalised (paper, eq. for
        common randomness).
    noise_seed: of the noise that all clips and queries share.
    prompt_length: tokens that captions are padded to.
    parameters: name pattern of the trained parameters (`*` for all).
    length_factor: whether the loss carries the paper's 1 / F.
    projection, dim, projection_seed: how the gradient becomes a feature.
    dtype: of the denoiser's weights and activations. text_dtype: of the text encoder's.
    posterior: what of the VAE's posterior is the latent.
    """

    model: str
    sampler: str
    tracker: str
    mask: str
    mask_trusted: bool
    static_below: float
    timesteps: tuple[int, ...]
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

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @staticmethod
    def from_json(text: str) -> "Objective":
        content = json.loads(text)
        return Objective(**{**content, "timesteps": tuple(content["timesteps"])})

    @property
    def id(self) -> str:
        """16 hex digits, equal for equal objectives."""
        return hashlib.blake2b(self.to_json().encode(), digest_size=8).hexdigest()

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
