"""Influence: I(v_n, q) = g̃(q)ᵀ g̃(v_n) (paper, section 3.4).

A score depends on the two features and on nothing else, to the last bit; `motive.influence.kernel`
says why.
"""

import os
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from motive.errors import UserError
from motive.influence.stored import stored_features
from motive.runs.tables import Table
from motive.runs.texts import as_array

TILE = 4096  # clips whose scores are made together: 8 MB of features of 512 numbers


def influence(queries_qd: np.ndarray, clips_nd: np.ndarray) -> np.ndarray:
    """Cosine scores `(Q, N)` float32 of unit features; a zero feature scores 0 with everything.

    Features are float32 or float16. Summed in float64, from the first coordinate to the last, and
    rounded once.
    """
    return _Scorer(queries_qd)([clips_nd])


def available_threads() -> int:
    """The processor's cores that this process may use, or fewer if OMP_NUM_THREADS says so."""
    wish = os.environ.get("OMP_NUM_THREADS", "")
    if wish.isdigit() and int(wish) > 0:
        return int(wish)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Scores:
    """Scores of many clips with Q queries, in an unnamed file that vanishes when closed.

    Made by `score_table`. Memory holds a key for each clip and no scores.
    """

    def __init__(self, queries: int, folder: Path | None) -> None:
        self.queries = queries
        self.keys: pa.ChunkedArray = pa.chunked_array([], pa.string())
        self._tiles: list[int] = []
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  (closed with this)

    def rows(self, keys: Sequence[str] | None = None) -> Iterator[np.ndarray]:
        """The scores with each query, `(N,)` float32, of the clips of these keys, in their order.

        keys: None is all clips, in the order of `self.keys`. Of a key that is there several times the
            last counts.

        Raises KeyError for a key without scores.
        """
        places = None if keys is None else self._places(keys)
        for query in range(self.queries):
            row = self._row(query)
            yield row if places is None else row[places]

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> "Scores":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _append(self, scores_qn: np.ndarray) -> None:
        try:
            self._file.write(scores_qn.data)
        except OSError as error:
            raise UserError(
                f"the scores do not fit on the disk ({error.strerror}): free "
                f"{self.queries * 4} bytes for each clip and run the same command again"
            ) from None
        self._tiles.append(scores_qn.shape[1])

    def _row(self, query: int) -> np.ndarray:
        row = np.empty(sum(self._tiles), np.float32)
        read, tile_start = 0, 0
        for clips in self._tiles:
            self._file.seek(tile_start + 4 * query * clips)
            self._file.readinto(row[read : read + clips].data)
            read, tile_start = read + clips, tile_start + 4 * self.queries * clips
        return row

    def _places(self, keys: Sequence[str]) -> np.ndarray | None:
        """Where the clips of these keys are in a row; None for a row as it is."""
        wanted = as_array(keys)
        if self.keys.equals(pa.chunked_array([wanted])):
            return None
        last_first = self.keys.take(np.arange(len(self.keys))[::-1])
        found = pc.index_in(wanted, value_set=last_first)
        if found.null_count:
            raise KeyError(keys[pc.is_null(found).index(True).as_py()])
        return len(self.keys) - 1 - found.to_numpy()


def score_table(
    table: Table,
    made_by: str,
    queries_qd: np.ndarray,
    *,
    folder: Path | None = None,
    threads: int | None = None,
) -> Scores:
    """The scores of every feature in `table` that `made_by` made, read and scored tile by tile.

    table: with columns `key` and `feature`, lists of float32 or float16 of the queries' length.
    folder: where the scores' unnamed file lies, 4 bytes each; None is the system's folder for such.
    threads: None is `available_threads`. Neither their number nor the tile changes a score.

    Raises UserError when the disk is full or the table cannot be read.
    """
    threads = threads or available_threads()
    score, scores = _Scorer(queries_qd), Scores(len(queries_qd), folder)
    keys: list[pa.Array] = []
    waiting: deque[Future[np.ndarray]] = deque()
    try:
        with ThreadPoolExecutor(threads, thread_name_prefix="motive-score") as pool:
            for pieces in _tiles(stored_features(table, made_by, queries_qd.shape[1]), keys):
                waiting.append(pool.submit(score, pieces))
                # One tile waits for each that is worked on, and no more are in memory.
                while len(waiting) > 2 * threads:
                    scores._append(waiting.popleft().result())
            while waiting:
                scores._append(waiting.popleft().result())
    except BaseException:
        scores.close()
        raise
    scores.keys = pa.chunked_array(keys, pa.string())
    return scores


def _tiles(
    batches: Iterable[tuple[pa.Array, np.ndarray]], keys: list[pa.Array]
) -> Iterator[list[np.ndarray]]:
    """Features gathered, not copied, to tiles of TILE clips; their keys go to `keys`."""
    pieces: list[np.ndarray] = []
    held = 0
    for key, features_nd in batches:
        keys.append(key)
        while len(features_nd):
            piece = features_nd[: TILE - held]
            pieces.append(piece)
            features_nd, held = features_nd[len(piece) :], held + len(piece)
            if held == TILE:
                yield pieces
                pieces, held = [], 0
    if pieces:
        yield pieces


class _Scorer:
    """Scores features with these queries, `(Q, dim)`, their panels being packed once."""

    def __init__(self, queries_qd: np.ndarray) -> None:
        from motive.influence.kernel import pack_queries

        self._queries = len(queries_qd)
        self._panels, self._wide = pack_queries(queries_qd)

    def __call__(self, pieces: list[np.ndarray]) -> np.ndarray:
        """Scores `(Q, n)` of n features in as many pieces as they come."""
        from motive.influence.kernel import score_rows

        scores_qn = np.empty((self._queries, sum(map(len, pieces))), np.float32)
        first = 0
        for piece in pieces:
            features_nd = np.ascontiguousarray(piece, np.float32).view()
            features_nd.flags.writeable = False  # as Arrow's are: one compiled kernel serves both
            score_rows(features_nd, self._panels, self._wide, scores_qn, first)
            first += len(piece)
        return scores_qn
