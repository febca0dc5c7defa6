"""What the trackers by optical flow share: from the two flows of a pair of frames to a field's values.

`back` leads from each pixel of the current frame to where its content was in the frame before, and
`forth` from the frame before to the current one; both are `(H, W, 2)` float32, x before y, in pixels.
"""

from functools import lru_cache

import cv2
import numpy as np


@lru_cache(maxsize=2)  # a clip's frames are of one size; read-only, since it is shared
def pixel_grid(height: int, width: int) -> np.ndarray:
    """Each pixel's own place, `(H, W, 2)` float32, x before y."""
    grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(np.float32)
    grid.setflags(write=False)
    return grid


def sample(image: np.ndarray, places_hw2: np.ndarray) -> np.ndarray:
    """`image` at places between its pixels, bilinearly; outside it, its edge."""
    return cv2.remap(image, places_hw2, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def agreement(back_hw2: np.ndarray, forth_hw2: np.ndarray) -> np.ndarray:
    """Confidence by the forward-backward check, `(H, W)` float32 in 0..1.

    exp(-(e/s)²) with e = ‖back + forth‖, forth taken where back leads, and the scale
    s = 0.5 px + 0.1 · (length of both), so that 0.5 px of error is a lot for a still pixel and little
    for a fast one.
    """
    from motive.motion.flow_kernel import doubt

    back_hw2 = np.ascontiguousarray(back_hw2)
    there = sample(forth_hw2, pixel_grid(*back_hw2.shape[:2]) + back_hw2)
    exponent = doubt(back_hw2, there)
    return np.exp(exponent, out=exponent)


def in_sight(back_hw2: np.ndarray) -> np.ndarray:
    """Visibility, `(H, W)` bool: whether the place that a pixel comes from lies in the frame."""
    from motive.motion.flow_kernel import inside

    return inside(np.ascontiguousarray(back_hw2))
