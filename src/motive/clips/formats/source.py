"""The folder or file that a dataset is read from, and the files below it."""

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from motive.clips.formats.dataset import MEDIA_SUFFIXES, Problem


@dataclass(frozen=True)
class Source:
    """What the user pointed at.

    path: an existing folder or file, absolute and lexically normalised.
    media_root: a second folder in which metadata may name files.
    extract_to: where the members of tar files are written.
    """

    path: Path
    media_root: Path | None = None
    extract_to: Path | None = None

    @property
    def is_folder(self) -> bool:
        return self.path.is_dir()

    @property
    def folder(self) -> Path:
        """The folder that names in the dataset are relative to."""
        return self.path if self.is_folder else self.path.parent

    @cached_property
    def _walked(self) -> tuple[list[str], list[Problem]]:
        return visible_files(self.folder, besides=self.extract_to)

    @property
    def files(self) -> Iterator[Path]:
        """Every file below the folder, sorted by relative path.

        Without hidden ones and without what was extracted here from tar files.
        """
        return map(Path, self._walked[0])

    @property
    def unreadable(self) -> list[Problem]:
        """The folders below this one that could not be listed."""
        return self._walked[1]

    @property
    def media(self) -> Iterator[Path]:
        """The video files among `files`, by suffix."""
        return (
            Path(path)
            for path in self._walked[0]
            if os.path.splitext(path)[1].lower() in MEDIA_SUFFIXES
        )

    def called(self, names: Collection[str]) -> list[Path]:
        """Those among `files` that have one of these names."""
        return [Path(path) for path in self._walked[0] if os.path.basename(path) in names]

    def top(self, *names: str) -> list[Path]:
        """Those of `names` that are files directly in the folder, in the order given."""
        return [self.folder / name for name in names if (self.folder / name).is_file()]

    def inside(self, folder: Path) -> "Source":
        """A part of this source, under the same permissions."""
        return Source(folder, self.media_root, self.extract_to)


def visible_files(folder: Path, *, besides: Path | None = None) -> tuple[list[str], list[Problem]]:
    """The paths of all files below `folder` that are not hidden, and the folders that could not be listed.

    besides: a folder below this one that is passed over.

    Symbolic links to folders are followed after the folders themselves, each real folder once: so a
    loop ends, and a file reached in two ways has the name without the link. Files are sorted by the
    parts of their relative paths, which does not depend on the file system's order.
    """
    files: list[str] = []  # a quarter of what as many `Path` take
    problems: list[Problem] = []
    seen: set[str] = set()

    def unlisted(error: OSError) -> None:
        where = Path(error.filename or folder)
        name = where.relative_to(folder).as_posix() if where.is_relative_to(folder) else str(where)
        problems.append(Problem(name, f"cannot be listed: {error.strerror}"))

    waiting = [folder]
    for start in waiting:  # grows by the links that are found
        for place, subfolders, names in os.walk(start, onerror=unlisted):
            real = os.path.realpath(place)
            if real in seen:
                subfolders.clear()
                continue
            seen.add(real)
            shown = sorted(name for name in subfolders if not name.startswith("."))
            subfolders[:] = [name for name in shown if Path(place, name) != besides]
            waiting += [Path(place, name) for name in subfolders if Path(place, name).is_symlink()]
            files.extend(os.path.join(place, name) for name in names if not name.startswith("."))
    # By parts: no name holds what stands for the separator, and it comes before all that one can hold.
    files.sort(key=lambda path: path.replace(os.sep, "\0"))
    return files, problems
