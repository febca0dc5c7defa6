"""`scores.parquet`: clip_id, query_id, score, by query and then clip id, written and read in parts.

The ids are dictionary-encoded: a row costs 4 bytes of score and about as many bits of id as the clips
need. Other programs read plain strings and float32.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from motive.runs.remote import RemotePath, RunPath, whole_file
from motive.runs.texts import Texts, as_array

_ROWS = 1 << 22  # of a row group; those of several queries share one dictionary of clip ids
_CLIPS = 1 << 20  # of one query in a row group
_READ = 1 << 18  # rows read at a time
_ID = pa.dictionary(pa.int32(), pa.string())


def write_score_file(
    path: RunPath,
    scores_qn: Iterable[np.ndarray],
    query_ids: Sequence[str],
    clip_ids: Sequence[str],
    objective: str,
    query_objective: str = "",
    estimator: str = "",
) -> int:
    """Write the whole file or nothing. Returns the number of scores.

    scores_qn: `(N,)` float32 for each query, read as they are needed: some 100 MB are held at most,
        whatever Q.
    clip_ids: in ascending order.
    objective: JSON of what the clips' features were made with, kept in the file's metadata.
    query_objective: JSON of what the queries' were made with; empty for the same.
    estimator: by name, what made scores of them (`motive.influence.estimators`); empty for the paper's.
    """
    columns = [("clip_id", _ID), ("query_id", _ID), ("score", pa.float32())]
    schema = pa.schema(columns)
    # Rows go by query: only whole queries can share a row group.
    together = max(1, _ROWS // len(clip_ids)) if len(clip_ids) <= _CLIPS else 1
    rows, ids = iter(scores_qn), as_array(clip_ids)
    with (
        whole_file(path) as part,
        pq.ParquetWriter(
            part,
            schema,
            store_schema=False,  # else readers would be given dictionaries
            compression={"clip_id": "zstd", "query_id": "zstd", "score": "none"},
            use_dictionary=["clip_id", "query_id"],
            dictionary_pagesize_limit=1 << 30,
            write_statistics=["query_id"],  # comparing clip ids would take most of the time
        ) as writer,
    ):
        for first in range(0, len(query_ids), together):
            queries = query_ids[first : first + together]
            block = list(islice(rows, len(queries)))
            for start in range(0, len(clip_ids), _CLIPS):
                scores = np.stack([row[start : start + _CLIPS] for row in block])
                some = ids.slice(start, scores.shape[1])
                table = pa.table([*_ids(queries, some), pa.array(scores.ravel())], schema)
                writer.write_table(table, row_group_size=len(table))
        about = {"query_objective": query_objective, "estimator": estimator}
        said = {name: value for name, value in about.items() if value}
        writer.add_key_value_metadata({"objective": objective, **said})
    return len(query_ids) * len(clip_ids)


def _ids(queries: Sequence[str], clips: pa.Array) -> tuple[pa.Array, pa.Array]:
    clip = np.tile(np.arange(len(clips), dtype=np.int32), len(queries))
    query = np.repeat(np.arange(len(queries), dtype=np.int32), len(clips))
    return (
        pa.DictionaryArray.from_arrays(pa.array(clip), clips),
        pa.DictionaryArray.from_arrays(pa.array(query), pa.array(queries, pa.string())),
    )


class ScoreFile:
    """A `scores.parquet`, of this or an older version."""

    def __init__(self, path: RunPath) -> None:
        file = path.open_parts() if isinstance(path, RemotePath) else path
        self._file = pq.ParquetFile(file, read_dictionary=["query_id"])

    @property
    def objective(self) -> str:
        """JSON of the objective that the clips' features were made with."""
        return self._about("objective")

    @property
    def query_objective(self) -> str:
        """JSON of the objective that the queries' features were made with."""
        return self._about("query_objective") or self.objective

    @property
    def estimator(self) -> str:
        """What made scores of the features, by name."""
        return self._about("estimator") or "paper"

    def _about(self, name: str) -> str:
        return str(self._file.metadata.metadata.get(name.encode(), b"").decode())

    @cached_property
    def query_ids(self) -> list[str]:
        """In the order of `rows`."""
        found: list[str] = []
        for column in self._parts("query_id"):
            codes = column.indices.to_numpy()
            firsts = np.concatenate(([0], np.flatnonzero(np.diff(codes)) + 1))
            names = column.take(pa.array(firsts)).to_pylist()
            found += names[1:] if found and found[-1] == names[0] else names
        return found

    @cached_property
    def clip_ids(self) -> Texts:
        """In the order of each row's scores."""
        left = self._file.metadata.num_rows // len(self.query_ids)
        parts: list[pa.Array] = []
        for part in self._parts("clip_id"):
            parts.append(part[:left])
            left -= len(parts[-1])
            if not left:
                break
        return Texts(pa.chunked_array(parts, pa.string()))

    def rows(self) -> Iterator[np.ndarray]:
        """The scores of all clips with each query, `(N,)` float32."""
        row, filled = np.empty(len(self.clip_ids), np.float32), 0
        for part in self._parts("score"):
            scores = part.to_numpy()
            while len(scores):
                taken = min(len(scores), len(row) - filled)
                row[filled : filled + taken] = scores[:taken]
                scores, filled = scores[taken:], filled + taken
                if filled == len(row):
                    yield row
                    row, filled = np.empty_like(row), 0

    def _parts(self, column: str) -> Iterator[pa.Array]:
        for batch in self._file.iter_batches(columns=[column], batch_size=_READ):
            yield batch.column(0)
