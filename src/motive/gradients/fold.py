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

import functools
import importlib
import importlib.util
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from motive.errors import ClipError
from motive.gradients import counter_torch
from motive.gradients.counter import key
from motive.gradients.fold_kernel import BLOCK, fold_clips, fold_strip
from motive.gradients.threads import PARALLEL_FROM, over_strips

_PIECE_LAPS = 16  # laps taken at a time where a gradient must be copied or converted: 4 MB


class SignFold:
    """Accumulators for one gradient at a time; see the module's text for what it computes.

    A compiled kernel reads the gradient where it lies: on the CPU by numba, on CUDA by Triton (with
    the extra `cuda`, or as CUDA builds of torch bring it). Anywhere else torch operations make the
    same sums, piece by piece. All three add in the same order, so their accumulators are identical
    bit for bit wherever float32 addition is IEEE (round to nearest, subnormals kept).

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
        stream = self._stream(name)
        if gradient.device.type == "cpu":
            if not self._add_on_cpu(gradient, stream):
                raise not_finite(name)
        elif gradient.device.type == "cuda" and (triton := _triton_fold(gradient.device)):
            self._add_by_triton(name, gradient, stream, triton)
        else:
            self._add_on_device(name, gradient, stream)

    def _stream(self, name: str) -> int:
        stream = self._streams.get(name)
        if stream is None:
            stream = self._streams[name] = key(self.seed, "fold", name)
        return stream

    def total(self) -> npt.NDArray[np.float64]:
        """The accumulators, float64 (n,), those from the period on being zero.

        Raises:
            ClipError: see `add`.
        """
        if self._device_checks:
            finite = torch.cat([check.cpu() for _, check in self._device_checks])
            if not bool(finite.all()):
                raise not_finite(self._device_checks[int(finite.int().argmin())][0])
        total = np.zeros(self.accumulators, dtype=np.float64)
        total[: self.period] = self._sum
        for device_sum in self._device_sums.values():
            total[: self.period] += device_sum.cpu().numpy()
        return total

    # A gradient that has gone through the caches leaves none of the interpreter's own data in them,
    # and every operation then costs some 20 microseconds: the common case below has few.

    def _add_on_cpu(self, gradient: torch.Tensor, stream: int) -> bool:
        """Whether all sums are finite."""
        if has_words(gradient):
            words = words_of(gradient)
            if words.size < PARALLEL_FROM:
                return bool(fold_together(self._sum[None], words[None], stream)[0])
            partial = np.zeros(self.period, dtype=np.float32)
            return self._fold_piece(partial, words, 0, stream, last=True)
        partial = np.zeros(min(self.period, gradient.numel()), dtype=np.float32)
        finite = True
        for first_lap, piece, last in self._pieces(gradient):
            finite = self._fold_piece(partial, words_of(piece), first_lap, stream, last)
        return finite

    def _pieces(self, gradient: torch.Tensor) -> Iterator[tuple[int, torch.Tensor, bool]]:
        """A few laps at a time: the first one's number, the laps, whether they are the last."""
        for start, piece in flat_pieces(gradient, _PIECE_LAPS * self.period):
            yield start // self.period, piece, start + piece.numel() == gradient.numel()

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

        return over_strips(strip, partial.size, BLOCK, work=words.size)

    def _add_by_triton(self, name: str, gradient: torch.Tensor, stream: int, triton: Any) -> None:
        total = self._sum_on(gradient.device)
        wrong = torch.zeros(1, dtype=torch.int32, device=gradient.device)
        whole = gradient.is_contiguous()
        partial = total if whole else torch.empty_like(total, dtype=torch.float32)
        pieces = [(0, gradient.view(-1), True)] if whole else self._pieces(gradient)
        for first_lap, piece, last in pieces:
            triton.fold_piece(total, partial, wrong, piece, first_lap, stream, last)
        self._device_checks.append((name, wrong == 0))

    def _add_on_device(self, name: str, gradient: torch.Tensor, stream: int) -> None:
        device = gradient.device
        partial = torch.zeros(
            min(self.period, gradient.numel()), dtype=torch.float32, device=device
        )
        for first_lap, piece, _ in self._pieces(gradient):
            signed = _signed(piece.float(), first_lap, stream, self.period)
            for lap in signed.split(self.period):
                partial[: lap.numel()] += lap
        self._device_checks.append((name, torch.isfinite(partial).all().reshape(1)))
        # Metal has no float64: there the sums across parameters live on the CPU.
        total = self._sum_on(torch.device("cpu") if device.type == "mps" else device)
        partial = partial.to(total.device)
        offset = stream % self.period
        until_wrap = min(partial.numel(), self.period - offset)
        wrapped = partial.numel() - until_wrap
        total[offset : offset + until_wrap] += partial[:until_wrap]
        total[:wrapped] += partial[until_wrap:]

    def _sum_on(self, device: torch.device) -> torch.Tensor:
        """The accumulators of the gradients that came on `device`, float64 (m,)."""
        total = self._device_sums.get(device)
        if total is None:
            total = torch.zeros(self.period, dtype=torch.float64, device=device)
            self._device_sums[device] = total
        return total


