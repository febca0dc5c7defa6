"""What a person wants to know of a clip's motion, in a few numbers."""

from dataclasses import dataclass

import numpy as np

from motive.motion.camera import CameraMotion, camera_share
from motive.motion.field import MotionField, lengths

MOVING = 0.5  # pixels per frame from which a pixel counts as moving
CONFIDENT = 0.6  # visibility × confidence from which a pixel counts as seen


@dataclass(frozen=True)
class MotionStatistics:
    """Over all pixels and all frames but the first; pixels are those of the sampled, resized clip.

    mean_speed, p95_speed: of all motion, in pixels per frame.
    object_speed: mean speed of what the camera leaves, in pixels per frame.
    camera_share: share of the squared displacement that the camera explains, 0..1
        (`camera.camera_share`).
    moving_share: share of pixels that move by more than 0.5 pixels per frame, camera included, 0..1.
    jerk: mean length of v(f+1) − 2 v(f) + v(f−1), in pixels per frame³, with v the velocity of all
        motion: along the tracks for the convention `from_first`, at a fixed place for
        `from_previous`, where an object that passes by adds to it. 0 with fewer than four frames.
    confident_share: share of pixels with visibility × confidence of at least 0.6, 0..1.
    """

    mean_speed: float
    p95_speed: float
    object_speed: float
    camera_share: float
    moving_share: float
    jerk: float
    confident_share: float


def describe_field(field: MotionField, camera: CameraMotion | None = None) -> MotionStatistics:
    """The statistics of a clip; a clip of one frame has none of motion and is confident.

    camera: None is a camera that stands still.
    """
    velocity = field.velocity_fhw2()[1:]
    if velocity.size == 0:
        return MotionStatistics(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)
    speed = lengths(velocity)
    jerks = lengths(np.diff(velocity, n=2, axis=0))
    trust = (field.visibility_fhw * field.confidence_fhw)[1:]
    residual = field if camera is None else camera.residual(field)
    return MotionStatistics(
        mean_speed=float(speed.mean()),
        p95_speed=float(np.percentile(speed, 95)),
        object_speed=float(residual.speed_fhw()[1:].mean()),
        camera_share=camera_share(field, residual),
        moving_share=float((speed > MOVING).mean()),
        jerk=float(jerks.mean()) if jerks.size else 0.0,
        confident_share=float((trust >= CONFIDENT).mean()),
    )
