"""Motion fields for tests."""

import numpy as np

from motive.motion.field import Convention, MotionField


def field_of(
    displacement_fhw2: np.ndarray,
    trust_fhw: np.ndarray | None = None,
    convention: Convention = "from_previous",
) -> MotionField:
    """A wholly visible field; confident everywhere unless `trust_fhw` says otherwise."""
    ones = np.ones(displacement_fhw2.shape[:3], np.float32)
    trust = ones if trust_fhw is None else trust_fhw.astype(np.float32)
    return MotionField(displacement_fhw2.astype(np.float32), ones, trust, convention)
