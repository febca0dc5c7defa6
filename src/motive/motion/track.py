"""The stage that follows motion through every clip."""

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa

from motive.clips.ingest import decode_unchanged
from motive.clips.sampling import FrameSampler
from motive.motion.camera import CameraModel, estimate_camera
from motive.motion.masks import MOTIONS, Magnitude, MotionMaps, reduce_field
from motive.motion.statistics import MotionStatistics, describe_field
from motive.motion.trackers import Tracker
from motive.runs.stage import Resources, Stage
from motive.runs.tables import Row

STATISTICS = tuple(field.name for field in dataclasses.fields(MotionStatistics))
# Of maps and their extremes; the raw motion of the `paper` recipe goes without a prefix.
_PREFIX = {motion: "" if motion == "paper" else f"{motion}_" for motion in MOTIONS}


class TrackStage(Stage):
    """Takes rows of key (clip id), file (`file_key`) and path; gives maps and statistics."""

    name = "track"
    table = "motion"
    schema = pa.schema(
        [
            ("shape", pa.list_(pa.int32())),
            ("trust", pa.list_(pa.float32())),
            *((f"{p}magnitude", pa.list_(pa.float32())) for p in _PREFIX.values()),
            *((f"{p}{end}", pa.float32()) for p in _PREFIX.values() for end in ("low", "high")),
            *((name, pa.float32()) for name in STATISTICS),
        ]
    )

    def __init__(
        self,
        tracker: Tracker,
        sampler: FrameSampler,
        spatial_stride: int,
        camera_model: CameraModel = "similarity",
    ) -> None:
        self.tracker, self.sampler, self.spatial_stride = tracker, sampler, spatial_stride
        self.camera_model = camera_model

    def fingerprint(self) -> str:
        return (
            f"{self.tracker.fingerprint()} stride={self.spatial_stride} camera={self.camera_model}"
        )

    @property
    def resources(self) -> Resources:
        return Resources(self.tracker.device_name)

    def close(self) -> None:
        self.tracker.close()

    def prepare(self, row: Row) -> Row:
        return {**row, "decoded": decode_unchanged(row["file"], Path(row["path"]), self.sampler)}

    def process(self, row: Row) -> Row:
        field = self.tracker.track(row["decoded"].frames_fhw3)
        camera = estimate_camera(field, self.camera_model)
        return {
            **row_of(reduce_field(field, self.spatial_stride, camera)),
            **dataclasses.asdict(describe_field(field, camera)),
        }


def row_of(maps: MotionMaps) -> Row:
    """The columns that hold the maps."""
    row: Row = {
        "shape": np.asarray(maps.trust_fhw.shape, np.int32),
        "trust": maps.trust_fhw.ravel(),
    }
    for motion, prefix in _PREFIX.items():
        magnitude = maps.magnitudes[motion]
        row[f"{prefix}magnitude"] = magnitude.magnitude_fhw.ravel()
        row[f"{prefix}low"], row[f"{prefix}high"] = magnitude.low, magnitude.high
    return row


def maps_of(row: Row) -> MotionMaps:
    """The maps that a row of the stage holds."""
    shape = tuple(row["shape"])
    magnitudes = {
        motion: Magnitude(row[f"{p}magnitude"].reshape(shape), row[f"{p}low"], row[f"{p}high"])
        for motion, p in _PREFIX.items()
    }
    return MotionMaps(magnitudes, row["trust"].reshape(shape))
