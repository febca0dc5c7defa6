"""The sign-fold: a gradient of any length, read once, into n accumulators.

With k = key(seed, "fold", name) for a parameter and m the largest prime <= n, coordinate i of the
parameter (its row-major index) is given an independent random sign and added to

    accumulator (k + i) mod m.

The first m coordinates are lap 0, the next m lap 1, and so on: i = lap . m + j. One 64-bit hash
gives the signs of a block of 64 neighbours of one lap: the sign of i is bit j mod 64 of
`hash64(k, lap . ceil(m / 64) + floor(j / 64))`, 1 being minus. Nothing is stored but the sums.

Unbiased: with F the fold, <Fx, Fy> - <x, y> = sum of s_i s_l x_i y_l over pairs i != l that share
an accumulator, and E[s_i s_l] = 0. Its variance is the sum of (x_i y_l + x_l y_i)^2 over unordered
such pairs; for coordinates that are spread over the accumulators, about (1 + rho^2)/m of
|x|^2 |y|^2, against (1 + rho^2)/dim for the projection that follows.

Two choices keep "spread over the accumulators" true for the gradients that networks have:
  - A sign for every coordinate. A row sign times a column sign would be a matrix-vector product,
    but the rows of a weight gradient are correlated: the errors of all pairs of rows add up.
  - A prime period. Outlier features of transformers concentrate a weight gradient in a few columns.
    With a period of 65,536 a column of a matrix 1,536 wide would meet only 128 accumulators, since
    1,536 and 65,536 share the factor 512; with a prime, its entries all fall apart.
The offset k, which depends on the name, keeps like positions of a network's layers apart.

Sums of one parameter are float32, in the order of the laps, whatever the number of threads;
parameters are added to one another in float64, so that the order in which the backward pass
delivers them changes the result by about 1e-16 relative.
"""

import math
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from motive.errors import ClipError
from motive.gradients.counter import GOLDEN_GAMMA, MIX_MULTIPLIER_1, MIX_MULTIPLIER_2, key
from motive.gradients.fold_kernel import BLOCK, fold_strip

_PIECE_LAPS = 16  # laps taken at a time where a gradient must be copied or converted: 4 MB
_PARALLEL_FROM = 1 << 18  # below this many numbers, waking a thread costs more than it saves


