"""Frames as the networks of VBench take them.

All resizing has half-pixel centres and no antialiasing, on floats, as torchvision's `Resize` does it
there for tensors. Bicubic is a = −0.75 without clamping, so that values leave 0..255 a little.
"""

from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from motive.errors import UserError

SIDE = 224  # pixels, of DINO's and CLIP's pictures
LONGEST = 512  # pixels, of MUSIQ's pictures

ImagingMode = Literal["longer", "shorter", "shorter_centercrop", "None"]
IMAGING_MODES: tuple[ImagingMode, ...] = ("longer", "shorter", "shorter_centercrop", "None")

_DINO = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def to_float(frames_fhw3: np.ndarray) -> Tensor:
    """uint8 frames as `(F, 3, H, W)` float32 in 0..255."""
    return torch.from_numpy(np.ascontiguousarray(frames_fhw3)).permute(0, 3, 1, 2).float()


def for_dino(frames_b3hw: Tensor) -> Tensor:
    """Frames in 0..255: the shorter side 224, bilinear, nothing cut; normalised by ImageNet."""
    return _normalised(_shorter_side(frames_b3hw, "bilinear"), *_DINO)


def for_clip(frames_b3hw: Tensor) -> Tensor:
    """Frames in 0..255: the shorter side 224, bicubic, the middle 224 × 224; normalised as CLIP's."""
    return _normalised(_middle(_shorter_side(frames_b3hw, "bicubic"), SIDE), *_CLIP)


def for_musiq(frames_b3hw: Tensor, mode: ImagingMode = "longer") -> Tensor:
    """Frames in 0..255, not larger than `mode` allows, bilinear; in 0..1.

    mode: `longer` brings the longer side down to 512, `shorter` the shorter one, `shorter_centercrop`
        also cuts out the middle of what it has brought down, `None` leaves frames as they are. Smaller
        frames always stay as they are. Sides are cut down to whole pixels, so that 511 occurs.
    """
    height, width = frames_b3hw.shape[2:]
    side = max(height, width) if mode == "longer" else min(height, width)
    if mode != "None" and side > LONGEST:
        scale = LONGEST / side
        frames_b3hw = _resized(frames_b3hw, int(scale * height), int(scale * width), "bilinear")
        if mode == "shorter_centercrop":
            frames_b3hw = _middle(frames_b3hw, LONGEST)
    return frames_b3hw / 255


def imaging_mode(name: str) -> ImagingMode:
    """The mode of `for_musiq` called `name`.

    Raises UserError when there is none.
    """
    for mode in IMAGING_MODES:
        if mode == name:
            return mode
    raise UserError(f"there is no imaging mode '{name}': use {', '.join(IMAGING_MODES)}")


def pad_to_multiple(frames_b3hw: Tensor, multiple: int) -> Tensor:
    """The edge repeated on all sides up to a multiple of so many pixels, the smaller half first."""
    left, right, top, bottom = padding(frames_b3hw.shape[2], frames_b3hw.shape[3], multiple)
    return functional.pad(frames_b3hw, (left, right, top, bottom), mode="replicate")


def padding(height: int, width: int, multiple: int) -> tuple[int, int, int, int]:
    """Pixels that `pad_to_multiple` adds: left, right, top, bottom."""
    down, across = -height % multiple, -width % multiple
    return across // 2, across - across // 2, down // 2, down - down // 2


def _shorter_side(frames_b3hw: Tensor, how: str) -> Tensor:
    height, width = frames_b3hw.shape[2:]
    if height <= width:
        return _resized(frames_b3hw, SIDE, int(SIDE * width / height), how)
    return _resized(frames_b3hw, int(SIDE * height / width), SIDE, how)


def _resized(frames_b3hw: Tensor, height: int, width: int, how: str) -> Tensor:
    return functional.interpolate(frames_b3hw, (height, width), mode=how, align_corners=False)


def _middle(frames_b3hw: Tensor, side: int) -> Tensor:
    top, left = (round((size - side) / 2) for size in frames_b3hw.shape[2:])
    return frames_b3hw[..., top : top + side, left : left + side]


def _normalised(
    frames_b3hw: Tensor, mean: tuple[float, ...], deviation: tuple[float, ...]
) -> Tensor:
    mean_311, deviation_311 = (torch.tensor(v)[:, None, None] for v in (mean, deviation))
    return (frames_b3hw / 255 - mean_311) / deviation_311
