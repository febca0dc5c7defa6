"""The sign-fold's CPU kernel, compiled by numba; `motive.gradients.fold` says what it computes."""

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.core.errors import TypingError
from numba.extending import intrinsic

from motive.gradients.counter import GOLDEN_GAMMA, MIX_MULTIPLIER_1, MIX_MULTIPLIER_2

BLOCK = 64  # coordinates signed by one hash


@njit(inline="always")
def hash64(stream, counter):  # type: ignore[no-untyped-def]
    """`counter.hash64` for one counter."""
    z = stream + np.uint64(GOLDEN_GAMMA) * counter
    z = (z ^ (z >> np.uint64(30))) * np.uint64(MIX_MULTIPLIER_1)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(MIX_MULTIPLIER_2)
    return z ^ (z >> np.uint64(31))


@intrinsic
def add_block(typing_context, partial, j, words, i, bits, ahead):  # type: ignore[no-untyped-def]
    """partial[j : j + 64] += the 64 floats whose words start at i, negated where `bits` has a 1.

    `partial` is float32 or float64. The words `ahead` of these are prefetched (an address outside the
    array does no harm).

    Written in LLVM's vector types because the loop vectoriser, given the same loop, takes twice as
    long. It is 4 groups of 16 lanes: load, widen bfloat16, flip the sign bit under a mask that is
    16 of the 64 bits, add. LLVM lowers it to whatever vectors the processor has.
    """
    if partial.layout != "C" or words.layout != "C":
        raise TypingError("the kernel reads neighbours: its arrays must be contiguous")
    signature = types.void(partial, j, words, i, bits, ahead)
    width = words.dtype.bitwidth

    def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
        lanes = 16
        int16, int32, int64 = ir.IntType(16), ir.IntType(32), ir.IntType(64)
        word_vector = ir.VectorType(ir.IntType(width), lanes)
        int_vector = ir.VectorType(int32, lanes)
        float_vector = ir.VectorType(ir.FloatType(), lanes)
        sum_size = partial.dtype.bitwidth // 8
        sum_vector = ir.VectorType(ir.DoubleType(), lanes) if sum_size == 8 else float_vector
        mask_vector = ir.VectorType(ir.IntType(1), lanes)
        sign_bit = ir.Constant(int_vector, [0x80000000] * lanes)
        no_bit = ir.Constant(int_vector, [0] * lanes)
        sums = context.make_array(signature.args[0])(context, builder, args[0]).data
        source = context.make_array(signature.args[2])(context, builder, args[2]).data
        address = ir.IntType(8).as_pointer()
        prefetch = builder.module.declare_intrinsic(
            "llvm.prefetch", [address], ir.FunctionType(ir.VoidType(), [address, *[int32] * 3])
        )
        to_read, keep, data = (ir.Constant(int32, code) for code in (0, 3, 1))
        for lane in range(0, BLOCK, lanes):
            at = ir.Constant(int64, lane)
            word_pointer = builder.gep(source, [builder.add(args[3], at)])
            value = builder.load(builder.bitcast(word_pointer, word_vector.as_pointer()))
            value.align = width // 8
            later = builder.bitcast(builder.gep(word_pointer, [args[5]]), address)
            builder.call(prefetch, [later, to_read, keep, data])
            if width == 16:
                value = builder.zext(value, int_vector)
                value = builder.shl(value, ir.Constant(int_vector, [16] * lanes))
            mask = builder.bitcast(builder.trunc(builder.lshr(args[4], at), int16), mask_vector)
            value = builder.xor(value, builder.select(mask, sign_bit, no_bit))
            sum_pointer = builder.gep(sums, [builder.add(args[1], at)])
            sum_pointer = builder.bitcast(sum_pointer, sum_vector.as_pointer())
            previous = builder.load(sum_pointer)
            previous.align = sum_size
            value = builder.bitcast(value, float_vector)
            if sum_size == 8:
                value = builder.fpext(value, sum_vector)
            builder.store(builder.fadd(previous, value), sum_pointer).align = sum_size
        return context.get_dummy_value()

    return signature, codegen


@njit(inline="always")
def _add_part_of_block(partial, j, end, words, i, bits):  # type: ignore[no-untyped-def]
    """`add_block` for partial[j : end], fewer than 64."""
    widen = np.uint32(32 - 8 * words.itemsize)
    for k in range(end - j):
        lane = np.uint64(k)
        flip = np.uint32((bits >> lane) & np.uint64(1)) << np.uint32(31)
        value = np.uint32((np.uint32(words[i + lane]) << widen) ^ flip)
        partial[j + lane] += value.view(np.float32)


