"""The sign-fold's CUDA kernel, in Triton; `motive.gradients.fold` says what it computes.

One program owns 64 accumulators and meets their laps in order, so each sum is made by one program in
the order in which the CPU makes it: nothing is atomic, and the numbers are the CPU's, bit for bit.
"""

import torch
import triton
import triton.language as tl

from motive.gradients import counter

_GOLDEN_GAMMA = tl.constexpr(counter.GOLDEN_GAMMA)
_MIX_MULTIPLIER_1 = tl.constexpr(counter.MIX_MULTIPLIER_1)
_MIX_MULTIPLIER_2 = tl.constexpr(counter.MIX_MULTIPLIER_2)

_WORD = tl.constexpr(64)  # accumulators of one program: the signs of one hash
# Laps in flight in one program. About a thousand programs share a GPU: 8 laps of 256 bytes each keep
# some 2 MB on their way, which is what memory of 3 TB/s with 600 ns of latency needs.
_UNROLL = tl.constexpr(8)


@triton.jit(do_not_specialize=["stream", "size", "first_lap", "offset"])
def fold_laps(  # type: ignore[no-untyped-def]
    total,
    partial,
    not_finite,
    numbers,
    stream: tl.uint64,
    size,
    first_lap,
    offset,
    period,
    first: tl.constexpr,
    last: tl.constexpr,
):
    """Add all laps in `numbers`, which starts with lap `first_lap`, to the sums of 64 accumulators.

    The sums begin at zero if these laps are the `first`, else at `partial`. They end in `partial`, or,
    if these are the `last`, in total[(offset + j) mod period], float64, and not_finite[0] becomes 1
    if one is NaN or infinite (several programs may store that same 1).
    """
    word = tl.program_id(0)
    zero = (word * 0).to(tl.int64)  # makes 64-bit numbers of what is added to it
    lane = tl.arange(0, _WORD)
    j = word * _WORD + lane
    inside = j < period
    per_lap = tl.cdiv(period, _WORD)
    sums = tl.zeros([_WORD], dtype=tl.float32)
    if not first:
        sums = tl.load(partial + j, mask=inside, other=0.0)
    laps = tl.cdiv(size, period)
    for group in range(0, laps, _UNROLL):
        for step in tl.static_range(_UNROLL):
            lap = zero + group + step
            i = lap * period + j
            value = tl.load(numbers + i, mask=inside & (i < size), other=0.0).to(tl.float32)
            # hash64 of one counter
            z = ((first_lap + lap) * per_lap + word).to(tl.uint64)
            z = z * _GOLDEN_GAMMA + stream.to(tl.uint64)
            z = (z ^ (z >> 30)) * _MIX_MULTIPLIER_1
            z = (z ^ (z >> 27)) * _MIX_MULTIPLIER_2
            z = z ^ (z >> 31)
            minus = (z >> lane.to(tl.uint64)) & 1
            sums += tl.where(minus != 0, -value, value)
    if last:
        to = offset + j
        to = tl.where(to >= period, to - period, to)
        before = tl.load(total + to, mask=inside, other=0.0)
        tl.store(total + to, before + sums.to(tl.float64), mask=inside)
        wrong = tl.max(tl.where(tl.abs(sums) < float("inf"), 0, 1), axis=0)
        tl.store(not_finite, 1, mask=wrong != 0)
    else:
        tl.store(partial + j, sums, mask=inside)


def fold_piece(
    total: torch.Tensor,
    partial: torch.Tensor,
    not_finite: torch.Tensor,
    piece: torch.Tensor,
    first_lap: int,
    stream: int,
    last: bool,
) -> None:
    """Launch `fold_laps` for a flat contiguous piece of a gradient, on the piece's device.

    Args:
        total: float64 (m,), the accumulators of all parameters, m being the period.
        partial: float32 (m,), this parameter's sums between its pieces; unused if there is one piece.
        not_finite: int32 (1,).
        piece: float32, bfloat16 or float16; starts with lap `first_lap`.
        stream: the key of the parameter's signs.
        last: whether the parameter ends with this piece.
    """
    period = total.numel()
    # Of a parameter shorter than a lap only so many accumulators are touched.
    used = period if first_lap else min(period, piece.numel())
    with torch.cuda.device_of(piece):
        fold_laps[(triton.cdiv(used, _WORD.value),)](
            total,
            partial,
            not_finite,
            piece,
            stream,
            piece.numel(),
            first_lap,
            stream % period,
            period,
            first=first_lap == 0,
            last=last,
            num_warps=1,
        )
