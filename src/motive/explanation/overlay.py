"""A clip with its heat map over it, as a video to look at."""

from pathlib import Path

import numpy as np

from motive.clips.ingest import decode_unchanged
from motive.clips.sampling import FrameSampler
from motive.errors import ClipError, UserError
from motive.explanation.explanation import Explanation
from motive.generation.video_file import write_video
from motive.runs.members import Member

# What pulls towards the query's motion and what pulls away from it, as RGB; told apart in any vision.
TOWARDS, AWAY = (255, 140, 0), (30, 110, 255)
SMALLEST = 256  # pixels of the shorter side: a small clip is enlarged, not its heat


def write_overlay(explanation: Explanation, clip: Member, sampler: FrameSampler, out: Path) -> None:
    """`out`, an mp4 of the clip's frames with the heat over them; the best interval has a bar below.

    Orange adds to the influence, blue takes away from it; the strongest place of the clip is opaque to
    three quarters.

    Raises UserError when the clip is no longer what was explained, or cannot be decoded.
    """
    try:
        frames_fhw3 = decode_unchanged(clip.file, Path(clip.path), sampler).frames_fhw3
    except ClipError as error:
        raise UserError(f"{clip.file_name} cannot be shown: {error}") from None
    height, width = frames_fhw3.shape[1:3]
    enlarged = max(1, -(-SMALLEST // min(height, width)))
    shape = tuple(2 * (side * enlarged // 2) for side in (height, width))
    strongest = float(np.abs(explanation.heat_fhw).max()) or 1.0
    pictures = []
    first, after = explanation.best_interval
    for index, picture in enumerate(frames_fhw3):
        heat_hw = _heat_of_frame(explanation, index) / strongest
        seen = _blend(_resized(picture, shape), _resized(heat_hw, shape))
        bar = slice(seen.shape[0] - max(2, shape[0] // 50), None)
        if first <= index < after:
            seen[bar] = TOWARDS
        pictures.append(seen)
    write_video(out, np.stack(pictures), explanation.fps or 1.0)  # a single frame has no rate


def _heat_of_frame(explanation: Explanation, index: int) -> np.ndarray:
    for latent, (first, after) in enumerate(explanation.frame_map):
        if first <= index < after:
            return explanation.heat_fhw[latent]
    return np.zeros_like(explanation.heat_fhw[0])


def _resized(image: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    import cv2

    return cv2.resize(image, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)


def _blend(picture_hw3: np.ndarray, heat_hw: np.ndarray) -> np.ndarray:
    opacity = 0.75 * np.sqrt(np.abs(heat_hw))[..., None]
    colour = np.where((heat_hw > 0)[..., None], TOWARDS, AWAY)
    return np.round((1 - opacity) * picture_hw3 + opacity * colour).astype(np.uint8)
