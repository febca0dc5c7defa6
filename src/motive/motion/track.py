"""The stage that follows motion through every clip."""

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa

from motive.clips.ingest import decode_unchanged
from motive.clips.sampling import FrameSampler
from motive.motion.masks import MotionMaps, describe_field, reduce_field
from motive.motion.trackers import Tracker
from motive.runs.stage import Stage
from motive.runs.tables import Row


class TrackStage(Stage):
    """Takes rows of key (clip id), file (`file_key`) and path; gives maps and statistics."""

    name = "track"
    table = "motion"
    schema = pa.schema(
        [
            ("shape", pa.list_(pa.int32())),
            ("magnitude", pa.list_(pa.float32())),
            ("trust", pa.list_(pa.float32())),
            ("low", pa.float32()),
            ("high", pa.float32()),
            ("mean_speed", pa.float32()),
            ("p95_speed", pa.float32()),
            ("moving_share", pa.float32()),
            ("confident_share", pa.float32()),
        ]
    )

    def __init__(self, tracker: Tracker, sampler: FrameSampler, spatial_stride: int) -> None:
        self.tracker, self.sampler, self.spatial_stride = tracker, sampler, spatial_stride

    def fingerprint(self) -> str:
        return f"{self.tracker.fingerprint()} stride={self.spatial_stride}"

    def prepare(self, row: Row) -> Row:
        return {**row, "decoded": decode_unchanged(row["file"], Path(row["path"]), self.sampler)}

    def process(self, row: Row) -> Row:
        field = self.tracker.track(row["decoded"].frames_fhw3)
        maps = reduce_field(field, self.spatial_stride)
        return {
            "shape": np.asarray(maps.magnitude_fhw.shape, np.int32),
            "magnitude": maps.magnitude_fhw.ravel(),
            "trust": maps.trust_fhw.ravel(),
            "low": maps.low,
            "high": maps.high,
            **dataclasses.asdict(describe_field(field)),
        }


def maps_of(row: Row) -> MotionMaps:
    """The maps that a row of the stage holds."""
    shape = tuple(row["shape"])
    return MotionMaps(
        row["magnitude"].reshape(shape), row["trust"].reshape(shape), row["low"], row["high"]
    )
