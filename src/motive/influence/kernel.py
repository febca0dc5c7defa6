"""Dot products of many features with a few queries, compiled by numba.

A score is summed in pieces of 128 coordinates, from the first to the last: within a piece in float32 by
fused multiply-adds, the pieces in float64, rounded once to float32. Each step is one that IEEE 754 rounds
in one way, and the fused operation is asked for by name, so the bits of a score follow from the two
features alone. They are the same for any tile, any number of threads and of other clips, and on any
processor. A matrix product of a BLAS promises none of this. Of unit features a score is off by less than
128 · 2⁻²⁴ < 8e-6 at the very most, and by some 1e-8 as a rule; in float64 throughout it would take twice
as long.

The lanes of a vector are queries, so that the sum over coordinates needs no regrouping. Six clips at a
time meet a panel of up to 64 queries: 24 accumulators and a row of the panel stay in the 32 registers
of AVX-512, where the loop runs at the processor's float32 peak. Written in LLVM's vector types because
the loop vectoriser keeps the accumulators in memory and takes half as long again.
"""

import functools
from typing import Any

import numpy as np
from llvmlite import binding, ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.extending import intrinsic

LANES = 16  # queries in a vector
ROWS = 6  # clips that go together
PIECE = 128  # coordinates that are summed in float32


def _dots(vectors: int) -> Any:
    """The intrinsic for a panel of `vectors` vectors of queries."""

    @intrinsic
    def dots(typing_context, sums, rows, first, dim, panel, start, count):  # type: ignore[no-untyped-def]
        """sums[r, v] = Σ_k rows[first + r · dim + k] · panel[start + (k, v)] over k < count.

        Of 6 rows; all float32 and flat.
        """
        signature = types.void(sums, rows, first, dim, panel, start, count)

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            int32, int64, single = ir.IntType(32), ir.IntType(64), ir.FloatType()
            vector = ir.VectorType(single, LANES)
            sums, rows, panel = (
                context.make_array(signature.args[i])(context, builder, args[i]).data
                for i in (0, 1, 4)
            )
            first, dim, start, count = args[2], args[3], args[5], args[6]
            multiply_add = builder.module.declare_intrinsic(
                f"llvm.fma.v{LANES}f32", (), ir.FunctionType(vector, [vector] * 3)
            )
            undefined = ir.Constant(vector, ir.Undefined)
            to_all_lanes = ir.Constant(ir.VectorType(int32, LANES), [0] * LANES)
            row_starts = [
                builder.gep(rows, [builder.add(first, builder.mul(dim, ir.Constant(int64, r)))])
                for r in range(ROWS)
            ]
            before = builder.block
            loop = builder.append_basic_block("coordinates")
            after = builder.append_basic_block("summed")
            builder.branch(loop)
            builder.position_at_end(loop)
            k = builder.phi(int64)
            k.add_incoming(ir.Constant(int64, 0), before)
            accumulators = [builder.phi(vector) for _ in range(ROWS * vectors)]
            width = ir.Constant(int64, vectors * LANES)
            panel_row = builder.gep(panel, [builder.add(start, builder.mul(k, width))])
            queries = []
            for v in range(vectors):
                place = builder.gep(panel_row, [ir.Constant(int64, v * LANES)])
                query = builder.load(builder.bitcast(place, vector.as_pointer()))
                query.align = 4
                queries.append(query)
            added: list[Any] = []
            for row_start in row_starts:
                number = builder.load(builder.gep(row_start, [k]))
                clip = builder.insert_element(undefined, number, ir.Constant(int32, 0))
                clip = builder.shuffle_vector(clip, undefined, to_all_lanes)
                for query in queries:
                    so_far = accumulators[len(added)]
                    added.append(builder.call(multiply_add, [clip, query, so_far]))
            following = builder.add(k, ir.Constant(int64, 1))
            k.add_incoming(following, loop)
            for accumulator, total in zip(accumulators, added, strict=True):
                accumulator.add_incoming(ir.Constant(vector, [0.0] * LANES), before)
                accumulator.add_incoming(total, loop)
            builder.cbranch(builder.icmp_unsigned("<", following, count), loop, after)
            builder.position_at_end(after)
            for i, total in enumerate(added):
                place = builder.gep(sums, [ir.Constant(int64, i * LANES)])
                builder.store(total, builder.bitcast(place, vector.as_pointer())).align = 4
            return context.get_dummy_value()

        return signature, codegen

    return dots


_dots_1, _dots_2, _dots_3, _dots_4 = (_dots(vectors) for vectors in (1, 2, 3, 4))


@functools.cache
def widest_panel() -> int:
    """Vectors of queries in a panel: as many as leave the accumulators in registers."""
    return 4 if binding.get_host_cpu_features().get("avx512f") else 1


def pack_queries(queries_qd: np.ndarray, wide: int | None = None) -> tuple[np.ndarray, int]:
    """Queries as `score_rows` wants them: panel after panel, each (dim, queries), flat float32.

    wide: vectors in a panel, 1..4, which changes no score; None is what suits the processor.

    Returns them and `wide`.
    """
    wide = wide or widest_panel()
    count, dim = queries_qd.shape
    padded = np.zeros((-(-count // LANES) * LANES, dim), np.float32)
    padded[:count] = queries_qd
    starts = range(0, len(padded), wide * LANES)
    panels = [padded[start : start + wide * LANES].T.ravel() for start in starts]
    return np.concatenate(panels), wide


@njit(nogil=True, cache=True)
def score_rows(features_nd, panels, wide, scores_qn, first):  # type: ignore[no-untyped-def]
    """scores_qn[:, first : first + n] = the scores of n features, float32 (n, dim) with dim > 0."""
    count, dim = features_nd.shape
    queries = len(scores_qn)
    flat = features_nd.reshape(-1)
    last = np.zeros(ROWS * dim, np.float32)  # the clips that are left over, and none
    whole = count - count % ROWS
    last[: (count - whole) * dim] = flat[whole * dim :]
    piece = np.empty(ROWS * wide * LANES, np.float32)
    sums = np.empty(ROWS * wide * LANES, np.float64)
    for n in range(0, count, ROWS):
        together = min(ROWS, count - n)
        rows = flat if together == ROWS else last
        row_start = n * dim if together == ROWS else 0
        start = 0
        for q in range(0, queries, wide * LANES):
            vectors = min(wide, (queries - q + LANES - 1) // LANES)
            width = vectors * LANES
            sums[:] = 0
            for k in range(0, dim, PIECE):
                at, depth = np.uint64(start + k * width), np.uint64(min(PIECE, dim - k))
                place, step = np.uint64(row_start + k), np.uint64(dim)
                if vectors == 1:
                    _dots_1(piece, rows, place, step, panels, at, depth)
                elif vectors == 2:
                    _dots_2(piece, rows, place, step, panels, at, depth)
                elif vectors == 3:
                    _dots_3(piece, rows, place, step, panels, at, depth)
                else:
                    _dots_4(piece, rows, place, step, panels, at, depth)
                for i in range(ROWS * width):
                    sums[i] += piece[i]
            for j in range(min(width, queries - q)):
                for r in range(together):
                    scores_qn[q + j, first + n + r] = np.float32(sums[r * width + j])
            start += width * dim
