"""Dense inverse search flow (Kroeger et al., ECCV 2016) from OpenCV: the tracker without weights.

A moving camera costs DIS accuracy everywhere, and surfaces without texture take on the motion of what is
beside them. So the flow of a pair of frames is found in two passes, and only believed where the pictures
ask for it:

1. From the first flow cameras are fitted: to all of it, and to what has texture. If one explains what
   standing still does not, in places all over the frame, the frame before is warped by the best of them,
   so that the still world lines up, and the flow is searched again between the aligned frames. The
   displacement is the camera and the residual flow, composed exactly.
2. A pixel whose surroundings the camera alone explains as well as the flow does moves with the camera
   (with a camera that stands still: not at all).
"""

from collections.abc import Iterator

import cv2
import numpy as np

from motive.motion.camera import apply_map, fit_pair
from motive.motion.field import MotionField, lengths
from motive.motion.flow import agreement, in_sight, pixel_grid, sample

MIN_SIDE = 32  # pixels; DIS has no scale left to search below about this
# A motion explains a place better than another when it leaves less than 1/GAIN of the squared difference,
# beyond what coding, sensor and rounding change without any motion (in grey levels of 255). The camera is
# asked for by many places together, so each may say less.
GAIN, NOISE, CAMERA_NOISE = 1.5, 2.0, 1.0
REACH = 2.0  # pixels; standard deviation of the window in which pictures are compared
# Share of the frame that must speak for a camera, with its square at most against, for little evidence has
# to be clean; a clear share for what most of the frame does has only to be more than what is against.
# And it must lie apart, in standard deviations of places as a share of the whole frame's: a moving object
# is in one spot, what stands still is all over the frame.
MIN_EVIDENCE, CLEAR, MIN_SPREAD = 0.05, 0.25, 0.7
TEXTURE = 4.0  # smaller eigenvalue of the gradients' covariance that counts half (cv2's scale, 4 grey²/px²)
APART = 1.0  # pixels; from where on a place does not move with a camera


