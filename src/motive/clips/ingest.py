"""The first stage: is the file a clip, which one, and what is it like?"""

from pathlib import Path

import pyarrow as pa

from motive.clips.decoding import DecodedClip, decode_clip
from motive.clips.isolation import ClipFacts, Decoders, DecodingLimits
from motive.clips.sampling import FrameSampler, clip_id
from motive.errors import ClipError
from motive.runs.stage import Resources, Stage
from motive.runs.tables import Row


def file_key(path: Path) -> str:
    """A file as it is now: its path, size and time of change. A replaced file has another key."""
    try:
        status = path.stat()
    except OSError as error:
        return f"{path}|{error.strerror}|0"
    return f"{path}|{status.st_size}|{status.st_mtime_ns}"


def decode_unchanged(key: str, path: Path, sampler: FrameSampler) -> DecodedClip:
    """Decode a file that was ingested as `key`.

    Raises ClipError when the file is no longer what was ingested, or cannot be decoded.
    """
    if file_key(path) != key:
        raise ClipError("the file changed after it was ingested: run again to take the new content")
    return decode_clip(path, sampler)


class IngestStage(Stage):
    """Reads, hashes and decodes each file once, so that later stages meet no surprise.

    In other processes, several files at once, within limits: whatever a file does to its decoder is that
    file's failure. The limits are no part of the fingerprint: what is within them is the same.

    Takes rows of key (`file_key`) and path.
    """

    name = "ingest"
    table = "files"
    schema = pa.schema(
        [
            ("clip_id", pa.string()),
            ("frames", pa.int32()),
            ("fps", pa.float32()),
            ("source_fps", pa.float32()),
            ("source_height", pa.int32()),
            ("source_width", pa.int32()),
            ("codec", pa.string()),
        ]
    )

    def __init__(self, sampler: FrameSampler, limits: DecodingLimits | None = None) -> None:
        self.sampler, self.limits = sampler, limits or DecodingLimits()
        self._decoders: Decoders | None = None

    def fingerprint(self) -> str:
        return self.sampler.fingerprint()

    @property
    def resources(self) -> Resources:
        return Resources(cpus=self.limits.processes)

    @property
    def prepares(self) -> int:
        return self.limits.workers

    def open(self) -> None:
        self._decoders = Decoders(self.limits)

    def close(self) -> None:
        if self._decoders is not None:
            self._decoders.close()
            self._decoders = None

    def prepare(self, row: Row) -> Row:
        if self._decoders is None:
            raise AssertionError("a stage is opened before it gets rows")
        return {**row, "facts": self._decoders.examine(Path(row["path"]), self.sampler)}

    def process(self, row: Row) -> Row:
        facts: ClipFacts = row["facts"]
        return {
            "clip_id": clip_id(facts.digest, self.sampler),
            "frames": facts.frames,
            "fps": facts.fps,
            "source_fps": facts.source_fps,
            "source_height": facts.source_height,
            "source_width": facts.source_width,
            "codec": facts.codec,
        }
