"""What a tracker says of a clip: displacement, visibility and confidence for every pixel."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

Convention = Literal["from_previous", "from_first"]


@dataclass(frozen=True)
class MotionField:
    """The paper's A ∈ R^{F×H×W×4}, with its convention in the type.

    displacement_fhw2: pixels, x before y. By convention
        `from_previous` (optical flow): at each pixel of frame f, how far what it shows has come since
        frame f-1; frame 0 is zero.
        `from_first` (point tracking): at each pixel of frame 0, how far what it showed has gone by
        frame f.
    visibility_fhw, confidence_fhw: 0..1.
    """

    displacement_fhw2: np.ndarray
    visibility_fhw: np.ndarray
    confidence_fhw: np.ndarray
    convention: Convention

    def magnitude_fhw(self) -> np.ndarray:
        """M = ‖(dw, dh)‖₂ in pixels (paper, section 3.3)."""
        return lengths(self.displacement_fhw2)

    def velocity_fhw2(self) -> np.ndarray:
        """Pixels per frame, whatever the convention: the change of the displacement from first frames.

        Zero in frame 0 by both conventions.
        """
        if self.convention == "from_previous":
            return self.displacement_fhw2
        return np.diff(self.displacement_fhw2, axis=0, prepend=self.displacement_fhw2[:1])

    def speed_fhw(self) -> np.ndarray:
        """The length of the velocity, in pixels per frame."""
        return lengths(self.velocity_fhw2())


def lengths(vectors_n2: np.ndarray) -> np.ndarray:
    """‖v‖₂ of each vector `(..., 2)`; a fraction of the time of np.linalg.norm along so short an axis."""
    # Late, since it loads numba, which those who only name a tracker need not wait for.
    from motive.motion.field_kernel import put_lengths

    found = np.empty(vectors_n2.shape[:-1], vectors_n2.dtype)
    put_lengths(np.ascontiguousarray(vectors_n2), found)
    return found


def jerk_lengths(velocity_fhw2: np.ndarray) -> np.ndarray:
    """‖v(f+1) − 2 v(f) + v(f−1)‖₂, `(F − 2, H, W)`, and none for fewer frames."""
    from motive.motion.field_kernel import put_jerks

    found = np.empty(
        (max(0, len(velocity_fhw2) - 2), *velocity_fhw2.shape[1:3]), velocity_fhw2.dtype
    )
    put_jerks(np.ascontiguousarray(velocity_fhw2), found)
    return found
