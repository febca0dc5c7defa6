"""From a motion field to the mask that weights the loss.

The tracker's stage stores a few maps on the latent's spatial grid; the objective's recipe turns them
into a mask. So another recipe needs no second tracking.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from motive.errors import UserError
from motive.motion.camera import CameraMotion
from motive.motion.field import MotionField, lengths

ZETA = 1e-6  # the paper's ζ in the min-max normalisation
MOTIONS = ("paper", "object", "camera")
RECIPES = (*MOTIONS, "none")


@dataclass(frozen=True)
class Magnitude:
    """M of one kind of motion on the latent's spatial grid, one map for each pixel frame.

    magnitude_fhw: in pixels, reduced bilinearly from the frame's grid to the latent's.
    low, high: the smallest and largest M of the clip at full resolution, in pixels.
    """

    magnitude_fhw: np.ndarray
    low: float
    high: float


@dataclass(frozen=True)
class MotionMaps:
    """A clip's motion on the latent's spatial grid.

    magnitudes: by `MOTIONS`: `paper` is the raw displacement's, `object` what the camera leaves of it,
        `camera` the camera's part.
    trust_fhw: visibility × confidence, 0..1, reduced as the magnitudes are.
    """

    magnitudes: Mapping[str, Magnitude]
    trust_fhw: np.ndarray


def reduce_field(
    field: MotionField, spatial_stride: int, camera: CameraMotion | None = None
) -> MotionMaps:
    """Maps at 1/`spatial_stride` of the field's size, bilinearly as the paper's section 3.3.

    camera: None is a camera that stands still: all motion is the objects'.

    The min-max normalisation is affine in M, so it commutes with the bilinear reduction: keeping the
    full-resolution extremes beside the reduced M loses nothing.
    """
    frames, height, width = field.visibility_fhw.shape
    shape = frames, max(1, height // spatial_stride), max(1, width // spatial_stride)
    trust = np.empty(shape, np.float32)
    paper, own, of_camera = _Reduced(shape), _Reduced(shape), _Reduced(shape)
    # One frame after the other: what is made of a frame is used up before it leaves the processor's cache.
    for f, moves_hw2 in enumerate(field.displacement_fhw2):
        _reduce(field.visibility_fhw[f] * field.confidence_fhw[f], trust[f])
        paper.put(f, lengths(moves_hw2))
    if camera is None:
        still = Magnitude(np.zeros(shape, np.float32), 0.0, 0.0)
        return MotionMaps(
            {"paper": paper.magnitude(), "object": paper.magnitude(), "camera": still}, trust
        )
    for f, (part_hw2, left_hw2) in enumerate(camera.split(field)):
        own.put(f, lengths(left_hw2))
        of_camera.put(f, lengths(part_hw2))
    magnitudes = {"paper": paper, "object": own, "camera": of_camera}
    return MotionMaps({name: made.magnitude() for name, made in magnitudes.items()}, trust)


class _Reduced:
    """A magnitude that is put together frame by frame."""

    def __init__(self, shape_fhw: tuple[int, int, int]) -> None:
        self._small_fhw = np.empty(shape_fhw, np.float32)
        self._low, self._high = np.inf, -np.inf

    def put(self, f: int, magnitude_hw: np.ndarray) -> None:
        _reduce(magnitude_hw, self._small_fhw[f])
        self._low = min(self._low, float(magnitude_hw.min()))
        self._high = max(self._high, float(magnitude_hw.max()))

    def magnitude(self) -> Magnitude:
        return Magnitude(self._small_fhw, self._low, self._high)


def _reduce(map_hw: np.ndarray, small_hw: np.ndarray) -> None:
    """Bilinearly, as the paper's section 3.3, to the size of `small_hw`, and into it."""
    map_hw = map_hw.astype(np.float32, copy=False)
    small_hw[:] = cv2.resize(map_hw, small_hw.shape[::-1], interpolation=cv2.INTER_LINEAR)


def motion_mask(
    maps: MotionMaps, recipe: str, *, trusted: bool = False, static_below: float = 0.0
) -> np.ndarray:
    """W on the latent's spatial grid for each pixel frame, `(F, h, w)` float32 in 0..1.

    recipe: `paper` is W = (M − min M) / (max M − min M + ζ) over the whole clip (section 3.3), with M
        the magnitude of the raw displacement; `object` and `camera` are the same with M of the
        objects' own motion and of the camera's; `none` is W = 1, which gives back the plain loss.
    trusted: multiply by visibility × confidence; not with `none`.
    static_below: a clip whose largest M does not exceed so many pixels is static. Its mask is zero
        everywhere: no motion, no weight, no influence. Min-max alone would blow the tracker's noise
        up to full weight.

    Raises UserError for a recipe that is not known.
    """
    if recipe not in RECIPES:
        raise UserError(f"there is no mask recipe '{recipe}': use {' or '.join(RECIPES)}")
    if recipe == "none":
        return np.ones_like(maps.trust_fhw)
    if is_static(maps, recipe, static_below):
        return np.zeros_like(maps.trust_fhw)
    motion = maps.magnitudes[recipe]
    mask = (motion.magnitude_fhw - motion.low) / (motion.high - motion.low + ZETA)
    if trusted:
        mask = mask * maps.trust_fhw
    return np.clip(mask, 0, 1).astype(np.float32)


def is_static(maps: MotionMaps, recipe: str, static_below: float) -> bool:
    """Whether the clip shows no motion above `static_below` pixels of the kind that `recipe` weighs.

    With `none` no clip is static: the plain loss has a gradient without any motion.
    """
    if recipe == "none":
        return False
    motion = maps.magnitudes[recipe]
    return motion.high <= static_below or motion.high == motion.low


def pool_frames(mask_fhw: np.ndarray, frame_map: list[range]) -> np.ndarray:
    """W̃ on the latent's grid: the mean over the pixel frames that each latent frame covers."""
    return np.stack([mask_fhw[frames.start : frames.stop].mean(0) for frames in frame_map])