class SignFolds:
    """Folds of several clips' gradients, which come together one parameter at a time.

    Each is to the last bit what it is alone. On the CPU one call of the kernel serves all clips: a small
    parameter costs less than the call does.
    """

    def __init__(self, folds: Sequence[SignFold]) -> None:
        """folds: of one seed and length; they are reset, and their sums become rows of one array."""
        self._folds = folds
        self._sums = np.zeros((len(folds), folds[0].period))
        for fold, row in zip(folds, self._sums, strict=True):
            fold.reset()
            fold._sum = row

    def add(self, name: str, gradients: torch.Tensor) -> list[ClipError | None]:
        """Fold a parameter's gradients in, one clip's after the other along axis 0: `SignFold.add`.

        Returns what it raises for each clip, or None.
        """
        if gradients.device.type == "cpu" and gradients.numel() and has_words(gradients):
            words = words_of(gradients).reshape(len(self._folds), -1)
            finite = fold_together(self._sums, words, self._folds[0]._stream(name))
            return [None if good else not_finite(name) for good in finite.tolist()]
        errors: list[ClipError | None] = []
        for fold, gradient in zip(self._folds, gradients, strict=True):
            try:
                fold.add(name, gradient)
                errors.append(None)
            except ClipError as error:
                errors.append(error)
        return errors


def fold_together(
    sums_bm: npt.NDArray[np.float64], words_bi: npt.NDArray[Any], stream: int
) -> npt.NDArray[np.bool_]:
    """Fold gradients of one parameter, each into its sums; which of them are finite."""
    finite = np.empty(len(words_bi), dtype=np.bool_)
    offset, stream_64 = stream % sums_bm.shape[1], np.uint64(stream)

    def clips(lo: int, hi: int) -> bool:
        fold_clips(sums_bm[lo:hi], offset, words_bi[lo:hi], stream_64, finite[lo:hi])
        return True

    over_strips(clips, len(words_bi), 1, work=words_bi.size)
    return finite


def largest_prime(limit: int) -> int:
    """The largest prime <= limit, for limit >= 2 (65,521 for 65,536)."""
    numbers = range(limit, 1, -1)
    return next(n for n in numbers if all(n % d for d in range(2, math.isqrt(n) + 1)))


def not_finite(name: str) -> ClipError:
    """What a clip fails with whose gradient is of no use."""
    return ClipError(f"the gradient of parameter {name} holds NaN or Inf, or overflows float32")


def flat_pieces(gradient: torch.Tensor, size: int) -> Iterator[tuple[int, torch.Tensor]]:
    """The gradient's numbers in row-major order, as (index of the first, flat contiguous piece).

    Pieces of `size` numbers but for the last, so that a large gradient is not copied as a whole for
    the sake of its strides or its type. (A single row longer than that is copied whole.)
    """
    if gradient.is_contiguous():
        for start in range(0, gradient.numel(), size):
            yield start, gradient.view(-1)[start : start + size]
        return
    row_size = gradient[0].numel()
    for start in range(0, gradient.numel(), size):
        stop = min(start + size, gradient.numel())
        first_row = start // row_size
        few_rows = gradient[first_row : -(-stop // row_size)].reshape(-1)
        yield (
            start,
            few_rows[start - first_row * row_size : stop - first_row * row_size].contiguous(),
        )


def has_words(gradient: torch.Tensor) -> bool:
    """Whether the kernel can read it where it lies."""
    return gradient.dtype is not torch.float16 and gradient.is_contiguous()


def words_of(gradient: torch.Tensor) -> npt.NDArray[Any]:
    """The bits, flat: of bfloat16 (the upper half of a float32) as int16, of others as uint32."""
    if gradient.dtype is torch.bfloat16:
        return gradient.view(torch.int16).numpy().reshape(-1)
    return gradient.float().numpy().reshape(-1).view(np.uint32)


# Other devices ------------------------------------------------------------------------------------


@functools.cache
def _triton_fold(device: torch.device) -> Any:
    """The module of the Triton kernel, or None where there is no Triton that works on `device`."""
    if importlib.util.find_spec("triton") is None:
        return None
    try:
        module = importlib.import_module("motive.gradients.fold_triton")
        total = torch.zeros(1, dtype=torch.float64, device=device)
        wrong = torch.zeros(1, dtype=torch.int32, device=device)
        module.fold_piece(total, total, wrong, total.float(), 0, 0, True)
    except Exception as error:  # whatever Triton, a driver or a missing C compiler may raise
        warnings.warn(
            f"Triton does not run on {device} ({error}): gradients are folded by torch operations, "
            "which give the same numbers, slower",
            stacklevel=2,
        )
        return None
    return module


def _signed(piece: torch.Tensor, first_lap: int, stream: int, period: int) -> torch.Tensor:
    """A flat float32 piece, negated where the hash says so, by torch operations on its device."""
    per_lap = -(-period // BLOCK)
    laps = -(-piece.numel() // period)
    counters = torch.arange(
        first_lap * per_lap, (first_lap + laps) * per_lap, dtype=torch.int64, device=piece.device
    )
    minus = counter_torch.negative(counter_torch.hash64(stream, counters))
    minus = minus.view(laps, -1)[:, :period].reshape(-1)[: piece.numel()]
    return torch.where(minus, -piece, piece)
