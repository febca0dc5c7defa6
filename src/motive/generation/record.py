"""generation.json: what the videos of a folder were made with, and which they are."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from motive.errors import UserError
from motive.runs.provenance import versions, write_atomically

FILE_NAME = "generation.json"


@dataclass
class GenerationRecord:
    """The record of a folder of videos.

    folder: where the videos and the record are.
    settings: what every video of the folder is made with; two records with other settings do not mix.
    about: what is worth knowing and changes no video, such as the model's name.
    videos: by file name, with `file_name`, `prompt`, `seed`, and `image` (a digest) where one was given.
    """

    folder: Path
    settings: dict[str, Any]
    about: dict[str, Any]
    videos: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def open(
        cls, folder: Path, settings: dict[str, Any], about: dict[str, Any]
    ) -> "GenerationRecord":
        """The folder's record of the videos that are there, to be gone on with, or a new one.

        Raises UserError when the folder's videos were made with other settings, naming them, or by
        something else.
        """
        record = cls(folder, settings, about)
        file = folder / FILE_NAME
        if not file.is_file():
            if any(folder.glob("*.mp4")):
                raise UserError(f"{folder} has videos of another origin: choose another --out")
            return record
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            before = dict(content["settings"])
            entries = {entry["file_name"]: dict(entry) for entry in content["videos"]}
            # A video that was removed may be made again from another picture.
            record.videos = {n: e for n, e in entries.items() if (folder / n).is_file()}
        except (OSError, ValueError, KeyError, TypeError):
            raise UserError(f"{file} cannot be read: choose another --out") from None
        changed = [
            f"{name} is {_shown(before.get(name))} there and {_shown(settings.get(name))} now"
            for name in sorted(before.keys() | settings.keys())
            if before.get(name) != settings.get(name)
        ]
        if changed:
            raise UserError(
                f"{folder} has videos that were made with other settings ({'; '.join(changed)}): "
                "choose another --out, or the settings of those videos"
            )
        return record

    def add(self, file_name: str, prompt: str, seed: int, image: str | None) -> None:
        """A video that is there.

        Raises UserError when another picture was given for it before.
        """
        entry = {"file_name": file_name, "prompt": prompt, "seed": seed}
        if image is not None:
            entry["image"] = image
        before = self.videos.setdefault(file_name, entry)
        if before.get("image") != image:
            raise UserError(
                f"{self.folder / file_name} was made from another picture: choose another --out, or "
                "remove the video"
            )

    def save(self) -> None:
        """Write the record, with the videos whose files are there."""
        there = [v for name, v in sorted(self.videos.items()) if (self.folder / name).is_file()]
        content = {
            "format": 1,
            "settings": self.settings,
            **self.about,
            "versions": versions(),
            "videos": there,
        }
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        write_atomically(self.folder / FILE_NAME, text)


def lacking_videos(folder: Path, names: Iterable[str]) -> list[str]:
    """Which of these videos are not in a folder, whole, as its record says they are.

    Without a record all are lacking.
    """
    from motive.generation.video_file import is_whole_video

    try:
        content = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
        frames = int(content["settings"]["frames"])
    except (OSError, ValueError, KeyError, TypeError):
        return sorted(names)
    return sorted(name for name in names if not is_whole_video(folder / name, frames))


def _shown(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
