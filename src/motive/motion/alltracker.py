"""AllTracker: tracks every pixel of one frame through a clip.

Written anew: it loads the published checkpoints and gives the original's numbers, but never holds
a correlation volume, and holds a long clip one window at a time.

Source: A. W. Harley et al., "AllTracker: Efficient Dense Point Tracking at High Resolution",
ICCV 2025 (arXiv 2506.07310); the original is MIT, (c) 2025 Adam W. Harley.
"""

from pathlib import Path
from typing import NamedTuple, Self, get_args

import torch
from torch import Tensor, nn

from motive.errors import ClipError, UserError
from motive.motion import alltracker_checkpoint as checkpoint
from motive.motion.alltracker_blocks import PointwiseConv
from motive.motion.alltracker_correlation import CorrelationLookup, Pyramid, feature_pyramids
from motive.motion.alltracker_encoder import (
    STRIDE,
    ConvNeXtTrunk,
    Padding,
    ResidualEncoder,
    normalize_images,
)
from motive.motion.alltracker_update import CHANNELS, Context, UpdateBlock, convex_upsample
from motive.motion.alltracker_windows import (
    FRAME_PAIR,
    Driver,
    Schedule,
    fit_time_embedding,
    next_state,
    schedule_windows,
    time_embedding,
)

WINDOW_LEN = 16
# The coarsest correlation level is empty for a side of 64, to which all shorter ones are padded.
MIN_SIDE = 65


class DenseTracks(NamedTuple):
    """Where the pixels of the query frame are in each frame of the clip.

    Attributes:
        flow: `(B, T, 2, H, W)`, float32: displacement (x, y) in pixels from the query frame.
        visconf: `(B, T, 2, H, W)`, float32, 0..1: the probabilities that the point is visible, and
            that the flow is right (in training: within 12 pixels).
    """

    flow: Tensor
    visconf: Tensor


class _Query(NamedTuple):
    """What the windows of a clip need of its query frame."""

    lookup: CorrelationLookup
    features_chw: Tensor
    context: Context


