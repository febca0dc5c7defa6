"""AllTracker's iterative update: from correlations to a better flow, and from cells to pixels.

The state that is refined, `state_fhw4`, holds for each target frame and each of the query frame's
cells the flow (x, y) in cells, and the logits of visibility and confidence at an eighth of their
value.

Source: A. W. Harley et al., "AllTracker: Efficient Dense Point Tracking at High Resolution",
ICCV 2025 (arXiv 2506.07310). Module names are those of the published checkpoints.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from motive.motion import alltracker_correlation as correlation
from motive.motion.alltracker_blocks import (
    PointwiseConv,
    SpatialBlock,
    TemporalBlock,
    pointwise,
)
from motive.motion.alltracker_encoder import STRIDE

CHANNELS = 128
_FLOW_CHANNELS = 2
_TEMPERATURE = 4


class Context(NamedTuple):
    """The part of the update that stays the same through all iterations of a window.

    It is the sum of a term that depends on the cell and one that depends on the frame.
    """

    cells_hwc: Tensor
    frames_fc: Tensor


class MotionEncoder(nn.Module):
    """Correlations and flow to 128 channels, of which the last two are the flow itself."""

    def __init__(self) -> None:
        super().__init__()
        self.convc1 = PointwiseConv(correlation.CHANNELS, 512)
        self.convc2 = nn.Conv2d(512, 192, 3, padding=1)
        self.convf1 = nn.Conv2d(_FLOW_CHANNELS, 256, 5, padding=2)
        self.convf2 = nn.Conv2d(256, 64, 3, padding=1)
        self.conv = nn.Conv2d(192 + 64, CHANNELS - _FLOW_CHANNELS, 3, padding=1)

    def forward(self, correlations_fchw: Tensor, flow_f2hw: Tensor) -> Tensor:
        seen = self.convc2(self.convc1(correlations_fchw).relu_()).relu_()
        moved = self.convf2(self.convf1(flow_f2hw).relu_()).relu_()
        both = self.conv(torch.cat((seen, moved), dim=1)).relu_()
        return torch.cat((both, flow_f2hw), dim=1)


class UpdateBlock(nn.Module):
    """One refinement of the flow features of all frames of a window."""

    def __init__(self) -> None:
        super().__init__()
        self.motion_encoder = MotionEncoder()
        self.compressor = PointwiseConv(3 * CHANNELS + _FLOW_CHANNELS, CHANNELS)
        self.refine = nn.ModuleList(
            block(CHANNELS) for _ in range(3) for block in (TemporalBlock, SpatialBlock)
        )
        self.final_conv = PointwiseConv(CHANNELS, CHANNELS)

    def context(self, context_chw: Tensor, time_fc: Tensor) -> Context:
        """The compressor's share of the context features and the time embedding, bias included."""
        weight = self.compressor.weight.flatten(1)[:, CHANNELS : 2 * CHANNELS]
        cells_hwc = pointwise(context_chw.permute(1, 2, 0), weight, self.compressor.bias)
        return Context(cells_hwc, F.linear(time_fc.to(weight.dtype), weight))

    def compress(
        self, features_fchw: Tensor, correlations_fhwc: Tensor, state_fhw4: Tensor
    ) -> Tensor:
        """The compressor's output `(f, h, w, 128)`, less the context."""
        dtype = self.compressor.weight.dtype
        state_f4hw = state_fhw4.to(dtype).permute(0, 3, 1, 2)
        motion_fchw = self.motion_encoder(
            correlations_fhwc.to(dtype).permute(0, 3, 1, 2), state_f4hw[:, :_FLOW_CHANNELS]
        )
        parts_fchw = (features_fchw, motion_fchw, state_f4hw[:, _FLOW_CHANNELS:])
        inputs_fhwc = torch.cat([part.permute(0, 2, 3, 1) for part in parts_fchw], dim=-1)
        weight = self.compressor.weight.flatten(1)
        weight = torch.cat((weight[:, :CHANNELS], weight[:, 2 * CHANNELS :]), dim=1)
        return pointwise(inputs_fhwc, weight)

    def forward(
        self,
        features_fchw: Tensor,
        state_fhw4: Tensor,
        context: Context,
        lookup: correlation.CorrelationLookup,
        targets: list[correlation.Pyramid],
        chunk_frames: int,
    ) -> Tensor:
        """Flow features `(f, 128, h, w)` to better ones, `chunk_frames` at a time where it can."""
        frames, _, height, width = features_fchw.shape
        x_fhwc = features_fchw.new_empty((frames, height, width, CHANNELS))
        for first in range(0, frames, chunk_frames):
            chunk = slice(first, first + chunk_frames)
            correlations_fhwc = lookup(targets[chunk], state_fhw4[chunk, ..., :_FLOW_CHANNELS])
            x_fhwc[chunk] = (
                self.compress(features_fchw[chunk], correlations_fhwc, state_fhw4[chunk])
                .add_(context.cells_hwc)
                .add_(context.frames_fc[chunk, None, None])
            )
        x_fpc = x_fhwc.flatten(1, 2)
        chunk_pixels = max(1, chunk_frames * height * width // frames)
        for block in self.refine:
            if isinstance(block, TemporalBlock):
                for pixels_fpc in x_fpc.split(chunk_pixels, dim=1):
                    pixels_fpc.copy_(block(pixels_fpc))
            else:
                for images_fhwc in x_fhwc.split(chunk_frames):
                    images_fhwc.copy_(block(images_fhwc.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        x_fchw = x_fhwc.permute(0, 3, 1, 2)
        return torch.cat([self.final_conv(chunk) for chunk in x_fchw.split(chunk_frames)])


def convex_upsample(state_fhw4: Tensor, weights_fchw: Tensor) -> Tensor:
    """Cells to pixels: each pixel an average of the 3 x 3 cells around it, times 8.

    Args:
        state_fhw4: values per cell; cells outside the map count as zero.
        weights_fchw: `(f, 576, h, w)`, 9 neighbours x the 8 x 8 pixels of a cell, as they leave
            the network: a softmax over the neighbours, at temperature 4, makes them an average.

    Returns:
        `(f, 4, 8 h, 8 w)`, float32.
    """
    frames, height, width, channels = state_fhw4.shape
    weights = weights_fchw.permute(0, 2, 3, 1).float().reshape(-1, 9, STRIDE**2)
    weights = (weights / _TEMPERATURE).softmax(dim=1)
    padded = F.pad(STRIDE * state_fhw4, (0, 0, 1, 1, 1, 1))
    neighbours = padded.unfold(1, 3, 1).unfold(2, 3, 1).reshape(-1, channels, 9)
    pixels = (neighbours @ weights).view(frames, height, width, channels, STRIDE, STRIDE)
    return pixels.permute(0, 3, 1, 4, 2, 5).reshape(
        frames, channels, height * STRIDE, width * STRIDE
    )