@njit(inline="always")
def _flush(total, offset, partial, lo, hi):  # type: ignore[no-untyped-def]
    """total[(offset + j) mod m] += partial[j] for lo <= j < hi; whether all those are finite."""
    m = np.uint64(total.size)
    wrap = min(max(m - offset, lo), hi)
    finite = True
    for j in range(lo, wrap):
        total[offset + j] += partial[j]
        finite &= abs(partial[j]) < np.inf
    for j in range(wrap, hi):
        total[offset + j - m] += partial[j]
        finite &= abs(partial[j]) < np.inf
    return finite


@njit(nogil=True, cache=True)
def fold_strip(  # type: ignore[no-untyped-def]
    total, offset, partial, lo, hi, words, first_lap, stream, period, last
):
    """Add all laps in `words`, which starts with lap `first_lap`, to partial[lo:hi].

    If these are the last, add that to the total; whether all sums are then finite.

    lo is a multiple of 64. Unsigned indices throughout: numba then leaves out the test for negative
    ones. Four laps go together so that a stretch of `partial`, which as a whole fills much of the
    second-level cache, is fetched once for four; each accumulator still meets its laps in order.
    The next four are prefetched: a strip is too short a run for the processor to foresee.
    """
    block, one = np.uint64(BLOCK), np.uint64(1)
    lo, hi, lap, m = np.uint64(lo), np.uint64(hi), np.uint64(first_lap), np.uint64(period)
    size = np.uint64(words.size)
    per_lap = (m + block - one) // block
    four_laps = np.uint64(4) * m
    start = np.uint64(0)
    while start + lo < size:
        end = min(hi, size - start)
        j = lo
        if start + four_laps - m + hi <= size:
            laps = np.uint64(4)
            ahead = four_laps if start + four_laps + four_laps <= size else np.uint64(0)
            while j + block <= end:
                i, c = start + j, lap * per_lap + j // block
                add_block(partial, j, words, i, hash64(stream, c), ahead)
                i, c = i + m, c + per_lap
                add_block(partial, j, words, i, hash64(stream, c), ahead)
                i, c = i + m, c + per_lap
                add_block(partial, j, words, i, hash64(stream, c), ahead)
                i, c = i + m, c + per_lap
                add_block(partial, j, words, i, hash64(stream, c), ahead)
                j += block
        else:
            laps = one
            while j + block <= end:
                c = lap * per_lap + j // block
                add_block(partial, j, words, start + j, hash64(stream, c), np.uint64(0))
                j += block
        for _ in range(laps):
            if j < end:
                c = lap * per_lap + j // block
                _add_part_of_block(partial, j, end, words, start + j, hash64(stream, c))
            lap += one
            start += m
    return not last or _flush(total, np.uint64(offset), partial, lo, hi)


@njit(nogil=True, cache=True)
def fold_clips(totals, offset, words, stream, finite):  # type: ignore[no-untyped-def]
    """Fold several gradients of one parameter, words[b] into totals[b]; finite[b]: whether b's is."""
    m = totals.shape[1]
    for b in range(len(words)):
        if words.shape[1] <= m:
            finite[b] = _fold_short(totals[b], np.uint64(offset), words[b], stream)
        else:
            partial = np.zeros(m, np.float32)
            finite[b] = fold_strip(totals[b], offset, partial, 0, m, words[b], 0, stream, m, True)


@njit
def _fold_short(total, offset, words, stream):  # type: ignore[no-untyped-def]
    """Fold a gradient that is no longer than a lap; whether it is finite.

    Each accumulator has one addend, which needs no partial sum; the total is the same to the last bit.
    """
    block, zero = np.uint64(BLOCK), np.uint64(0)
    size, m = np.uint64(words.size), np.uint64(total.size)
    narrowed = 32 - 8 * words.itemsize
    infinity, magnitude = 0x7F800000 >> narrowed, 0x7FFFFFFF >> narrowed
    largest = 0
    for start in range(0, words.size, BLOCK):
        j = np.uint64(start)
        bits = hash64(stream, j // block)
        end, at = min(j + block, size), offset + j
        if at >= m:
            at -= m
        if end == j + block and at + block <= m:
            add_block(total, at, words, j, bits, zero)
        else:
            wrap = min(end, j + m - at)
            _add_part_of_block(total, at, at + wrap - j, words, j, bits)
            if wrap < end:
                rest = bits >> (wrap - j)
                _add_part_of_block(total, zero, end - wrap, words, wrap, rest)
        for i in range(j, end):
            largest = max(largest, np.int64(words[i]) & magnitude)
    return largest < infinity
