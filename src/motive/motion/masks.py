"""From a motion field to the mask that weights the loss.

The tracker's stage stores a few maps on the latent's spatial grid; the objective's recipe turns them
into a mask. So another recipe needs no second tracking.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from motive.errors import UserError
from motive.motion.field import MotionField

ZETA = 1e-6  # the paper's ζ in the min-max normalisation
MOVING = 0.5  # pixels per frame from which a pixel counts as moving in the statistics
RECIPES = ("paper", "none")


@dataclass(frozen=True)
class MotionMaps:
    """A clip's motion on the latent's spatial grid, one map for each pixel frame.

    magnitude_fhw: M, in pixels, reduced bilinearly from the frame's grid to the latent's.
    trust_fhw: visibility × confidence, 0..1, reduced in the same way.
    low, high: the smallest and largest M of the clip at full resolution, in pixels.
    """

    magnitude_fhw: np.ndarray
    trust_fhw: np.ndarray
    low: float
    high: float


@dataclass(frozen=True)
class MotionStatistics:
    """What a person wants to know of a clip's motion.

    mean_speed, p95_speed: pixels per frame over all pixels and frames but the first.
    moving_share: share of pixels that move by more than 0.5 pixels per frame.
    confident_share: share of pixels with visibility × confidence of at least 0.6.
    """

    mean_speed: float
    p95_speed: float
    moving_share: float
    confident_share: float


def reduce_field(field: MotionField, spatial_stride: int) -> MotionMaps:
    """Maps at 1/`spatial_stride` of the field's size, bilinearly as the paper's section 3.3.

    The min-max normalisation is affine in M, so it commutes with the bilinear reduction: keeping the
    full-resolution extremes beside the reduced M loses nothing.
    """
    magnitude = field.magnitude_fhw()
    trust = field.visibility_fhw * field.confidence_fhw
    height, width = magnitude.shape[1:]
    size = (max(1, width // spatial_stride), max(1, height // spatial_stride))

    def reduce(maps_fhw: np.ndarray) -> np.ndarray:
        small = [cv2.resize(m, size, interpolation=cv2.INTER_LINEAR) for m in maps_fhw]
        return np.stack(small).astype(np.float32)

    return MotionMaps(
        reduce(magnitude.astype(np.float32)),
        reduce(trust.astype(np.float32)),
        float(magnitude.min()),
        float(magnitude.max()),
    )


def describe_field(field: MotionField) -> MotionStatistics:
    """Statistics of the motion itself; all zero for a clip of one frame."""
    speed = field.speed_fhw()[1:]
    if speed.size == 0:
        return MotionStatistics(0.0, 0.0, 0.0, 1.0)
    trust = field.visibility_fhw * field.confidence_fhw
    return MotionStatistics(
        mean_speed=float(speed.mean()),
        p95_speed=float(np.percentile(speed, 95)),
        moving_share=float((speed > MOVING).mean()),
        confident_share=float((trust[1:] >= 0.6).mean()),
    )


def motion_mask(
    maps: MotionMaps, recipe: str, *, trusted: bool = False, static_below: float = 0.0
) -> np.ndarray:
    """W on the latent's spatial grid for each pixel frame, `(F, h, w)` float32 in 0..1.

    recipe: `paper` is W = (M − min M) / (max M − min M + ζ) over the whole clip (section 3.3);
        `none` is W = 1, which gives back the plain loss.
    trusted: multiply by visibility × confidence.
    static_below: a clip whose largest M does not exceed so many pixels is static. Its mask is zero
        everywhere: no motion, no weight, no influence. Min-max alone would blow the tracker's noise
        up to full weight.

    Raises UserError for a recipe that is not known.
    """
    if recipe not in RECIPES:
        raise UserError(f"there is no mask recipe '{recipe}': use {' or '.join(RECIPES)}")
    if recipe == "none":
        return np.ones_like(maps.magnitude_fhw)
    if is_static(maps, static_below):
        return np.zeros_like(maps.magnitude_fhw)
    mask = (maps.magnitude_fhw - maps.low) / (maps.high - maps.low + ZETA)
    if trusted:
        mask = mask * maps.trust_fhw
    return np.clip(mask, 0, 1).astype(np.float32)


def is_static(maps: MotionMaps, static_below: float) -> bool:
    """Whether the clip shows no motion above `static_below` pixels."""
    return maps.high <= static_below or maps.high == maps.low


def pool_frames(mask_fhw: np.ndarray, frame_map: list[range]) -> np.ndarray:
    """W̃ on the latent's grid: the mean over the pixel frames that each latent frame covers."""
    return np.stack([mask_fhw[frames.start : frames.stop].mean(0) for frames in frame_map])
