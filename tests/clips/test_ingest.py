"""The ingest stage on rendered clips, and the keys that say which file a row is about."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from motive.clips.decoding import content_digest, decode_clip
from motive.clips.ingest import IngestStage, decode_unchanged, file_key
from motive.clips.sampling import FrameSampler, clip_id
from motive.errors import ClipError
from motive.runs.stage import Failure
from motive.runs.tables import Row, Table

SAMPLER = FrameSampler(max_frames=9, height=32, width=32, length_step=4)


def ingested(path: Path, sampler: FrameSampler = SAMPLER) -> Row:
    with opened(sampler) as stage:
        outcome = stage.attempt({"key": file_key(path), "path": str(path)})
    assert isinstance(outcome, dict), outcome
    return outcome


@contextmanager
def opened(sampler: FrameSampler) -> Iterator[IngestStage]:
    stage = IngestStage(sampler)
    stage.open()
    yield stage
    stage.close()


@pytest.fixture
def clip(zoo: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(zoo / "clips/000000.mp4", tmp_path / "a.mp4"))


def test_a_row_says_what_the_clip_is(clip: Path, tmp_path: Path) -> None:
    row = ingested(clip)
    decoded = decode_clip(clip, SAMPLER)
    assert row["clip_id"] == clip_id(content_digest(clip), SAMPLER)
    assert row["made_by"] == SAMPLER.fingerprint()
    assert (row["frames"], row["source_height"], row["source_width"]) == (9, 64, 64)
    assert (row["fps"], row["codec"]) == (decoded.fps, "h264")
    assert row["fps"] == pytest.approx(16)
    table = Table(tmp_path / "files.lance", IngestStage.schema)
    table.append([row])
    assert next(table.rows()) == pytest.approx(row)


def test_the_clip_id_follows_content_and_sampler_and_not_the_path(
    clip: Path, zoo: Path, tmp_path: Path
) -> None:
    one = ingested(clip)
    elsewhere = tmp_path / "deep/down"
    elsewhere.mkdir(parents=True)
    copy = Path(shutil.copy(clip, elsewhere / "β.mkv"))
    assert ingested(copy)["clip_id"] == one["clip_id"]
    assert ingested(copy)["key"] != one["key"]
    assert ingested(clip, replace(SAMPLER, fps=16.0))["clip_id"] != one["clip_id"]
    assert ingested(zoo / "clips/000001.mp4")["clip_id"] != one["clip_id"]


def test_a_file_that_is_no_clip_is_a_failure_with_its_reason(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("no video")
    for path, reason in (
        (tmp_path / "a.mp4", "not a readable media file"),
        (tmp_path / "gone.mp4", "cannot be read: No such file or directory"),
        (tmp_path, "cannot be read: Is a directory"),
    ):
        with opened(SAMPLER) as stage:
            outcome = stage.attempt({"key": "k", "path": str(path)})
        assert isinstance(outcome, Failure)
        assert outcome.key == "k"
        assert outcome.reason.startswith(reason)


def test_a_replaced_file_has_another_key_and_is_not_decoded_as_the_old_one(
    clip: Path, zoo: Path
) -> None:
    key = file_key(clip)
    assert file_key(clip) == key
    frames = decode_unchanged(key, clip, SAMPLER).frames_fhw3
    assert np.array_equal(frames, decode_clip(clip, SAMPLER).frames_fhw3)
    status = clip.stat()
    os.utime(clip, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert file_key(clip) != key
    shutil.copy(zoo / "clips/000002.mp4", clip)
    with pytest.raises(ClipError, match="the file changed after it was ingested"):
        decode_unchanged(key, clip, SAMPLER)
    clip.unlink()
    with pytest.raises(ClipError, match="the file changed after it was ingested"):
        decode_unchanged(key, clip, SAMPLER)
