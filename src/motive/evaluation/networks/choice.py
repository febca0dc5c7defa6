"""Which networks a user wants, and what is said when one is not there."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

DINO = "facebook/dino-vitb16"
CLIP_BASE = "openai/clip-vit-base-patch32"
CLIP_LARGE = "openai/clip-vit-large-patch14"
RAFT = "C_T_V1"  # torchvision's name of RAFT's own weights for FlyingThings, raft-things.pth


@dataclass(frozen=True)
class Networks:
    """Where the networks are.

    dino, clip_base, clip_large: folders written by transformers' `save_pretrained`, or hub ids.
    aesthetic_head: the file of LAION's linear head, `sa_0_4_vit_l_14_linear.pth`.
    raft: `C_T_V1`, which torchvision fetches, or a file of its large network's weights.
    plugins: by dimension, `FILE.PY:CLASS` of a user's network (`motive.evaluation.networks.plugin`).
    imaging_mode: how frames come to the network of imaging_quality (`preprocessing.for_musiq`).
    device: `auto`, `cpu`, `cuda`, `cuda:1`, `mps`.
    """

    dino: str = DINO
    clip_base: str = CLIP_BASE
    clip_large: str = CLIP_LARGE
    aesthetic_head: Path | None = None
    raft: str = RAFT
    plugins: Mapping[str, str] = field(default_factory=dict)
    imaging_mode: str = "longer"
    device: str = "auto"


class MissingNetworkError(Exception):
    """A dimension's network is not there.

    why: what was looked for, in a sentence's part. how: what the user does to have it.
    """

    def __init__(self, why: str, how: str) -> None:
        super().__init__(f"{why}: {how}")
        self.why, self.how = why, how
