"""Writing a dataset: media by rank, text, the report; all in a temporary folder, then renamed."""

import json
import math
import os
import re
import shlex
import shutil
import tempfile
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from motive.clips.formats.dataset import (
    CaptionChange,
    ExportClip,
    ExportedClip,
    ExportReport,
    Problem,
)
from motive.clips.formats.transcode import reencode_h264
from motive.errors import ClipError, UserError


class Export:
    """One export under way. A format's `write` takes the clips from it and gives it text.

    folder: where to write now. out: where the folder will be at the end, absolute.
    clips: best first. link: whether media become symbolic links to their sources.
    notes: what the user should know, for the report.
    """

    def __init__(
        self, format: str, clips: Sequence[ExportClip], folder: Path, out: Path, link: bool
    ) -> None:
        self.format = format
        self.clips = sorted(clips, key=lambda clip: clip.rank)
        self.folder = folder
        self.out = out
        self.link = link
        self.notes: list[str] = []
        self._digits = max(6, len(str(self.clips[-1].rank)))
        self._exported: dict[int, ExportedClip] = {}
        self._captions: dict[int, CaptionChange] = {}
        self._problems: list[Problem] = []

    def media(self, subfolder: str, containers: frozenset[str]) -> Iterator[tuple[ExportClip, str]]:
        """Puts the clips into `subfolder`, best first; yields each with its name in the export.

        Clips in a container outside `containers` (lower-case suffixes) are re-encoded to mp4; one
        whose re-encoding fails is left out and becomes a problem of the report.
        """
        (self.folder / subfolder).mkdir(parents=True, exist_ok=True)
        for clip, stem, path in self.sources(containers):
            suffix = path.suffix.lower()
            name = f"{subfolder}/{stem}{suffix}"
            target = self.folder / name
            if path != clip.path:
                path.rename(target)
            elif self.link:
                target.symlink_to(os.path.abspath(clip.path))
            else:
                shutil.copyfile(clip.path, target)
            self._exported[clip.rank] = ExportedClip(
                clip.rank, clip.file_name, name, self._exported[clip.rank].reencoded
            )
            yield clip, name

    def sources(self, containers: frozenset[str]) -> Iterator[tuple[ExportClip, str, Path]]:
        """Yields each clip, best first, with its stem in the export and a file to read.

        The file is the clip's own, or a temporary one when it had to be re-encoded.
        """
        for clip in self.clips:
            stem = f"{clip.rank:0{self._digits}d}_{sanitised_stem(clip.file_name)}"
            suffix = clip.path.suffix.lower()
            path, done = clip.path, ""
            if suffix not in containers:
                path = self.folder.parent / f"{stem}.mp4"
                try:
                    done = reencode_h264(clip.path, path)
                except ClipError as error:
                    path.unlink(missing_ok=True)
                    self._problems.append(Problem(clip.file_name, str(error)))
                    continue
                done = f"{suffix or 'no suffix'} to {done}: {self.format} does not read it"
            self._exported[clip.rank] = ExportedClip(
                clip.rank, clip.file_name, f"{stem}{path.suffix.lower()}", done
            )
            yield clip, stem, path
            if path != clip.path:
                path.unlink(missing_ok=True)

    def caption(self, clip: ExportClip, text: str, change: str) -> str:
        """`text`, which stands for the clip's caption; noted with `change` if it differs."""
        if text != clip.caption:
            self._captions[clip.rank] = CaptionChange(clip.file_name, change)
        return text

    def write_sidecar(self, clip: ExportClip, name: str) -> None:
        """The caption as a `.txt` beside the media file; inner line feeds stay.

        Trainers strip what they read and take a carriage return for a line feed, so that is what
        is written, and noted.
        """
        text = clip.caption.replace("\r\n", "\n").replace("\r", "\n").strip()
        text = text.removeprefix("\ufeff").strip()
        text = self.caption(clip, text, "white space at the ends and carriage returns removed")
        self.write_text(str(PurePosixPath(name).with_suffix(".txt")), text)

    def write_text(self, name: str, text: str) -> None:
        """A UTF-8 file of the export, line feeds as given."""
        target = self.folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(text.encode("utf-8"))

    def write_json(self, name: str, value: object) -> None:
        """JSON in ASCII: several trainers open it in the encoding of their locale."""
        self.write_text(name, json.dumps(value, indent=1, allow_nan=False) + "\n")

    def write_json_lines(self, name: str, rows: Iterable[object]) -> None:
        """JSON lines in ASCII, one per row."""
        lines = [json.dumps(row, allow_nan=False) + "\n" for row in rows]
        self.write_text(name, "".join(lines))

    def in_shell(self, name: str) -> str:
        """A file of the finished export as a word of a shell's command, whatever is in its path."""
        return shlex.quote(str(self.out / name))

    def report(self) -> ExportReport:
        """What was written so far. Raises UserError when no clip was."""
        if not self._exported:
            raise UserError(
                f"None of the {len(self.clips)} clips could be re-encoded for {self.format}, the "
                f"first because it {self._problems[0].reason}: export to another format."
            )
        return ExportReport(
            self.format,
            self.out,
            tuple(self._exported[rank] for rank in sorted(self._exported)),
            tuple(self._captions[rank] for rank in sorted(self._captions)),
            tuple(self._problems),
            tuple(self.notes),
        )


