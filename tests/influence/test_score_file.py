"""scores.parquet: the same rows whatever its parts, and the files of older versions."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from motive.influence import score_file
from motive.influence.score_file import ScoreFile, write_score_file


def plain_table(scores: np.ndarray, query_ids: list[str], clip_ids: list[str]) -> pa.Table:
    return pa.table(
        {
            "clip_id": np.tile(clip_ids, len(query_ids)),
            "query_id": np.repeat(query_ids, len(clip_ids)),
            "score": scores.ravel(),
        }
    ).replace_schema_metadata({"objective": "{}"})


@settings(deadline=None, max_examples=60)
@given(
    queries=st.integers(1, 5),
    clips=st.integers(1, 12),
    rows=st.integers(1, 40),
    clips_in_group=st.integers(1, 14),
    read=st.integers(1, 60),
)
@example(queries=3, clips=10, rows=100, clips_in_group=5, read=7)  # several queries, clips in parts
@example(queries=3, clips=10, rows=20, clips_in_group=10, read=100)  # two queries in a group
def test_what_is_written_is_read_whatever_the_parts(
    tmp_path_factory: pytest.TempPathFactory,
    queries: int,
    clips: int,
    rows: int,
    clips_in_group: int,
    read: int,
) -> None:
    scores = np.random.default_rng(0).normal(size=(queries, clips)).astype(np.float32)
    query_ids = [f"q{i % 3}{i}" for i in range(queries)]
    clip_ids = [f"{i:020x}" for i in range(clips)]
    plain = plain_table(scores, query_ids, clip_ids)
    folder = tmp_path_factory.mktemp("scores")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(score_file, "_ROWS", rows)
        patch.setattr(score_file, "_CLIPS", clips_in_group)
        patch.setattr(score_file, "_READ", read)
        new, old = folder / "scores.parquet", folder / "old.parquet"
        assert write_score_file(new, iter(scores), query_ids, clip_ids, "{}") == scores.size
        pq.write_table(plain, old, row_group_size=rows)  # as versions before wrote it
        assert pq.read_table(new).equals(plain, check_metadata=True)
        for path in (new, old):
            file = ScoreFile(path)
            assert (file.objective, file.query_ids, file.clip_ids) == ("{}", query_ids, clip_ids)
            assert np.array_equal(np.stack(list(file.rows())), scores)
    assert {p.name for p in folder.iterdir()} == {"scores.parquet", "old.parquet"}


def test_ids_are_written_once_for_several_queries(tmp_path: Path) -> None:
    clip_ids = [f"{i:020x}" for i in np.random.default_rng(0).permutation(3000)]
    scores = np.random.default_rng(0).normal(size=(20, 3000)).astype(np.float32)
    path = tmp_path / "scores.parquet"
    write_score_file(path, scores, [f"q{i}" for i in range(20)], sorted(clip_ids), "{}")
    assert path.stat().st_size < 7 * scores.size  # of 4 + 2 bytes and some


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "scores.parquet"
    write_score_file(path, np.zeros((1, 2), np.float32), ["q"], ["a", "b"], "{}")
    before = path.read_bytes()

    def broken() -> object:
        yield np.zeros(2, np.float32)
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        write_score_file(path, broken(), ["q", "r"], ["a", "b"], "{}")  # type: ignore[arg-type]
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["scores.parquet"]
