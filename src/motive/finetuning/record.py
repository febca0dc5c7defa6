"""training.json: what a fine-tuned model was trained on, how, and how its loss went."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from motive import __version__
from motive.errors import UserError
from motive.runs.provenance import now, remove_leftovers, revision, versions, write_atomically

FILE_NAME = "training.json"
_PACKAGES = ("accelerate", "peft")  # that train, beside those that every run depends on


@dataclass
class TrainingRecord:
    """The record of the training in `folder`.

    settings: what the trained weights depend on; trainings with other settings are others.
    about: what is worth knowing and changes no weight.
    finished: whether the trained model is there, whole.
    clips_before: the ids of the clips that a training which is gone on with was begun with.
    """

    folder: Path
    settings: dict[str, Any]
    about: dict[str, Any] = field(default_factory=dict)
    finished: bool = False
    clips_before: list[str] | None = None

    @classmethod
    def open(cls, folder: Path, settings: dict[str, Any]) -> "TrainingRecord":
        """The folder's record, to be gone on with, or that of a new training.

        Raises UserError when the folder has a training with other settings, naming them, or something else.
        """
        file = folder / FILE_NAME
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder} is a file: choose another --out")
        if not file.is_file():
            if folder.is_dir() and any(not p.name.startswith(".") for p in folder.iterdir()):
                raise UserError(f"{folder} has files of another origin: choose another --out")
            return cls(folder, settings)
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            before, finished = dict(content["settings"]), bool(content["finished"])
            clips = list(content["subset"]["clip_ids"])
        except (OSError, ValueError, KeyError, TypeError):
            raise UserError(f"{file} cannot be read: choose another --out") from None
        # As JSON has them: tuples are lists there.
        wanted = json.loads(json.dumps(settings))
        changed = [
            f"{name} is {_shown(before.get(name))} there and {_shown(wanted.get(name))} now"
            for name in sorted(before.keys() | wanted.keys())
            if before.get(name) != wanted.get(name)
        ]
        if changed:
            raise UserError(
                f"{folder} has a training with other settings ({'; '.join(changed)}): "
                "choose another --out, or the settings of that training"
            )
        return cls(folder, settings, {}, finished, clips)

    def require_clips(self, clip_ids: list[str]) -> None:
        """Check that a training which is gone on with was begun with these clips.

        Raises UserError when it was not: some could not be encoded then, or cannot be now.
        """
        if self.clips_before is not None and self.clips_before != clip_ids:
            raise UserError(
                f"{self.folder} was begun with {len(self.clips_before)} clips and there are "
                f"{len(clip_ids)} now, since others can be encoded: choose another --out"
            )

    def save(self) -> None:
        """Write the record, whole or not at all, and make its folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(self.folder)
        content = {
            "finished": self.finished,
            "settings": self.settings,
            **self.about,
            "motive": __version__,
            "revision": revision(),
            "written": now(),
            "versions": versions() | {name: _version(name) for name in _PACKAGES},
        }
        text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        write_atomically(self.folder / FILE_NAME, text)


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def digest_of_ids(clip_ids: Iterable[str]) -> str:
    """20 hex digits of a set of clips, in whatever order."""
    return hashlib.blake2b("\n".join(sorted(clip_ids)).encode(), digest_size=10).hexdigest()


def _shown(value: object) -> str:
    return "not set" if value is None else str(value)


def summary(folder: Path) -> str:
    """What the finished training in `folder` was, in a few lines for people."""
    content = json.loads((folder / FILE_NAME).read_text(encoding="utf-8"))
    subset, losses = content["subset"], content["loss"]
    tenth = max(1, len(losses) // 10)
    first, last = (sum(part) / tenth for part in (losses[:tenth], losses[-tenth:]))
    matched = "matched steps" if content["matched"] == "steps" else "matched repeats"
    lines = [
        f"{folder}: {content['base']['name']}, {content['trains']} trained",
        f"on {subset['clips']} clips ({subset['name']}: {subset['note']})",
        f"for {content['steps']} steps, each clip {content['epochs']:g} times ({matched})",
        f"loss {first:.4f} in the first tenth, {last:.4f} in the last",
    ]
    if subset["left_out"]:
        lines.append(f"{len(subset['left_out'])} clips were left out: see {folder / FILE_NAME}")
    return "\n".join(lines)
