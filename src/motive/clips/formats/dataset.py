"""What reading a clip dataset gives back, and what writing one needs and reports."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from motive.clips.record import ClipRecord

#: Suffixes, in lower case, of the files that count as clips; everything else is never a record.
MEDIA_SUFFIXES = frozenset(
    {".mp4", ".mov", ".mkv", ".webm", ".avi", ".gif", ".mpeg", ".mpg", ".m4v"}
)


@dataclass(frozen=True)
class Problem:
    """One entry of a dataset that cannot be used.

    file_name: the entry's name in the dataset, or where the entry stands (`metadata.csv, line 3`)
        when it has none. The second of two entries for one file carries the name of the first.
    reason: one clause that completes "the file ...".
    of_record: whether the entry of that name that counts is a record, so that the file is not lost.
    """

    file_name: str
    reason: str
    of_record: bool = field(default=False, compare=False)


@dataclass(frozen=True)
class Dataset:
    """A clip dataset as it was read: usable records in dataset order, and the entries left out."""

    format: str
    records: list[ClipRecord]
    problems: list[Problem]


@dataclass(frozen=True)
class ExportClip:
    """One selected clip.

    path: its media file.
    file_name: its name in the dataset that it came from.
    caption: may be empty.
    rank: 1 is the best; unique in one export, gaps are allowed.
    scores: finite numbers to pass on where the format has a place for them.
    """

    path: Path
    file_name: str
    caption: str
    rank: int
    scores: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ExportedClip:
    """Where one clip went.

    name: its name in the export, relative, with forward slashes.
    reencoded: empty when the bytes are the source's; else what was done and why.
    """

    rank: int
    file_name: str
    name: str
    reencoded: str = ""


@dataclass(frozen=True)
class CaptionChange:
    """A caption that the format cannot hold as it is, and what was done to it."""

    file_name: str
    change: str


@dataclass(frozen=True)
class ExportReport:
    """What an export holds, and everything in it that is not the source byte for byte.

    clips: best first.
    captions_changed: captions that differ from the ones given.
    problems: clips that had to be left out (a re-encoding that failed).
    notes: facts about the format that the user should know.
    """

    format: str
    out: Path
    clips: tuple[ExportedClip, ...]
    captions_changed: tuple[CaptionChange, ...] = ()
    problems: tuple[Problem, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def reencoded(self) -> tuple[ExportedClip, ...]:
        """The clips whose container the format cannot read."""
        return tuple(clip for clip in self.clips if clip.reencoded)

    def summary(self) -> str:
        """One sentence for a terminal, which names every deviation by its number."""
        numbers = {
            "clips": self.clips,
            "of them re-encoded to H.264 mp4": self.reencoded,
            "captions changed to fit the format": self.captions_changed,
            "left out": self.problems,
        }
        parts = [f"{what}: {len(items)}" for what, items in numbers.items() if items]
        return f"{self.out} ({self.format}) has {', '.join(parts)}; export.json lists them."
