"""Heat over time: a curve over the pixel frames, and the interval where it is highest."""

from collections.abc import Sequence

import numpy as np


def curve_over_frames(heat_fhw: np.ndarray, frame_map: Sequence[range], frames: int) -> np.ndarray:
    """The heat of each pixel frame, float64 `(frames,)`; its sum is the sum of the map.

    A latent frame's heat is shared evenly by the pixel frames it covers. Frames that the model's encoder
    drops have none.
    """
    curve = np.zeros(frames)
    for covered, heat in zip(frame_map, heat_fhw.sum((1, 2), dtype=np.float64), strict=True):
        curve[covered.start : covered.stop] += heat / len(covered)
    return curve


def best_interval(curve: np.ndarray) -> tuple[int, int]:
    """First frame and the frame after the last of the interval that stands out most, half open.

    The interval whose sum exceeds by most what as many frames of the clip have on average; the earliest
    and shortest of equals. A flat curve gives the whole clip.
    """
    above = curve - curve.mean()
    if not (above > 1e-12 * np.abs(curve).max(initial=0)).any():
        return 0, len(curve)
    sums = np.concatenate([[0.0], np.cumsum(above)])
    lowest = np.minimum.accumulate(sums[:-1])
    stop = int(np.argmax(sums[1:] - lowest)) + 1
    # The last of the lowest places before it, which is the shortest interval.
    start = int(np.flatnonzero(sums[:stop] == lowest[stop - 1])[-1])
    return start, stop
