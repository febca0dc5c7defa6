"""One entry of a clip dataset, before anything is decoded."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ClipRecord:
    """A media file as its dataset names it.

    path: the media file itself, absolute.
    file_name: its name in the dataset (relative, with forward slashes); unique in one dataset.
    caption: the text the trainer would use; empty when the dataset has none.
    extra: the dataset's other columns for this clip, as they were read.
    """

    path: Path
    file_name: str
    caption: str = ""
    extra: dict[str, object] = field(default_factory=dict, compare=False)
