"""The first stage: is the file a clip, which one, and what is it like?"""

from pathlib import Path

import pyarrow as pa

from motive.clips.decoding import DecodedClip, content_digest, decode_clip
from motive.clips.sampling import FrameSampler, clip_id
from motive.errors import ClipError
from motive.runs.stage import Stage
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

    def __init__(self, sampler: FrameSampler) -> None:
        self.sampler = sampler

    def fingerprint(self) -> str:
        return self.sampler.fingerprint()

    def prepare(self, row: Row) -> Row:
        path = Path(row["path"])
        digest = content_digest(path)
        return {**row, "digest": digest, "decoded": decode_clip(path, self.sampler)}

    def process(self, row: Row) -> Row:
        decoded: DecodedClip = row["decoded"]
        return {
            "clip_id": clip_id(row["digest"], self.sampler),
            "frames": len(decoded.frames_fhw3),
            "fps": decoded.fps,
            "source_fps": decoded.source_fps,
            "source_height": decoded.source_height,
            "source_width": decoded.source_width,
            "codec": decoded.codec,
        }