class SignFold:
    """Accumulators for one gradient at a time; see the module's text for what it computes.

    On the CPU a compiled kernel reads the gradient where it lies. On any other device the same sums
    are made by torch operations in the same order: they are bit-identical to the CPU's wherever
    float32 addition is IEEE (round to nearest, subnormals kept).

    Args:
        seed: the projection's seed.
        accumulators: n, the length of `total()`; at least 64.
    """

    def __init__(self, seed: int, accumulators: int) -> None:
        if accumulators < BLOCK:
            raise ValueError(f"a fold needs at least {BLOCK} accumulators, not {accumulators}")
        self.seed = seed
        self.accumulators = accumulators
        self.period = largest_prime(accumulators)
        self._streams: dict[str, int] = {}  # the names' keys, hashed once
        self._sum = np.zeros(self.period, dtype=np.float64)
        self._device_sums: dict[torch.device, torch.Tensor] = {}
        self._device_checks: list[tuple[str, torch.Tensor]] = []

    @property
    def nbytes(self) -> int:
        """Bytes of the sums held between two calls of `add`."""
        on_devices = sum(total.nbytes for total in self._device_sums.values())
        return self._sum.nbytes + on_devices

    def reset(self) -> None:
        """Forget what was added."""
        self._sum.fill(0)
        self._device_sums.clear()
        self._device_checks.clear()

    def add(self, name: str, gradient: torch.Tensor) -> None:
        """Fold one parameter's gradient in: float32, bfloat16 or float16, any shape and strides.

        Raises:
            ClipError: the gradient holds NaN or Inf, or overflows float32. (A signed sum of
                float32 numbers that meets a NaN or an Inf never becomes finite again, so looking at
                the n sums is enough. For a device other than the CPU `total` raises it, so that the
                device need not be waited for.) The accumulators are then void.
        """
        if gradient.numel() == 0:
            return
        stream = self._streams.get(name)
        if stream is None:
            stream = self._streams[name] = key(self.seed, "fold", name)
        if gradient.device.type != "cpu":
            self._add_on_device(name, gradient, stream)
        elif not self._add_on_cpu(gradient, stream):
            raise _not_finite(name)

    def total(self) -> npt.NDArray[np.float64]:
        """The accumulators, float64 (n,), those from the period on being zero.

        Raises:
            ClipError: see `add`.
        """
        if self._device_checks:
            finite = torch.stack([check.cpu() for _, check in self._device_checks])
            if not bool(finite.all()):
                raise _not_finite(self._device_checks[int(finite.int().argmin())][0])
        total = np.zeros(self.accumulators, dtype=np.float64)
        total[: self.period] = self._sum
        for device_sum in self._device_sums.values():
            total[: self.period] += device_sum.cpu().numpy()
        return total

    # A gradient that has gone through the caches leaves none of the interpreter's own data in them,
    # and every operation then costs some 20 microseconds: the common case below has few.

    def _add_on_cpu(self, gradient: torch.Tensor, stream: int) -> bool:
        """Whether all sums are finite."""
        partial = np.zeros(min(self.period, gradient.numel()), dtype=np.float32)
        if gradient.dtype is not torch.float16 and gradient.is_contiguous():
            return self._fold_piece(partial, _words(gradient), 0, stream, last=True)
        finite = True
        for first_lap, piece in _pieces(gradient, self.period):
            last = first_lap * self.period + piece.numel() == gradient.numel()
            finite = self._fold_piece(partial, _words(piece), first_lap, stream, last)
        return finite

    def _fold_piece(
        self,
        partial: npt.NDArray[np.float32],
        words: npt.NDArray[Any],
        first_lap: int,
        stream: int,
        last: bool,
    ) -> bool:
        total, m, stream_64 = self._sum, self.period, np.uint64(stream)
        offset = stream % m

        def strip(lo: int, hi: int) -> bool:
            return fold_strip(total, offset, partial, lo, hi, words, first_lap, stream_64, m, last)

        return _over_strips(strip, partial.size, work=words.size)

    def _add_on_device(self, name: str, gradient: torch.Tensor, stream: int) -> None:
        device = gradient.device
        partial = torch.zeros(
            min(self.period, gradient.numel()), dtype=torch.float32, device=device
        )
        for first_lap, piece in _pieces(gradient, self.period):
            signed = _signed(piece.float(), first_lap, stream, self.period)
            for lap in signed.split(self.period):
                partial[: lap.numel()] += lap
        self._device_checks.append((name, torch.isfinite(partial).all()))
        # Metal has no float64: there the sums across parameters live on the CPU.
        home = torch.device("cpu") if device.type == "mps" else device
        if home not in self._device_sums:
            self._device_sums[home] = torch.zeros(self.period, dtype=torch.float64, device=home)
        device_sum = self._device_sums[home]
        offset = stream % self.period
        until_wrap = min(partial.numel(), self.period - offset)
        wrapped = partial.numel() - until_wrap
        partial = partial.to(home)
        device_sum[offset : offset + until_wrap] += partial[:until_wrap]
        device_sum[:wrapped] += partial[until_wrap:]


def largest_prime(limit: int) -> int:
    """The largest prime <= limit, for limit >= 2 (65,521 for 65,536)."""
    numbers = range(limit, 1, -1)
    return next(n for n in numbers if all(n % d for d in range(2, math.isqrt(n) + 1)))


def _not_finite(name: str) -> ClipError:
    return ClipError(f"the gradient of parameter {name} holds NaN or Inf, or overflows float32")


