"""Which frames of a file a clip is, and how they are brought to size.

Trainers differ here (first N frames, resampled to 16 fps, spread over the whole file …), and the same
file is then a different motion. So the sampler is an explicit value, recorded with the run, and part
of every `clip_id`.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np

# Containers round their timestamps, Matroska and WebM to whole milliseconds; both ends of a span are off.
GRACE_S = 1.1e-3


@dataclass(frozen=True)
class FrameSampler:
    """How frames are chosen from a file and resized.

    max_frames: at most so many frames.
    height, width: size in pixels after resizing.
    fps: None takes the file's own frames; a number resamples to that rate by the true timestamps
        (at each instant the frame that a player would show).
    mode: `first` takes the first `max_frames` frames; `spread` takes `max_frames` frames at equal
        distances in time over the whole file.
    fit: `crop` keeps the aspect ratio and cuts the middle out; `stretch` does not keep it.
    length_step, length_offset: the frame counts that the model's VAE takes, offset + k·step; what a
        clip has beyond the largest such count is left out, as the VAE would drop it (Wan: 4k + 1).
    """

    max_frames: int
    height: int
    width: int
    fps: float | None = None
    mode: Literal["first", "spread"] = "first"
    fit: Literal["crop", "stretch"] = "crop"
    length_step: int = 1
    length_offset: int = 1

    def fingerprint(self) -> str:
        """A text that is equal for equal samplers."""
        # 16 and 16.0 are equal rates but different JSON.
        rate = None if self.fps is None else float(self.fps)
        return json.dumps({**asdict(self), "fps": rate}, sort_keys=True)

    def in_words(self) -> str:
        """As a sentence's part, for people."""
        which = "the first" if self.mode == "first" else "over the whole file,"
        rate = "the file's own rate" if self.fps is None else f"{self.fps:g} per second"
        lengths = "" if self.length_step == 1 else f" ({self.length_step}k + {self.length_offset})"
        fit = "cropped" if self.fit == "crop" else "stretched"
        return (
            f"{which} {self.max_frames} frames at most{lengths}, at {rate}, "
            f"{fit} to {self.height} × {self.width}"
        )

    def usable_length(self, frames: int) -> int:
        """The longest clip of at most `frames` frames that the VAE takes, or 0 if there is none."""
        if frames < self.length_offset:
            return 0
        return frames - (frames - self.length_offset) % self.length_step

    def choose(self, times_s: np.ndarray) -> np.ndarray:
        """Indices of the frames to take from a file whose frames appear at `times_s` seconds.

        times_s: ascending presentation times of all frames, `(n,)`.
        Returns at most `max_frames` indices, ascending; a frame that is shown for long may repeat.
        """
        times_s = times_s - times_s[0]
        if self.mode == "spread":
            wanted = min(self.max_frames, self._available(times_s))
            instants = np.linspace(0.0, times_s[-1], self.usable_length(wanted))
        elif self.fps is not None:
            count = self.usable_length(min(self.max_frames, self._available(times_s)))
            instants = np.arange(count) / self.fps
        else:
            return np.arange(self.usable_length(min(self.max_frames, len(times_s))))
        # The frame on screen at an instant is the last one that has begun.
        shown = np.searchsorted(times_s, instants + GRACE_S, side="right") - 1
        return np.clip(shown, 0, len(times_s) - 1)

    def _available(self, times_s: np.ndarray) -> int:
        if self.fps is None:
            return len(times_s)
        return int(np.floor((times_s[-1] + GRACE_S) * self.fps)) + 1

    def enough(self, times_s: list[float]) -> bool:
        """Whether the frames decoded so far settle the choice, so that decoding can stop."""
        if self.mode == "spread" or not times_s:
            return False
        if self.fps is None:
            return len(times_s) >= self.max_frames
        return times_s[-1] - times_s[0] >= self.max_frames / self.fps


def clip_id(content_digest: str, sampler: FrameSampler) -> str:
    """The identity of a clip: its file's content and its sampler, never its path; 20 hex digits."""
    text = content_digest + "\n" + sampler.fingerprint()
    return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()
