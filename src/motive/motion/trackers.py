"""Trackers by name. A tracker turns frames into a MotionField; it is made once per worker."""

from typing import Protocol

import numpy as np

from motive.errors import UserError
from motive.motion.field import MotionField


class Tracker(Protocol):
    """Anything that follows motion through a clip."""

    def fingerprint(self) -> str:
        """Name, settings and weights: equal for trackers that give equal fields."""
        ...

    def track(self, frames_fhw3: np.ndarray) -> MotionField:
        """The motion of RGB uint8 frames. Raises ClipError for a clip that it cannot follow."""
        ...


def make_tracker(name: str) -> Tracker:
    """The tracker called `name`.

    Raises UserError for a name that is not known.
    """
    if name == "dis":
        from motive.motion.dis import DisTracker

        return DisTracker()
    raise UserError(f"there is no tracker '{name}': use --tracker dis")
