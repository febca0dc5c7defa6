"""How alike the query frame's cells are to the target frames', read where the flow points.

The correlation volume of a frame pair holds a number for every pair of cells; AllTracker reads only
9 x 9 numbers per query cell at each of five resolutions. The volume is therefore never kept: it is
made for a strip of query rows at a time, against only the target rows that the strip can reach.

Source: A. W. Harley et al., "AllTracker: Efficient Dense Point Tracking at High Resolution",
ICCV 2025 (arXiv 2506.07310); the lookup is RAFT's (arXiv 2003.12039, section 3.2).
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from motive.motion.alltracker_blocks import pointwise

LEVELS = 5
RADIUS = 4
CHANNELS = LEVELS * (2 * RADIUS + 1) ** 2
_STRIP_CELLS = 512

Pyramid = list[Tensor]


def feature_pyramids(features_fchw: Tensor) -> list[Pyramid]:
    """For each frame its feature map `(h, w, c)` in float32 at five resolutions, finest first.

    Each is the "area" interpolation of the one before to half its size, rounded down. Reducing the
    features reduces the correlation volume, which is linear in them.
    """
    levels = [features_fchw.float()]
    while len(levels) < LEVELS:
        height, width = levels[-1].shape[2:]
        levels.append(F.adaptive_avg_pool2d(levels[-1], (height // 2, width // 2)))
    rows = [level.permute(0, 2, 3, 1).contiguous() for level in levels]
    return [[level[frame] for level in rows] for frame in range(len(features_fchw))]


class CorrelationLookup:
    """Reads the correlation between one query frame and any number of target frames.

    Args:
        query_chw: the query frame's features.
    """

    def __init__(self, query_chw: Tensor) -> None:
        channels, height, width = query_chw.shape
        device = query_chw.device
        scaled_hwc = query_chw.permute(1, 2, 0).float() / channels**0.5
        # Cells are counted in multiples of 8 a side: 8, 4, 2 and 1 rows divide the map evenly.
        rows = next(n for n in (8, 4, 2, 1) if n == 1 or n * width <= _STRIP_CELLS)
        self.strips_snc = scaled_hwc.reshape(height // rows, rows * width, channels)
        self.sizes = [(height >> level, width >> level) for level in range(LEVELS)]
        self._shrink = torch.tensor([0.5**level for level in range(LEVELS)], device=device)[:, None]
        self._last = torch.tensor([(w - 1, h - 1) for h, w in self.sizes], device=device)
        self._widths = torch.tensor([w for _, w in self.sizes], device=device)[:, None]
        self._taps = torch.arange(-RADIUS, RADIUS + 2, device=device)
        y, x = torch.meshgrid(
            torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij"
        )
        self._cells_hw2 = torch.stack((x, y), dim=-1).float()

    def __call__(self, targets: Sequence[Pyramid], flow_fhw2: Tensor) -> Tensor:
        """The correlations around the cells that the flow points at.

        Args:
            targets: one feature pyramid per target frame.
            flow_fhw2: from the query frame to each target frame, (x, y) in cells.

        Returns:
            `(f, h, w, 405)`, float32. Channel `81 l + 9 i + j` is read at level `l` at
            `(x / 2^l + i - 4, y / 2^l + j - 4)`, bilinearly, coordinates clamped to the map.
        """
        frames, height, width, _ = flow_fhw2.shape
        strips, cells, _ = self.strips_snc.shape
        points = (self._cells_hw2 + flow_fhw2)[..., None, :] * self._shrink
        # Past these bounds all taps lie on the border anyway; the integers below stay small.
        points = points.clamp_min(-RADIUS - 1.0).minimum(self._last + RADIUS + 1.0)
        points = points.view(frames, strips, cells, LEVELS, 2)
        corners = points.floor()
        fractions = points - corners
        zero = torch.zeros_like(self._last)
        taps = corners.long()[..., None] + self._taps
        taps = taps.clamp(zero[..., None], self._last[..., None])  # (f, s, n, level, xy, tap)
        reach = torch.stack(
            (taps[..., 1, 0].amin(dim=2), taps[..., 1, -1].amax(dim=2)), dim=-1
        ).tolist()  # [frame][strip][level] -> first and last target row
        out = flow_fhw2.new_empty((frames, strips, cells, CHANNELS), dtype=torch.float32)
        for frame, pyramid in enumerate(targets):
            for strip, query_nc in enumerate(self.strips_snc):
                out[frame, strip] = self._read(
                    query_nc,
                    pyramid,
                    reach[frame][strip],
                    taps[frame, strip],
                    fractions[frame, strip],
                )
        return out.view(frames, height, width, CHANNELS)

    def _read(
        self,
        query_nc: Tensor,
        pyramid: Pyramid,
        reach: list[list[int]],
        taps_nlxt: Tensor,
        fractions_nlx: Tensor,
    ) -> Tensor:
        """One strip of query cells against one frame: `(n, 405)`."""
        bands = [
            level[first : last + 1].flatten(0, 1)
            for level, (first, last) in zip(pyramid, reach, strict=True)
        ]
        volume = pointwise(query_nc, torch.cat(bands))
        starts, columns = [], 0
        for band, (first, _), (_, width) in zip(bands, reach, self.sizes, strict=True):
            starts.append(columns - first * width)
            columns += len(band)
        x, y = taps_nlxt.unbind(dim=2)
        y = y * self._widths + torch.tensor(starts, device=y.device)[:, None]
        index = x[..., :, None] + y[..., None, :]
        # All 81 samples of a level have one offset from the grid of cells, so they are the
        # neighbour averages of one 10 x 10 patch, first along x and then along y.
        patch = volume.gather(1, index.flatten(1)).view(index.shape)
        x_fraction, y_fraction = fractions_nlx[..., None, None].unbind(dim=2)
        patch = torch.lerp(patch[:, :, :-1], patch[:, :, 1:], x_fraction)
        return torch.lerp(patch[..., :-1], patch[..., 1:], y_fraction).flatten(1)