class DisTracker:
    """Frame-to-frame DIS flow with a confidence from the forward-backward check.

    Convention `from_previous`: the flow from each frame back to the one before, negated. Confidence
    (`motive.motion.flow.agreement`) is that of the flow between the aligned frames; visibility is 1
    where the place that a pixel comes from lies in the frame.
    """

    def __init__(self) -> None:
        # The medium preset with its finest scale at full resolution: objects of a few pixels count.
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self._flow.setFinestScale(0)

    def __reduce__(self) -> tuple[type["DisTracker"], tuple[()]]:
        return (
            DisTracker,
            (),
        )  # OpenCV's object cannot go to another process, and has nothing to tell

    @property
    def device_name(self) -> str:
        """None: it is no network."""
        return ""

    def fingerprint(self) -> str:
        return (
            "dis preset=medium finest_scale=0 passes=2 "
            f"evidence={GAIN:g},{NOISE:g},{CAMERA_NOISE:g},{REACH:g} "
            f"camera={MIN_EVIDENCE:g},{CLEAR:g},{MIN_SPREAD:g},{TEXTURE:g},{APART:g} "
            f"opencv={cv2.__version__}"
        )

    def track(self, frames_fhw3: np.ndarray) -> MotionField:
        """Flow of `(frames, height, width, 3)` RGB uint8."""
        frames, height, width = frames_fhw3.shape[:3]
        displacement = np.zeros((frames, height, width, 2), np.float32)
        visibility = np.ones((frames, height, width), np.float32)
        confidence = np.ones((frames, height, width), np.float32)
        grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames_fhw3]
        pairs = list(zip(range(1, frames), grey[1:], grey, strict=False))
        # Pass by pass, not pair by pair: the cameras' fits find their own code in the processor's cache.
        for f, now, before in pairs:
            displacement[f], confidence[f] = self._search(now, before)
        for f, now, before in pairs:
            back, confidence[f] = self._settle(now, before, displacement[f], confidence[f])
            visibility[f] = in_sight(back)
            np.negative(back, out=displacement[f])
        return MotionField(displacement, visibility, confidence, "from_previous")

    def close(self) -> None:
        """There is nothing to let go of."""

    def _settle(
        self,
        now_hw: np.ndarray,
        before_hw: np.ndarray,
        residual: np.ndarray,
        confidence: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Where each pixel came from, relative to itself, and the confidence in it.

        residual, confidence: of the first search; the residual is overwritten.
        """
        # Late, since it loads numba, which those who only name the tracker need not wait for.
        from motive.motion.flow_kernel import drop_unless_better

        grid = pixel_grid(*now_hw.shape)
        trust = confidence * in_sight(residual)
        camera, before_hw, unexplained = _aligned(now_hw, before_hw, residual, trust)
        if camera is not None:
            residual[:], confidence = self._search(now_hw, before_hw)
        explained = _difference(now_hw, sample(before_hw, grid + residual))
        drop_unless_better(residual, explained, unexplained, np.float32(GAIN), np.float32(NOISE**2))
        if camera is None:
            return residual, confidence
        back = apply_map(camera, grid + residual)
        back -= grid
        return back, confidence

    def _search(self, now_hw: np.ndarray, before_hw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """DIS flow from `now` to `before`, with its confidence."""
        height, width = now_hw.shape
        now, before = _enlarged(now_hw), _enlarged(before_hw)
        # A fresh search each time: DIS would start from the last flow, and a clip's motion would depend
        # on the clip before it.
        back = self._flow.calc(now, before, None)[:height, :width]
        forth = self._flow.calc(before, now, None)[:height, :width]
        return back, agreement(back, forth)


def _aligned(
    now_hw: np.ndarray, before_hw: np.ndarray, moves_hw2: np.ndarray, trust_hw: np.ndarray
) -> tuple[np.ndarray | None, np.ndarray, np.ndarray]:
    """The camera for which most speaks, the frame before as it would be without, and what is different then.

    The camera is None, and the frame as it was, when nothing speaks for one.
    """
    still = _difference(now_hw, before_hw)
    best: tuple[np.ndarray | None, np.ndarray, np.ndarray] = (None, before_hw, still)
    if np.count_nonzero(still > CAMERA_NOISE**2) / still.size < MIN_EVIDENCE:
        return best  # too little changes for any camera to be asked for
    most = 0.0
    for camera, of_most in _cameras(now_hw, moves_hw2, trust_hw):
        moved = sample(before_hw, apply_map(camera, pixel_grid(*now_hw.shape)))
        left = _difference(now_hw, moved)
        evidence = _evidence(left, still, of_most)
        if evidence > most:
            best = camera, moved, left
            most = evidence
        if most >= CLEAR:
            break  # no other can be so much better as to be worth the time
    return best


def _cameras(
    now_hw: np.ndarray, moves_hw2: np.ndarray, trust_hw: np.ndarray
) -> Iterator[tuple[np.ndarray, bool]]:
    """Maps that may be the camera's, the likeliest first, and whether it is what most of the frame does.

    What most of the frame does; what most of its texture does (weighed as by Shi and Tomasi, 1994), since
    flow over a plain surface is made up; and what most of the texture does that this leaves: before a
    plain wall an object has more texture than the few spots on it that show the camera.
    """
    grid = pixel_grid(*now_hw.shape)
    first = fit_pair(moves_hw2, trust_hw)
    if first is not None:
        yield first, True
    corners = cv2.cornerMinEigenVal(now_hw.astype(np.float32), 5)
    trust_hw = trust_hw * (corners / (corners + TEXTURE))
    for _ in range(2):
        if not trust_hw.any():
            return
        camera = fit_pair(moves_hw2, trust_hw / trust_hw.mean())
        if camera is None:
            return
        yield camera, False
        trust_hw = trust_hw * (lengths(apply_map(camera, grid) - grid - moves_hw2) > APART)


def _evidence(left_hw: np.ndarray, unexplained_hw: np.ndarray, of_most: bool) -> float:
    """Share of the frame that speaks for a camera, less what speaks against it; 0 is not enough."""
    from motive.motion.flow_kernel import compare

    gain, noise = np.float32(GAIN), np.float32(CAMERA_NOISE**2)
    rows, columns, against = compare(left_hw, unexplained_hw, gain, noise)
    yes, no = rows.sum() / left_hw.size, against / left_hw.size
    if yes < MIN_EVIDENCE or no > (yes if of_most and yes >= CLEAR else yes**2):
        return 0.0
    # Over the whole frame places would spread by side / sqrt(12).
    spread = np.sqrt(_variance(rows) + _variance(columns))
    whole = np.hypot(*left_hw.shape) / np.sqrt(12)
    return float(yes - no) if spread >= MIN_SPREAD * whole else 0.0


def _variance(counts: np.ndarray) -> float:
    """Of the places 0, 1, …, each counted so often."""
    places = np.arange(len(counts)) - counts @ np.arange(len(counts)) / counts.sum()
    return float(counts @ places**2 / counts.sum())


def _difference(one_hw: np.ndarray, other_hw: np.ndarray) -> np.ndarray:
    """The mean squared difference of two pictures around each pixel, in grey levels²."""
    apart = cv2.absdiff(one_hw, other_hw)
    squared = cv2.multiply(apart, apart, dtype=cv2.CV_32F)  # exactly: of whole numbers
    return cv2.GaussianBlur(squared, (0, 0), REACH, borderType=cv2.BORDER_REPLICATE)


def _enlarged(grey_hw: np.ndarray) -> np.ndarray:
    height, width = grey_hw.shape
    # Padding with the edge leaves the flow inside as it is, and gives tiny frames a scale to search.
    extra_h, extra_w = max(0, MIN_SIDE - height), max(0, MIN_SIDE - width)
    return cv2.copyMakeBorder(grey_hw, 0, extra_h, 0, extra_w, cv2.BORDER_REPLICATE)
