"""The dense projection with entries +1/sqrt(dim) and -1/sqrt(dim), drawn again each time it is used.

The signs of row r at the 64 coordinates of block b of a parameter are the bits of one hash of (seed,
the parameter's name, b . dim + r); a set bit is a minus. Nothing is stored but `dim` x 64 sums.

Unbiased; Var <Rx, Ry> = (|x|^2 |y|^2 + <x, y>^2 - 2 sum_i x_i^2 y_i^2) / dim. Every number meets
every row, so the time grows with D x dim: for small models, and for comparison (it is what TRAK
calls its Rademacher projector; Achlioptas, "Database-friendly random projections", 2003).

Sums are float32 over 1,024 blocks at most, in the blocks' order, one for each of 64 lanes, and are
added up in float64.
"""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from numba import njit

from motive.gradients import counter_torch
from motive.gradients.counter import key
from motive.gradients.fold import flat_pieces, not_finite, words_of
from motive.gradients.fold_kernel import BLOCK, add_block, hash64
from motive.gradients.projection import Shapes, StreamedProjection, check_dim
from motive.gradients.threads import over_strips

_GROUP = 1024  # blocks summed in float32
_NEAR = 16  # blocks that stay in the first-level cache while all rows pass over them
_DEVICE_SIGNS = 1 << 20  # signs drawn at a time by torch operations: some 20 MB of temporaries


class RademacherProjection(StreamedProjection):
    """See the module's text. State: `dim` x 64 float32 sums and `dim` float64 ones."""

    kind = "rademacher"

    def __init__(self, dim: int, seed: int, shapes: Shapes) -> None:
        super().__init__(shapes)
        check_dim(dim, shapes)
        self.dim = dim
        self.seed = seed
        self._sum = np.zeros(dim)
        self._lanes = np.zeros(dim * BLOCK, dtype=np.float32)

    @property
    def nbytes(self) -> int:
        """Bytes that it holds between two gradients."""
        return self._sum.nbytes + self._lanes.nbytes

    def _reset(self) -> None:
        self._sum.fill(0)

    def _take(self, name: str, gradient: torch.Tensor) -> None:
        stream = key(self.seed, "rademacher", name)
        for start, piece in flat_pieces(gradient, _GROUP * BLOCK):
            if piece.device.type == "cpu":
                self._add_on_cpu(piece, start // BLOCK, stream)
            else:
                self._sum += self._project_on_device(piece, start // BLOCK, stream)
        if not np.isfinite(self._sum).all():
            raise not_finite(name)

    def _add_on_cpu(self, piece: torch.Tensor, first_block: int, stream: int) -> None:
        whole = piece.numel() - piece.numel() % BLOCK
        self._add_blocks(words_of(piece[:whole]), first_block, stream)
        if whole < piece.numel():
            rest = torch.zeros(BLOCK, dtype=piece.dtype)
            rest[: piece.numel() - whole] = piece[whole:]
            self._add_blocks(words_of(rest), first_block + whole // BLOCK, stream)

    def _add_blocks(self, words: npt.NDArray[Any], first_block: int, stream: int) -> None:
        total, lanes, dim, stream_64 = self._sum, self._lanes, self.dim, np.uint64(stream)

        def rows(lo: int, hi: int) -> bool:
            _project(total, lanes, lo, hi, words, first_block, stream_64, dim)
            return True

        over_strips(rows, dim, 1, work=words.size * dim)

    def _project_on_device(
        self, piece: torch.Tensor, first_block: int, stream: int
    ) -> npt.NDArray[np.float64]:
        """The projection of a piece by torch operations, (dim,), not divided by sqrt(dim)."""
        blocks = -(-piece.numel() // BLOCK)
        padded = torch.zeros(blocks * BLOCK, device=piece.device)
        padded[: piece.numel()] = piece
        at_once = max(1, _DEVICE_SIGNS // (BLOCK * self.dim))
        lanes = torch.zeros(self.dim, BLOCK, device=piece.device)
        for lo in range(0, blocks, at_once):
            hi = min(lo + at_once, blocks)
            counters = torch.arange(
                (first_block + lo) * self.dim, (first_block + hi) * self.dim, device=piece.device
            )
            minus = counter_torch.negative(counter_torch.hash64(stream, counters))
            minus = minus.view(hi - lo, self.dim, BLOCK)
            numbers = padded[lo * BLOCK : hi * BLOCK].view(hi - lo, 1, BLOCK)
            lanes += torch.where(minus, -numbers, numbers).sum(dim=0)
        return lanes.cpu().double().sum(dim=1).numpy()

    def _result(self) -> npt.NDArray[np.float32]:
        return (self._sum / math.sqrt(self.dim)).astype(np.float32)


@njit(nogil=True, cache=True)
def _project(  # type: ignore[no-untyped-def]
    total, lanes, lo, hi, words, first_block, stream, dim
):
    """Add rows lo..hi of the projection of whole blocks, the first being `first_block`, to total."""
    block, one, dim = np.uint64(BLOCK), np.uint64(1), np.uint64(dim)
    lo, hi, first = np.uint64(lo), np.uint64(hi), np.uint64(first_block)
    blocks = np.uint64(words.size) // block
    lanes[lo * block : hi * block] = 0
    near = np.uint64(0)
    while near < blocks:
        end = min(near + np.uint64(_NEAR), blocks)
        row = lo
        while row < hi:
            b = near
            while b < end:
                bits = hash64(stream, (first + b) * dim + row)
                add_block(lanes, row * block, words, b * block, bits, np.uint64(0))
                b += one
            row += one
        near = end
    for row in range(lo, hi):
        for lane in range(block):
            total[row] += np.float64(lanes[row * block + lane])
