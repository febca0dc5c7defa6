"""CountSketch, or sparse Johnson-Lindenstrauss transform (SJLT): s nonzeros in each column.

The `dim` rows are cut into s runs of equal length (give or take one). Coordinate i of a parameter is
added to one row of every run, with a random sign, and the sums are divided by sqrt(s):

    y = 1/sqrt(s) . sum_i sum_r sign_r(i) g_i e_(row_r(i))

All s rows and signs of a coordinate come from one hash of (seed, the parameter's name, i): 16 bits
for each, of which the lowest is the sign and the others the row. No index is stored.

Unbiased, since the signs are independent with mean zero. A pair of coordinates i != l shares its row
of one run with probability s/dim, and adds (x_i y_l + x_l y_i)/s with a random sign when it does, so

    Var <Sx, Sy> = s . s/dim . 1/s^2 . sum of (x_i y_l + x_l y_i)^2 over unordered pairs
                 = (|x|^2 |y|^2 + <x, y>^2 - 2 sum_i x_i^2 y_i^2) / dim

for every s: never more than the dense projection's (1 + rho^2)/dim of unit vectors, and nothing for
what lies in one coordinate. A larger s makes rare large errors rarer (Kane and Nelson, "Sparser
Johnson-Lindenstrauss transforms", J. ACM 2014; Charikar, Chen and Farach-Colton, "Finding frequent
items in data streams", 2002, for s = 1).

Sums are float64, so that neither the order of the parameters nor of a GPU's atomic additions can be
seen in the float32 result but in its last bit, and that rarely.
"""

import math

import numpy as np
import numpy.typing as npt
import torch
from numba import njit

from motive.errors import UserError
from motive.gradients import counter_torch
from motive.gradients.counter import key
from motive.gradients.fold import flat_pieces, not_finite
from motive.gradients.fold_kernel import hash64
from motive.gradients.projection import Shapes, StreamedProjection, check_dim
from motive.gradients.threads import over_strips

NONZEROS = 4
"""s: as many as there are 16-bit fields in a hash."""

_LARGEST_DIM = 16_384  # a run's row is 15 bits times the run's length: the rows must be many fewer
_PIECE = 1 << 20  # numbers taken at a time
_PART = 1 << 17  # numbers that one thread sums


class CountSketchProjection(StreamedProjection):
    """See the module's text. State: `dim` float64 sums, and as many for each part of a piece."""

    kind = "countsketch"

    def __init__(self, dim: int, seed: int, shapes: Shapes) -> None:
        super().__init__(shapes)
        check_dim(dim, shapes)
        if dim > _LARGEST_DIM:
            raise UserError(
                f"countsketch projects to {_LARGEST_DIM:,} numbers at most, not {dim:,}"
            )
        self.dim = dim
        self.seed = seed
        self.nonzeros = min(NONZEROS, dim)
        runs = np.arange(self.nonzeros + 1) * dim // self.nonzeros
        self._first_rows = runs[:-1].astype(np.uint64)
        self._lengths = np.diff(runs).astype(np.uint64)
        self._sum = np.zeros(dim)
        self._parts = np.zeros((_PIECE // _PART, dim))

    @property
    def nbytes(self) -> int:
        """Bytes that it holds between two gradients."""
        return self._sum.nbytes + self._parts.nbytes

    def _reset(self) -> None:
        self._sum.fill(0)

    def _take(self, name: str, gradient: torch.Tensor) -> None:
        stream = key(self.seed, "countsketch", name)
        for start, piece in flat_pieces(gradient, _PIECE):
            if piece.device.type in ("cpu", "mps"):  # Metal has no float64
                self._add_on_cpu(piece.float().cpu().numpy(), start, stream)
            else:
                self._sum += self._sketch_on_device(piece, start, stream).cpu().numpy()
        if not np.isfinite(self._sum).all():
            raise not_finite(name)

    def _add_on_cpu(self, numbers: npt.NDArray[np.float32], start: int, stream: int) -> None:
        parts, first_rows, lengths = self._parts, self._first_rows, self._lengths
        parts.fill(0)

        def sketch(lo: int, hi: int) -> bool:
            for at in range(lo, hi, _PART):
                part = numbers[at : min(at + _PART, hi)]
                _sketch(parts[at // _PART], part, start + at, stream, first_rows, lengths)
            return True

        stream = np.uint64(stream)  # type: ignore[assignment]
        over_strips(sketch, numbers.size, _PART, work=numbers.size)
        for part in parts:
            self._sum += part

    def _sketch_on_device(self, piece: torch.Tensor, start: int, stream: int) -> torch.Tensor:
        """The sketch of a piece by torch operations, float64 (dim,), not divided by sqrt(s)."""
        sketch = torch.zeros(self.dim, dtype=torch.float64, device=piece.device)
        for at in range(0, piece.numel(), _PART):
            part = piece[at : at + _PART]
            counters = torch.arange(start + at, start + at + part.numel(), device=piece.device)
            words = counter_torch.hash64(stream, counters)
            for run in range(self.nonzeros):
                field = (words >> (16 * run)) & 0xFFFF
                rows = ((field >> 1) * int(self._lengths[run])) >> 15
                value = torch.where((field & 1).bool(), -part, part)
                sketch.index_add_(0, rows + int(self._first_rows[run]), value.double())
        return sketch

    def _result(self) -> npt.NDArray[np.float32]:
        return (self._sum / math.sqrt(self.nonzeros)).astype(np.float32)


@njit(nogil=True, cache=True)
def _sketch(sums, numbers, start, stream, first_rows, lengths):  # type: ignore[no-untyped-def]
    """Add the sketch of numbers[0], numbers[1], ..., coordinates start, start + 1, ..., to sums."""
    for i in range(numbers.size):
        word = hash64(stream, np.uint64(start + i))
        value = np.float64(numbers[i])
        for run in range(first_rows.size):
            field = (word >> np.uint64(16 * run)) & np.uint64(0xFFFF)
            row = first_rows[run] + (((field >> np.uint64(1)) * lengths[run]) >> np.uint64(15))
            sums[row] += -value if field & np.uint64(1) else value