def run_export(
    format: str,
    write: Callable[[Export], str],
    clips: Sequence[ExportClip],
    out: Path,
    link: bool,
) -> ExportReport:
    """Lets `write` fill a temporary sibling of `out`, adds README.md and export.json, renames it.

    Whatever fails, `out` is either whole or as it was before. Raises UserError for an `out` that
    holds something, for no clips, for clips whose files are gone, and for a disk that is full or
    read-only; ValueError for equal ranks or scores that are not finite.
    """
    out = Path(os.path.abspath(out))
    _check_clips(clips)
    if out.is_symlink() or (out.exists() and not out.is_dir()) or (out.is_dir() and any_in(out)):
        raise UserError(f"{out} is not an empty folder: pass one that is empty or does not exist.")
    temporary: Path | None = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.partial-", dir=out.parent))
        folder = temporary / "export"  # mkdtemp's own folder is readable by its owner only
        folder.mkdir()
        export = Export(format, clips, folder, out, link)
        usage = write(export)
        report = export.report()
        export.write_text("README.md", _readme(report, usage))
        export.write_json("export.json", _as_json(report, export.clips))
        if out.exists():
            out.rmdir()
        folder.rename(out)
    except OSError as error:
        place = error.filename or out
        raise UserError(
            f"The export to {out} failed at {place} ({error.strerror or error}): make room or "
            "choose another folder."
        ) from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    return report


def any_in(folder: Path) -> bool:
    """Whether a folder holds anything, hidden files included."""
    return next(folder.iterdir(), None) is not None


def sanitised_stem(file_name: str) -> str:
    """The stem of a name, of letters, digits, `_` and `-` alone, at most 120 bytes; never empty."""
    stem = unicodedata.normalize("NFC", PurePosixPath(file_name).stem)
    clean = re.sub(r"[^\w-]+", "_", stem).strip("_") or "clip"
    return clean.encode("utf-8", "ignore")[:120].decode("utf-8", "ignore")


def toml_string(text: str) -> str:
    """A TOML basic string. JSON's escapes are TOML's, except for what only TOML forbids raw."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _check_clips(clips: Sequence[ExportClip]) -> None:
    if not clips:
        raise UserError("There is no clip to export: select some first.")
    if len({clip.rank for clip in clips}) != len(clips) or min(clip.rank for clip in clips) < 1:
        raise ValueError("ranks must be unique and start at 1")
    for clip in clips:
        if not all(math.isfinite(score) for score in clip.scores.values()):
            raise ValueError(f"{clip.file_name} has a score that is not finite")
        if not clip.path.is_file():
            raise UserError(f"{clip.path} is no longer there: put it back or run ingest again.")


def _readme(report: ExportReport, usage: str) -> str:
    count = "1 clip" if len(report.clips) == 1 else f"{len(report.clips)} clips, best first"
    lines = [f"# Clips for {report.format}\n", f"{count}.\n", usage]
    for title, items in (
        ("Notes", report.notes),
        ("Re-encoded", [f"`{clip.name}`: {clip.reencoded}" for clip in report.reencoded]),
        ("Captions changed", [f"`{c.file_name}`: {c.change}" for c in report.captions_changed]),
        ("Left out", [f"`{p.file_name}` {p.reason}" for p in report.problems]),
    ):
        if items:
            lines += [f"## {title}\n", "\n".join(f"- {item}" for item in items) + "\n"]
    return "\n".join(lines)


def _as_json(report: ExportReport, clips: Sequence[ExportClip]) -> dict[str, object]:
    scores = {clip.rank: dict(clip.scores) for clip in clips}
    return {
        "format": report.format,
        "clips": [
            {
                "rank": clip.rank,
                "file_name": clip.file_name,
                "name": clip.name,
                "reencoded": clip.reencoded,
                "scores": scores[clip.rank],
            }
            for clip in report.clips
        ],
        "captions_changed": [vars(change) for change in report.captions_changed],
        "problems": [vars(problem) for problem in report.problems],
        "notes": list(report.notes),
    }
