"""How AllTracker walks through a clip that is longer than its window.

Source: A. W. Harley et al., "AllTracker: Efficient Dense Point Tracking at High Resolution",
ICCV 2025 (arXiv 2506.07310).
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

Driver = Literal["sliding", "overwrite"]


class Window(NamedTuple):
    """One window of a clip.

    Attributes:
        start: its first frame.
        outputs: the frames of the clip whose result it gives.
    """

    start: int
    outputs: range


class Schedule(NamedTuple):
    """The windows of a clip and what passes from each to the next.

    Attributes:
        windows: in order of time; they cover the clip, and the last one may reach past its end.
        window_len: frames per window.
        stride: frames from one window's start to the next.
        carried: so many frames of the state, from frame `stride` of the window on, start the next
            window; its further frames start from the last of these.
    """

    windows: Sequence[Window]
    window_len: int
    stride: int
    carried: int


def schedule_windows(frames: int, window_len: int, stride: int, driver: Driver) -> Schedule:
    """The windows for a clip of three frames or more.

    A frame's result is that of the first window it lies in ("sliding") or the last ("overwrite").
    With a stride of half a window, both run the same windows.
    """
    starts = [0]
    while starts[-1] + window_len < frames:
        starts.append(starts[-1] + stride)
    if driver == "sliding":
        firsts = [0, *(start + window_len for start in starts[:-1])]
        carried = window_len // 2
    else:
        firsts = starts
        carried = window_len - stride
    outputs = map(range, firsts, [*firsts[1:], frames])
    return Schedule(list(map(Window, starts, outputs)), window_len, stride, carried)


# Two frames are an optical flow: a window of the second frame only, with nothing to carry.
FRAME_PAIR = Schedule([Window(1, range(1, 2))], window_len=1, stride=1, carried=0)


def next_state(state_f: Tensor, schedule: Schedule) -> Tensor:
    """The state `(window_len, ...)` that a window starts with, from the last one's final state."""
    carried = state_f[schedule.stride :][: schedule.carried]
    last = state_f[schedule.stride + schedule.carried - 1]
    return torch.cat((carried, last.expand(schedule.window_len - schedule.carried, *last.shape)))


def time_embedding(frames: int, channels: int) -> Tensor:
    """Sines, then cosines, of a frame's index at rising wavelengths: `(frames, channels)`."""
    half = channels // 2
    wavelengths = 10000.0 ** (torch.arange(half, dtype=torch.float64) / half)
    angles = torch.arange(frames, dtype=torch.float64)[:, None] / wavelengths
    return torch.cat((angles.sin(), angles.cos()), dim=1).float()


def fit_time_embedding(embedding_fc: Tensor, window_len: int) -> Tensor:
    """The embedding for windows of another length than it was made for: `(window_len, channels)`.

    It is stretched linearly. A window of one frame is the second of a pair, so it takes row 1.
    """
    if window_len == len(embedding_fc):
        return embedding_fc
    if window_len == 1:
        return embedding_fc[1:2]
    stretched = F.interpolate(embedding_fc.T[None], window_len, mode="linear", align_corners=False)
    return stretched[0].T
