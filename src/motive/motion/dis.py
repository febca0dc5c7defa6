"""Dense inverse search flow (Kroeger et al., ECCV 2016) from OpenCV: the tracker without weights."""

import cv2
import numpy as np

from motive.motion.field import MotionField

MIN_SIDE = 32  # pixels; DIS has no scale left to search below about this


class DisTracker:
    """Frame-to-frame DIS flow with a confidence from the forward-backward check.

    The flow from each frame back to the one before, negated, says how far each pixel has come.
    Confidence is exp(-(e/s)²) with e the forward-backward error and the scale
    s = 0.5 px + 0.1 · (length of both flows), so that 0.5 px of error is a lot for a still pixel and
    little for a fast one. Visibility is 1 where the place that a pixel comes from lies in the frame.
    """

    def __init__(self) -> None:
        # The medium preset with its finest scale at full resolution: objects of a few pixels count.
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self._flow.setFinestScale(0)

    def fingerprint(self) -> str:
        return f"dis preset=medium finest_scale=0 opencv={cv2.__version__.split('.')[0]}"

    def track(self, frames_fhw3: np.ndarray) -> MotionField:
        """Flow of `(frames, height, width, 3)` RGB uint8 by the convention `from_previous`."""
        frames, height, width = frames_fhw3.shape[:3]
        displacement = np.zeros((frames, height, width, 2), np.float32)
        visibility = np.ones((frames, height, width), np.float32)
        confidence = np.ones((frames, height, width), np.float32)
        grid = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(np.float32)
        grey = [_grey(frame) for frame in frames_fhw3]
        for f in range(1, frames):
            # A fresh search each time: DIS would start from the last flow, and a clip's motion
            # would depend on the clip before it.
            back = self._flow.calc(grey[f], grey[f - 1], None)[:height, :width]
            forth = self._flow.calc(grey[f - 1], grey[f], None)[:height, :width]
            origin = grid + back
            there = cv2.remap(
                forth, origin, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
            )
            error = np.linalg.norm(back + there, axis=-1)
            length = np.linalg.norm(back, axis=-1) + np.linalg.norm(there, axis=-1)
            displacement[f] = -back
            confidence[f] = np.exp(-((error / (0.5 + 0.1 * length)) ** 2))
            visibility[f] = ((origin >= 0) & (origin <= (width - 1, height - 1))).all(-1)
        return MotionField(displacement, visibility, confidence, "from_previous")

    def close(self) -> None:
        """There is nothing to let go of."""


def _grey(frame_hw3: np.ndarray) -> np.ndarray:
    grey = cv2.cvtColor(frame_hw3, cv2.COLOR_RGB2GRAY)
    height, width = grey.shape
    # Padding with the edge leaves the flow inside as it is, and gives tiny frames a scale to search.
    extra_h, extra_w = max(0, MIN_SIDE - height), max(0, MIN_SIDE - width)
    return cv2.copyMakeBorder(grey, 0, extra_h, 0, extra_w, cv2.BORDER_REPLICATE)
