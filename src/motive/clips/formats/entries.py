"""The one gate through which every entry of a dataset passes: names, files, captions, duplicates.

Metadata is untrusted. A name is joined to the folder of its metadata and normalised lexically; if
the result lies outside that dataset and outside the `media_root` that the user passed, the whole
dataset is refused. Links are not resolved: a user's own folder may be made of them.
"""

import math
import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from motive.clips.formats.dataset import MEDIA_SUFFIXES, Dataset, Problem
from motive.clips.formats.source import Source
from motive.clips.record import ClipRecord
from motive.errors import UserError

_DRIVE = re.compile(r"[A-Za-z]:")


class Entries:
    """Collects records and problems for one dataset, in the order in which they are added.

    keep: is given each record instead, so that none is held.
    """

    def __init__(self, source: Source, keep: Callable[[ClipRecord], object] | None = None) -> None:
        self.source = source
        self.records: list[ClipRecord] = []
        self.problems: list[Problem] = []
        self._keep, self._kept = keep or self.records.append, 0
        self._named: dict[str, str] = {}  # names, and the roots that their files lie in
        self._unusable: set[str] = set()  # names of problems
        roots = [source.folder, source.media_root]
        # First, so that what lies in a tar is called the same wherever it is extracted to.
        inner = source.extract_to and not source.folder.is_relative_to(source.extract_to)
        roots.insert(0 if inner else 2, source.extract_to)
        self._roots = [str(root) for root in roots if root]

    def add(
        self,
        name: object,
        *,
        where: str,
        folder: Path | None = None,
        caption: object = "",
        extra: Mapping[str, object] | None = None,
        fault: str | None = None,
    ) -> None:
        """Takes an entry that metadata names.

        name: as it stands in the metadata; relative to `folder`, else to the dataset's folder.
        where: the place of the entry, for messages.
        fault: why the entry cannot be used although its name is good.
        Raises UserError when the name points outside.
        """
        if not isinstance(name, str) or not name.strip():
            self.problems.append(Problem(where, "is an entry that names no file"))
            return
        path = self.locate(name, where=where, folder=folder)
        if "://" in name:
            fault = fault or "is an address on the network: download it first"
        self.add_file(path, caption=caption, extra=extra, fault=fault)

    def add_file(
        self,
        path: Path,
        *,
        caption: object = "",
        extra: Mapping[str, object] | None = None,
        fault: str | None = None,
    ) -> None:
        """Takes a file whose path is already known to be allowed."""
        root, name = self._placed(path)
        shown = _printable(name)
        if name in self._named:
            again = "is listed more than once; the first entry counts"
            self.problems.append(Problem(shown, again, of_record=shown not in self._unusable))
            return
        self._named[name] = root
        try:
            text, others = _captions(caption)
        except RecursionError:
            text, others, fault = "", [], fault or "has a caption that is nested too deeply"
        if name != shown:
            fault = fault or "has a name that is not valid UTF-8: rename it"
        elif _printable(text) != text:
            fault = fault or "has a caption that is not valid Unicode: correct it"
        fault = fault or _unusable(path)
        if fault:
            self.problems.append(Problem(shown, fault))
            self._unusable.add(shown)
            return
        columns = dict(extra or {})
        if others:
            columns["captions"] = others
        self._keep(ClipRecord(path, name, text, columns))
        self._kept += 1

    def has(self, path: Path) -> bool:
        """Whether an entry, usable or not, has named this file."""
        root, name = self._placed(path)
        return self._named.get(name) == root

    def add_rest(self, source: Source) -> None:
        """Takes the video files of a folder that no metadata named, with empty captions."""
        for path in source.media:
            if not self.has(path):
                self.add_file(path)
        self.problems.extend(source.unreadable)

    def locate(self, name: str, *, where: str, folder: Path | None = None) -> Path:
        """The absolute path that a name in metadata stands for.

        With a `media_root`, a relative name that is not below its own folder's is looked up there.
        In a relative name a backslash is a separator, unless a file has it in its name.
        Raises UserError when any of these readings points outside.
        """
        base = folder or self.source.folder
        readings = [name]
        if "\\" in name and not os.path.isabs(name):
            readings.append(name.replace("\\", "/"))
        paths = []
        for reading in readings:
            path = Path(os.path.normpath(base / reading))
            drive = os.name != "nt" and _DRIVE.match(reading)
            if "\0" in reading or drive or self._below_root(path) is None:
                raise UserError(
                    f"{where} points outside its folder ({name!r}): correct the entry, or pass "
                    "the folder that holds the file as media root."
                )
            paths.append(path)
        if self.source.media_root and not os.path.isabs(name):
            path = Path(os.path.normpath(self.source.media_root / readings[-1]))
            if self._below_root(path) is not None:
                paths.append(path)
        return next((path for path in paths if os.path.lexists(path)), paths[0])

    def subfolder(self, name: object, *, where: str) -> Path:
        """The existing folder that a configuration names, under the same rule as a file.

        Trainers take a relative folder from where they are started; here it is relative to the
        configuration file.
        """
        if not isinstance(name, str) or not name.strip():
            raise UserError(f"{where} names no folder: add one.")
        path = self.locate(name, where=where)
        if not path.is_dir():
            raise UserError(f"{where} names the folder {name!r}, which does not exist: correct it.")
        return path

    def dataset(self, format: str) -> Dataset:
        """What was collected. Raises UserError when there is neither a record nor a problem."""
        if not self._kept and not self.problems:
            suffixes = " ".join(sorted(suffix[1:] for suffix in MEDIA_SUFFIXES))
            raise UserError(
                f"{self.source.path} holds no video file ({suffixes}): pass a folder or a metadata "
                "file that does."
            )
        return Dataset(format, self.records, self.problems)

    def relative(self, path: Path) -> str:
        """The name of a path in this dataset: relative to its folder, else to the media root."""
        return self._placed(path)[1]

    def _placed(self, path: Path) -> tuple[str, str]:
        """The root that a path lies in, and its name there."""
        found = self._below_root(path)
        if found is None:
            raise ValueError(f"{path} is below none of {self._roots}")
        return found

    def _below_root(self, path: Path) -> tuple[str, str] | None:
        """The first root that a normalised path lies in and what follows, or None if it is outside.

        By text, which is `Path.relative_to` at a tenth of its time; it runs twice per entry.
        """
        text = str(path)
        for root in self._roots:
            if text == root:
                return root, "."
            if text.startswith(prefix := os.path.join(root, "")):
                return root, text[len(prefix) :].replace(os.sep, "/")
        return None


def _unusable(path: Path) -> str | None:
    """Why a path is not a video file, or None. Whether it decodes is not looked at."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return "is a link to nothing" if path.is_symlink() else "does not exist"
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if stat.S_ISDIR(mode):
        return "is a folder"
    if not stat.S_ISREG(mode):
        return "is not a regular file"
    if path.suffix.lower() not in MEDIA_SUFFIXES:
        return f"is not a video file by its suffix ({path.suffix or 'none'})"
    return None


def _captions(value: object) -> tuple[str, list[str]]:
    """The caption to use and the further ones, from whatever a metadata cell held."""
    if isinstance(value, str):
        return value, []
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "", []
    if isinstance(value, Iterable) and not isinstance(value, bytes | Mapping):
        texts = [_captions(item)[0] for item in value]
        return (texts[0], texts[1:]) if texts else ("", [])
    return str(value), []


def _printable(text: str) -> str:
    """`text` with every lone surrogate (undecodable byte, broken escape) spelled out."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