class AllTracker(nn.Module):
    """The AllTracker network; `from_checkpoint` makes one with trained weights.

    Args:
        variant: "full" (16.5 M parameters) or "tiny" (6.3 M).

    Attributes:
        chunk_cells: how many cells (8 x 8 pixels of one frame) are worked on at a time. Speed and
            memory depend on it, results do not (but for rounding). The default fits the caches of
            a CPU.
    """

    time_emb: Tensor

    def __init__(self, variant: checkpoint.Variant = "full") -> None:
        super().__init__()
        if variant not in get_args(checkpoint.Variant):
            raise UserError(f'AllTracker has the variants "full" and "tiny", not "{variant}".')
        self.variant = variant
        self.chunk_cells = 4096
        self.register_buffer("time_emb", time_embedding(WINDOW_LEN, CHANNELS)[None])
        if variant == "full":
            self.cnn = ConvNeXtTrunk()
            self.dot_conv = PointwiseConv(384, 2 * CHANNELS)
        else:
            self.fnet = ResidualEncoder()
        self.update_block = UpdateBlock()
        self.flow_head = _head(nn.Conv2d(256, 2, 3, padding=1))
        self.visconf_head = _head(nn.Conv2d(256, 2, 3, padding=1))
        self.upsample_weight = _head(PointwiseConv(256, 9 * STRIDE**2))

    @classmethod
    def from_checkpoint(
        cls, path_or_hub_id: str | Path, variant: checkpoint.Variant | None = None
    ) -> Self:
        """The network with trained weights, in evaluation mode.

        Args:
            path_or_hub_id: a `.pth` or `.safetensors` file, or the hub id `aharley/alltracker`.
            variant: "full" or "tiny". None takes what the file holds; of the hub's, the full one.

        Raises:
            UserError: the file is not there or damaged, the hub does not give it, or it does not
                hold exactly the weights of this variant.
        """
        path = checkpoint.find_checkpoint(path_or_hub_id, variant)
        weights = checkpoint.read_state_dict(path)
        model = cls(variant or checkpoint.infer_variant(weights) or "full")
        checkpoint.check_state_dict(weights, model.state_dict(), model.variant, path)
        model.load_state_dict(weights, strict=True)
        return model.eval()

    @torch.inference_mode()
    def forward(
        self,
        video_btchw: Tensor,
        *,
        driver: Driver = "sliding",
        query_frame: int = 0,
        iters: int = 4,
        window_len: int = WINDOW_LEN,
        stride: int | None = None,
    ) -> DenseTracks:
        """Tracks the pixels of one frame to all others, forwards and backwards in time.

        A clip of one frame gives the identity: flow 0, visibility and confidence 1. So does the
        query frame of a clip of two; in longer clips it is tracked like the others. With a query
        frame inside the clip, the parts from and up to it are tracked as clips of their own; the
        query frame's result is that of the part from it, if this has three frames or more.

        Args:
            video_btchw: `(B, T, 3, H, W)`, RGB in 0..255, float or uint8. It need not be on the
                network's device; only the frames at work are moved there. Frames are taken at the
                size given: a caller that resizes them must scale the flow back, each side by its
                own factor.
            driver: of a frame that lies in several windows, "sliding" gives the first one's result
                and "overwrite" the last one's.
            query_frame: the frame whose pixels are tracked.
            iters: refinements per window.
            window_len: frames per window, an even number; the weights are trained for 16.
            stride: frames from one window to the next; None is half a window.

        Returns:
            Flow and visibility of all T frames, on the video's device.

        Raises:
            ClipError: height or width is 64 pixels or less.
            UserError: the video has another shape or range of values, or another argument is out
                of its range.
        """
        frames = _check_video(video_btchw)
        if driver not in get_args(Driver):
            raise UserError(f'driver is "sliding" or "overwrite", not "{driver}".')
        if not 0 <= query_frame < frames:
            raise UserError(f"query_frame is 0 to {frames - 1} in this clip, not {query_frame}.")
        if iters < 1:
            raise UserError(f"iters is at least 1, not {iters}.")
        if window_len < 2 or window_len % 2:
            raise UserError(f"window_len is an even number of frames, not {window_len}.")
        longest = window_len // 2 if driver == "sliding" else window_len
        step = window_len // 2 if stride is None else stride
        if not 1 <= step <= longest:
            raise UserError(f"stride is 1 to {longest} for this driver and window, not {step}.")

        out = _identity(video_btchw)
        # The part up to the query frame runs in reversed time.
        back, ahead = range(query_frame, -1, -1), range(query_frame, frames)
        for order in (back, ahead):
            if len(order) == 1:
                continue
            if len(order) == 2:
                schedule = FRAME_PAIR
            else:
                schedule = schedule_windows(len(order), window_len, step, driver)
            for clip, *tracks in zip(video_btchw, *out, strict=True):
                self._track(clip, order, schedule, iters, DenseTracks(*tracks))
        return out

    def _track(
        self, clip_tchw: Tensor, order: range, schedule: Schedule, iters: int, out: DenseTracks
    ) -> None:
        """Tracks a clip's pixels from the first to the last frame of `order`, and fills in `out`."""
        padding = Padding.of(*clip_tchw.shape[2:])
        pyramids = self._encode(clip_tchw, [order[0]], padding)
        time_fc = fit_time_embedding(self.time_emb[0], schedule.window_len)
        query = self._query(pyramids[order[0]][0], time_fc)
        _, height, width = query.features_chw.shape
        chunk_frames = self._chunk_frames(height * width)
        state_fhw4 = time_fc.new_zeros((schedule.window_len, height, width, 4), dtype=torch.float32)
        for window in schedule.windows:
            if window.start > schedule.windows[0].start:
                state_fhw4 = next_state(state_fhw4, schedule)
            # A window that reaches past the last frame sees it again and again.
            times = range(window.start, window.start + schedule.window_len)
            seen = [order[min(time, len(order) - 1)] for time in times]
            kept = {frame: pyramids[frame] for frame in seen if frame in pyramids}
            new = [frame for frame in dict.fromkeys(seen) if frame not in kept]
            pyramids = kept | self._encode(clip_tchw, new, padding)
            targets = [pyramids[frame] for frame in seen]
            features_fchw = self._refine(query, targets, state_fhw4, iters)
            for start in range(window.outputs.start, window.outputs.stop, chunk_frames):
                stop = min(start + chunk_frames, window.outputs.stop)
                part = slice(start - window.start, stop - window.start)
                weights_fchw = self.upsample_weight(features_fchw[part])
                pixels_f4hw = padding.crop(convex_upsample(state_fhw4[part], weights_fchw))
                pixels_f4hw = pixels_f4hw.to(out.flow.device)
                frames = list(order[start:stop])
                out.flow[frames] = pixels_f4hw[:, :2]
                out.visconf[frames] = pixels_f4hw[:, 2:].sigmoid()

    def _chunk_frames(self, cells: int) -> int:
        return max(1, self.chunk_cells // cells)

    def _encode(self, clip_tchw: Tensor, frames: list[int], padding: Padding) -> dict[int, Pyramid]:
        """The feature pyramids of some frames of a clip, by their index."""
        weight = self.update_block.compressor.weight
        pyramids: dict[int, Pyramid] = {}
        chunk_frames = self._chunk_frames(padding.area // STRIDE**2)
        for start in range(0, len(frames), chunk_frames):
            chunk = frames[start : start + chunk_frames]
            images_fchw = padding.pad(normalize_images(clip_tchw[chunk].to(weight.device)))
            images_fchw = images_fchw.to(weight.dtype, memory_format=torch.channels_last)
            if self.variant == "full":
                features_fchw = self.dot_conv(self.cnn(images_fchw))
            else:
                features_fchw = self.fnet(images_fchw)
            pyramids.update(zip(chunk, feature_pyramids(features_fchw), strict=True))
        return pyramids

    def _query(self, features_hwc: Tensor, time_fc: Tensor) -> _Query:
        features_chw = features_hwc.permute(2, 0, 1)
        weights_chw = features_chw.to(self.update_block.compressor.weight.dtype)
        # The full variant's channels are flow features, then context; the tiny one's are both.
        return _Query(
            lookup=CorrelationLookup(features_chw),
            features_chw=weights_chw[:CHANNELS],
            context=self.update_block.context(weights_chw[-CHANNELS:], time_fc),
        )

    def _refine(
        self, query: _Query, targets: list[Pyramid], state_fhw4: Tensor, iters: int
    ) -> Tensor:
        """Refines a window's state in place, and returns the flow features `(f, 128, h, w)`."""
        frames, height, width, _ = state_fhw4.shape
        chunk_frames = self._chunk_frames(height * width)
        features_fchw = query.features_chw.expand(frames, -1, -1, -1)
        for _ in range(iters):
            features_fchw = self.update_block(
                features_fchw, state_fhw4, query.context, query.lookup, targets, chunk_frames
            )
            for state, features in zip(
                state_fhw4.split(chunk_frames), features_fchw.split(chunk_frames), strict=True
            ):
                state[..., :2] += self.flow_head(features).permute(0, 2, 3, 1)
                state[..., 2:] += self.visconf_head(features).permute(0, 2, 3, 1)
        return features_fchw


def _head(last: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(CHANNELS, 256, 3, padding=1), nn.ReLU(inplace=True), last)


def _check_video(video_btchw: Tensor) -> int:
    """The number of frames of a video that the network can take."""
    if video_btchw.ndim != 5 or video_btchw.shape[2] != 3 or 0 in video_btchw.shape:
        raise UserError(
            f"AllTracker takes videos of shape (B, T, 3, H, W), not {tuple(video_btchw.shape)}."
        )
    height, width = video_btchw.shape[3:]
    if min(height, width) < MIN_SIDE:
        raise ClipError(
            f"frames of {width} x {height} pixels are too small for AllTracker, which needs at "
            f"least {MIN_SIDE} a side"
        )
    lowest, highest = video_btchw.aminmax()
    if not (lowest >= 0 and highest <= 255):
        raise UserError(
            f"AllTracker takes pixel values of 0 to 255, not {lowest:g} to {highest:g}."
        )
    return video_btchw.shape[1]


def _identity(video_btchw: Tensor) -> DenseTracks:
    """Tracks of points that stay in place and in sight."""
    batch, frames, _, height, width = video_btchw.shape
    flow = torch.zeros((batch, frames, 2, height, width), device=video_btchw.device)
    return DenseTracks(flow, torch.ones_like(flow))
