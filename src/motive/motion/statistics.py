"""What a person wants to know of a clip's motion, in a few numbers."""

from dataclasses import dataclass

import numpy as np

from motive.motion.camera import CameraMotion, explained_share
from motive.motion.field import MotionField, jerk_lengths, lengths

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
    whole = field.magnitude_fhw()
    speed = whole[1:] if field.convention == "from_previous" else lengths(velocity)
    own, own_speed = (whole, speed) if camera is None else _left_by(camera, field)
    trust = field.visibility_fhw * field.confidence_fhw
    jerks = jerk_lengths(velocity)
    return MotionStatistics(
        mean_speed=float(speed.mean()),
        # Sorted first, since that takes a fraction of the time that the percentile's own search does.
        p95_speed=float(np.percentile(np.sort(speed, axis=None), 95, overwrite_input=True)),
        object_speed=float(own_speed.mean()),
        camera_share=explained_share(whole, own, trust),
        moving_share=float((speed > MOVING).mean()),
        jerk=float(jerks.mean()) if jerks.size else 0.0,
        confident_share=float((trust[1:] >= CONFIDENT).mean()),
    )


def _left_by(camera: CameraMotion, field: MotionField) -> tuple[np.ndarray, np.ndarray]:
    """The lengths of what the camera leaves, `(F, H, W)`, and of its velocity but in the first frame."""
    own = np.empty(field.visibility_fhw.shape, field.displacement_fhw2.dtype)
    speed = own[1:] if field.convention == "from_previous" else np.empty_like(own[1:])
    before: np.ndarray | None = None
    for f, (_, left_hw2) in enumerate(camera.split(field)):
        own[f] = lengths(left_hw2)
        if field.convention == "from_first" and before is not None:
            speed[f - 1] = lengths(left_hw2 - before)
        before = left_hw2
    return own, speed