def _pieces(gradient: torch.Tensor, period: int) -> Iterator[tuple[int, torch.Tensor]]:
    """The gradient's numbers in row-major order, as (first lap, flat contiguous piece).

    A few laps at a time, so that a large gradient is not copied as a whole for the sake of its
    strides or its type.
    """
    rows = gradient.reshape(1) if gradient.dim() == 0 else gradient
    row_size = rows[0].numel()
    for first_lap in range(0, -(-gradient.numel() // period), _PIECE_LAPS):
        start = first_lap * period
        stop = min(start + _PIECE_LAPS * period, gradient.numel())
        first_row = start // row_size
        few_rows = rows[first_row : -(-stop // row_size)].reshape(-1)
        piece = few_rows[start - first_row * row_size : stop - first_row * row_size]
        yield first_lap, piece.contiguous()


def _words(gradient: torch.Tensor) -> npt.NDArray[Any]:
    """The bits, flat: of bfloat16 (the upper half of a float32) as int16, of others as uint32."""
    if gradient.dtype is torch.bfloat16:
        return gradient.view(torch.int16).numpy().reshape(-1)
    return gradient.float().numpy().reshape(-1).view(np.uint32)


# Threads ------------------------------------------------------------------------------------------
#
# Not numba's: its portable threading layer aborts the process when two threads use it at once, and
# its OpenMP layer does so after a fork. The kernel releases the interpreter's lock, so ordinary
# threads do. Their number is torch's (`torch.set_num_threads`).

_pools = threading.local()


def _pool(helpers: int) -> ThreadPoolExecutor:
    """This thread's pool of `helpers` threads, in this process (a fork does not carry threads)."""
    made_for = (os.getpid(), helpers)
    if getattr(_pools, "made_for", None) != made_for:
        _pools.pool = ThreadPoolExecutor(helpers, thread_name_prefix="motive-fold")
        _pools.made_for = made_for
    return _pools.pool


def _over_strips(task: Callable[[int, int], bool], length: int, work: int) -> bool:
    """Call task(lo, hi) on strips that cover 0..length, lo a multiple of 64; whether all said True.

    The strips are shared out as threads come free, this thread working too, so that a helper whose
    core is busy delays nothing but its own strip. How many strips there are does not matter to the
    result: an accumulator belongs to one strip, and its sum is made in the order of the laps.
    """
    if work < _PARALLEL_FROM:
        return task(0, length)
    threads = torch.get_num_threads()
    # Two strips for each thread: one may lag, and what a strip prefetches fits beside its sums.
    blocks = -(-length // BLOCK)
    width = BLOCK * -(-blocks // (2 * threads))
    waiting = deque((lo, min(lo + width, length)) for lo in range(0, length, width))

    def work_off() -> bool:
        good = True
        while True:
            try:
                lo, hi = waiting.popleft()
            except IndexError:
                return good
            good &= task(lo, hi)

    helpers = [_pool(threads - 1).submit(work_off) for _ in range(min(threads, len(waiting)) - 1)]
    good = work_off()
    # A helper that has not started by now has nothing left to do.
    results = [helper.result() for helper in helpers if not helper.cancel()]
    return good and all(results)


# Other devices ------------------------------------------------------------------------------------


def _signed(piece: torch.Tensor, first_lap: int, stream: int, period: int) -> torch.Tensor:
    """A flat float32 piece, negated where the hash says so, by torch operations on its device."""
    per_lap = -(-period // BLOCK)
    laps = -(-piece.numel() // period)
    counters = torch.arange(
        first_lap * per_lap, (first_lap + laps) * per_lap, dtype=torch.int64, device=piece.device
    )
    z = counters * _as_signed(GOLDEN_GAMMA) + _as_signed(stream)
    z = (z ^ _shift_right(z, 30)) * _as_signed(MIX_MULTIPLIER_1)
    z = (z ^ _shift_right(z, 27)) * _as_signed(MIX_MULTIPLIER_2)
    z = z ^ _shift_right(z, 31)
    lanes = torch.arange(BLOCK, dtype=torch.int64, device=piece.device)
    negative = ((z[:, None] >> lanes) & 1).bool()
    negative = negative.view(laps, -1)[:, :period].reshape(-1)[: piece.numel()]
    return torch.where(negative, -piece, piece)


def _as_signed(word: int) -> int:
    """The signed 64-bit integer with the same bits: torch has no unsigned arithmetic."""
    return word - (1 << 64) if word >> 63 else word


def _shift_right(z: torch.Tensor, count: int) -> torch.Tensor:
    """Logical shift: torch's own brings in copies of the sign bit."""
    return (z >> count) & ((1 << (64 - count)) - 1)
