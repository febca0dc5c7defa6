"""Dot products of many features with a few queries, compiled by numba.

A score is the sum over the coordinates, from the first to the last, of double(clip) · double(query),
in float64, rounded once to float32. The product of two float32 is exact in float64, so whether a
processor fuses the multiplication with the addition makes no difference: the bits of a score follow
from the two features alone. They are the same for any tile, any number of threads and of other
clips, and on any processor. A matrix product of a BLAS promises none of this.

The lanes of a vector are queries, so that the sum over coordinates needs no regrouping. Six clips at a
time meet a panel of up to 32 queries: 24 accumulators and a row of the panel stay in the 32 registers
of AVX-512, where the loop runs at the processor's float64 peak. Written in LLVM's vector types because
the loop vectoriser keeps the accumulators in memory and takes half as long again.
"""

import functools
from typing import Any

import numpy as np
from llvmlite import binding, ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.extending import intrinsic

LANES = 8  # queries in a vector
ROWS = 6  # clips that go together


def _dots(vectors: int) -> Any:
    """The intrinsic for a panel of `vectors` vectors of queries."""

    @intrinsic
    def dots(typing_context, sums, rows, panel, start, dim):  # type: ignore[no-untyped-def]
        """sums[r, v] = Σ_k rows[r, k] · panel[start + (k, v)], of 6 rows, all float64 and flat."""
        signature = types.void(sums, rows, panel, start, dim)

        def codegen(context, builder, signature, args):  # type: ignore[no-untyped-def]
            int32, int64, double = ir.IntType(32), ir.IntType(64), ir.DoubleType()
            vector = ir.VectorType(double, LANES)
            sums, rows, panel = (
                context.make_array(signature.args[i])(context, builder, args[i]).data
                for i in range(3)
            )
            start, dim = args[3], args[4]
            multiply_add = builder.module.declare_intrinsic(
                f"llvm.fmuladd.v{LANES}f64", (), ir.FunctionType(vector, [vector] * 3)
            )
            undefined = ir.Constant(vector, ir.Undefined)
            to_all_lanes = ir.Constant(ir.VectorType(int32, LANES), [0] * LANES)
            row_starts = [
                builder.gep(rows, [builder.mul(dim, ir.Constant(int64, r))]) for r in range(ROWS)
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
                query.align = 8
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
            builder.cbranch(builder.icmp_unsigned("<", following, dim), loop, after)
            builder.position_at_end(after)
            for i, total in enumerate(added):
                place = builder.gep(sums, [ir.Constant(int64, i * LANES)])
                builder.store(total, builder.bitcast(place, vector.as_pointer())).align = 8
            return context.get_dummy_value()

        return signature, codegen

    return dots


_dots_1, _dots_2, _dots_3, _dots_4 = (_dots(vectors) for vectors in (1, 2, 3, 4))


@functools.cache
def widest_panel() -> int:
    """Vectors of queries in a panel: as many as leave the accumulators in registers."""
    return 4 if binding.get_host_cpu_features().get("avx512f") else 1


def pack_queries(queries_qd: np.ndarray, wide: int | None = None) -> tuple[np.ndarray, int]:
    """Queries as `score_rows` wants them: panel after panel, each (dim, queries), flat float64.

    wide: vectors in a panel, 1..4, which changes no score; None is what suits the processor.

    Returns them and `wide`.
    """
    wide = wide or widest_panel()
    count, dim = queries_qd.shape
    padded = np.zeros((-(-count // LANES) * LANES, dim))
    padded[:count] = queries_qd
    starts = range(0, len(padded), wide * LANES)
    panels = [padded[start : start + wide * LANES].T.ravel() for start in starts]
    return np.concatenate(panels), wide


@njit(nogil=True, cache=True)
def score_rows(features_nd, panels, wide, scores_qn, first):  # type: ignore[no-untyped-def]
    """scores_qn[:, first : first + n] = the scores of n features, float32 (n, dim) with dim > 0."""
    count, dim = features_nd.shape
    queries = len(scores_qn)
    rows = np.zeros(ROWS * dim, np.float64)
    sums = np.empty(ROWS * wide * LANES, np.float64)
    for n in range(0, count, ROWS):
        together = min(ROWS, count - n)
        for r in range(together):
            for k in range(dim):
                rows[r * dim + k] = features_nd[n + r, k]
        start = 0
        for q in range(0, queries, wide * LANES):
            vectors = min(wide, (queries - q + LANES - 1) // LANES)
            at, depth = np.uint64(start), np.uint64(dim)
            if vectors == 1:
                _dots_1(sums, rows, panels, at, depth)
            elif vectors == 2:
                _dots_2(sums, rows, panels, at, depth)
            elif vectors == 3:
                _dots_3(sums, rows, panels, at, depth)
            else:
                _dots_4(sums, rows, panels, at, depth)
            width = vectors * LANES
            for j in range(min(width, queries - q)):
                for r in range(together):
                    scores_qn[q + j, first + n + r] = np.float32(sums[r * width + j])
            start += width * dim
