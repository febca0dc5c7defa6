"""The tracking stage: what it stores, and that a stored row is the clip's motion again."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from motive.clips.decoding import decode_clip
from motive.clips.ingest import file_key
from motive.clips.sampling import FrameSampler
from motive.errors import ClipError
from motive.motion.camera import CameraModel, estimate_camera
from motive.motion.dis import DisTracker
from motive.motion.field import MotionField
from motive.motion.masks import MOTIONS, motion_mask, reduce_field
from motive.motion.statistics import describe_field
from motive.motion.track import STATISTICS, TrackStage, maps_of
from motive.runs.stage import Failure
from motive.runs.tables import Row, Table

SAMPLER = FrameSampler(max_frames=9, height=64, width=64, length_step=4)


def row_for(path: Path) -> Row:
    return {"key": "clip", "file": file_key(path), "path": str(path)}


def test_a_stored_row_gives_the_maps_and_the_statistics(zoo: Path, tmp_path: Path) -> None:
    path = zoo / "clips/000006.mp4"
    stage = TrackStage(DisTracker(), SAMPLER, 8)
    table = Table(tmp_path / "motion.lance", stage.schema)
    table.append([r for r in stage([row_for(path)]) if isinstance(r, dict)])
    (stored,) = table.rows(stage.fingerprint())
    field = DisTracker().track(decode_clip(path, SAMPLER).frames_fhw3)
    camera = estimate_camera(field)
    maps, expected = maps_of(stored), reduce_field(field, 8, camera)
    assert maps.trust_fhw.shape == (9, 8, 8)
    assert np.array_equal(maps.trust_fhw, expected.trust_fhw)
    assert maps.magnitudes.keys() == expected.magnitudes.keys() == set(MOTIONS)
    for motion, found in maps.magnitudes.items():
        original = expected.magnitudes[motion]
        assert np.array_equal(found.magnitude_fhw, original.magnitude_fhw)
        assert (found.low, found.high) == (original.low, original.high)
        assert np.array_equal(motion_mask(maps, motion), motion_mask(expected, motion))
    statistics = describe_field(field, camera)
    for name in STATISTICS:
        assert stored[name] == pytest.approx(getattr(statistics, name)), name
    assert statistics.mean_speed > 0.05


def test_the_fingerprint_is_the_tracker_the_grid_and_the_camera_model() -> None:
    class Other(DisTracker):
        def fingerprint(self) -> str:
            return "other"

    models: tuple[CameraModel, ...] = ("translation", "similarity")
    stages = [
        TrackStage(t, SAMPLER, s, m)
        for t in (DisTracker(), Other())
        for s in (8, 16)
        for m in models
    ]
    assert len({s.fingerprint() for s in stages}) == 8


def test_a_changed_file_and_a_clip_that_the_tracker_refuses_are_failures(
    zoo: Path, tmp_path: Path
) -> None:
    class Refusing(DisTracker):
        def track(self, frames_fhw3: np.ndarray) -> MotionField:
            raise ClipError("nothing to follow")

    path = Path(shutil.copy(zoo / "clips/000000.mp4", tmp_path / "a.mp4"))
    row = row_for(path)
    assert TrackStage(Refusing(), SAMPLER, 8).attempt(row) == Failure("clip", "nothing to follow")
    path.write_bytes(path.read_bytes() + b"\0")
    outcome = TrackStage(DisTracker(), SAMPLER, 8).attempt(row)
    assert isinstance(outcome, Failure)
    assert outcome.reason.startswith("the file changed after it was ingested")
