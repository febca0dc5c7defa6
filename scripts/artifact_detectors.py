"""Does a video show one of the zoo's artifacts? Plain measures of light and place, apart from any gradient.

Every measure is a number that is large where the artifact is. A video shows the artifact when the number is
above a threshold, and thresholds are fixed on rendered clips of known truth that went through the model's
VAE, so that they are as blurred as anything that the model can make; other such clips give the error rates.

- flicker: the light of the whole frame goes up and down: the smaller of the largest rise and the largest
  fall within two frames, in natural logarithms.
- teleport: the object's leap within two frames beyond what its speed before or after explains, in pixels,
  provided the light object is there on both sides.
- frozen_middle: how much less changes in the middle than before and after, as a natural logarithm; 0
  where nothing moves at either end.
- reversed_gravity: the object rises faster and faster: how much more it rises in the last third than in the
  first, but no more than it rises in all, in pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import numpy as np

from motive.backbones.source import find_model
from motive.zoo.artifacts import ARTIFACTS, GROUP, HOSTS

_LIGHTER = 0.12  # than the frame's median: an object of the zoo, dimmed or not
_SMALLEST = 0.01  # of the frame
_MOVES = 0.004  # mean change of luminance from frame to frame; less is no motion worth the name
_STILL = 0.002  # added to changes, so that a picture repeated exactly has a finite ratio


@dataclass(frozen=True)
class _Seen:
    """luma_fhw: 0..1, slightly blurred. centre_f2: of the light object, x before y, in pixels.

    there_f: whether there is one.
    """

    luma_fhw: np.ndarray
    centre_f2: np.ndarray
    there_f: np.ndarray


def _look(frames_fhw3: np.ndarray) -> _Seen:
    grey = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames_fhw3]
    luma = np.stack([cv2.GaussianBlur(frame / 255.0, (0, 0), 1.0) for frame in grey])
    middle = np.median(luma, axis=(1, 2), keepdims=True)
    # In units of the scene's own light, which a flicker changes for object and background alike.
    weight = np.clip(luma / np.maximum(middle, 0.05) - 1 - _LIGHTER / 0.38, 0, None)
    mass = weight.sum((1, 2))
    y, x = np.mgrid[: luma.shape[1], : luma.shape[2]]
    centre = np.stack([(weight * axis).sum((1, 2)) / np.maximum(mass, 1e-6) for axis in (x, y)], 1)
    there = (weight > 0).mean((1, 2)) >= _SMALLEST
    return _Seen(luma, centre, there)


def _flicker(seen: _Seen) -> float:
    light = np.log(np.maximum(seen.luma_fhw.mean((1, 2)), 1e-3))
    change = light[2:] - light[:-2]
    return float(max(0.0, min(change.max(), -change.min())))


def _teleport(seen: _Seen) -> float:
    centre, there, best = seen.centre_f2, seen.there_f, 0.0
    step = np.linalg.norm(np.diff(centre, axis=0), axis=1)
    for f in range(2, len(centre) - 4):
        if not there[f - 2 : f + 5].all():
            continue
        speed = max(np.median(step[f - 2 : f]), np.median(step[f + 2 : f + 4]))
        leap = float(np.linalg.norm(centre[f + 2] - centre[f]))
        best = max(best, leap - 2 * float(speed))
    return best


def _frozen_middle(seen: _Seen) -> float:
    change = np.abs(np.diff(seen.luma_fhw, axis=0)).mean((1, 2))
    first = 1 + GROUP * (len(change) // GROUP // 2 - 1)
    # Change number f is from frame f to the next; the group's last frame is the last that stands still.
    inside, before, after = (
        change[first : first + 2 * GROUP - 1],
        change[: first - 1],
        change[first + 2 * GROUP :],
    )
    around = min(before.mean(), after.mean())
    if around < _MOVES:
        return 0.0
    return float(max(0.0, np.log((around + _STILL) / (np.median(inside) + _STILL))))


def _reversed_gravity(seen: _Seen) -> float:
    if seen.there_f.mean() < 0.8:
        return 0.0
    height = -seen.centre_f2[seen.there_f, 1]
    third = len(height) // 3
    first, last = height[third] - height[0], height[-1] - height[-1 - third]
    return float(max(0.0, min(last - first, height[-1] - height[0])))


_MEASURES: dict[str, Callable[[_Seen], float]] = {
    "teleport": _teleport,
    "flicker": _flicker,
    "reversed_gravity": _reversed_gravity,
    "frozen_middle": _frozen_middle,
}


def measures(frames_fhw3: np.ndarray) -> dict[str, float]:
    """Every measure of a video `(F, H, W, 3)` uint8, by artifact."""
    seen = _look(frames_fhw3)
    return {name: measure(seen) for name, measure in _MEASURES.items()}


@dataclass(frozen=True)
class Detectors:
    """A threshold for each artifact's measure.

    errors: of each artifact, on clips that had no part in the thresholds: the share of faulty clips that
        is missed, the share of good clips of its host motion and that of all good clips in which it is
        seen.
    """

    thresholds: dict[str, float]
    errors: dict[str, dict[str, float]]

    def sees(self, artifact: str, found: dict[str, float]) -> bool:
        """Whether a video with these `measures` shows the artifact.

        A clip that stood still in its middle has to catch up: that leap is no teleport.
        """
        if artifact == "teleport" and self.sees("frozen_middle", found):
            return False
        return found[artifact] > self.thresholds[artifact]


Labelled = Sequence[tuple[str, str, dict[str, float]]]  # artifact or "", motion, measures


def fix_detectors(calibration: Labelled, test: Labelled) -> Detectors:
    """Thresholds in the middle between the good clips' 99% and the faulty clips' 10% quantile."""
    thresholds = {}
    for artifact in ARTIFACTS:
        good = [found[artifact] for fault, _, found in calibration if not fault]
        bad = [found[artifact] for fault, _, found in calibration if fault == artifact]
        thresholds[artifact] = float(np.quantile(good, 0.99) + np.quantile(bad, 0.10)) / 2
    bare = Detectors(thresholds, {})
    return Detectors(
        thresholds, {artifact: _errors(bare, artifact, test) for artifact in ARTIFACTS}
    )


def _errors(detectors: Detectors, artifact: str, test: Labelled) -> dict[str, float]:
    def share(wanted: Callable[[str, str], bool]) -> float:
        return float(
            np.mean(
                [detectors.sees(artifact, found) for f, motion, found in test if wanted(f, motion)]
            )
        )

    host = HOSTS[artifact]
    return {
        "missed": 1 - share(lambda fault, _: fault == artifact),
        "false_in_host": share(lambda fault, motion: not fault and motion == host),
        "false_in_all": share(lambda fault, _: not fault),
    }


def through_vae(frames_fhw3: np.ndarray) -> np.ndarray:
    """The clip encoded and decoded by tiny-wan's VAE, uint8."""
    import torch

    pixels = torch.from_numpy(frames_fhw3).float().permute(3, 0, 1, 2)[None] / 127.5 - 1
    with torch.inference_mode():
        vae = _vae()
        decoded = vae.decode(vae.encode(pixels).latent_dist.mode()).sample[0]
    bytes_cfhw = ((decoded.clamp(-1, 1) + 1) * 127.5).round().byte()
    return np.ascontiguousarray(bytes_cfhw.permute(1, 2, 3, 0).numpy())


@cache
def _vae() -> Any:
    from diffusers import AutoencoderKLWan

    return AutoencoderKLWan.from_pretrained(find_model("tiny-wan").path, subfolder="vae").eval()
