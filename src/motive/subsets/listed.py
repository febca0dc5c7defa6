"""Lists of clips as files: read as a subset, written from one."""

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING

from motive.errors import UserError
from motive.runs.members import Member
from motive.runs.provenance import write_atomically
from motive.runs.texts import is_among
from motive.subsets.subset import Subset

if TYPE_CHECKING:
    from motive.pipeline import Run

COLUMNS = ("rank", "clip_id", "file_name", "caption", "selected")
_NAME_COLUMNS = ("clip_id", "file_name")
_TRUE, _FALSE = ("true", "1"), ("false", "0")


def listed_subset(run: "Run", path: Path) -> Subset:
    """The clips that a file lists, in its order.

    path: a csv with a column `clip_id` or `file_name` and perhaps `selected` (as selection.csv: then
        the rows that say `true`), or a text with a file name or a clip id in each line.

    Raises UserError, naming the first, for a clip that the run does not have, that it could not use, or
    that is listed twice, and for a file that lists none.
    """
    names = _read_names(path)
    if not names:
        raise UserError(f"{path} lists no clip: write a file name or a clip id in each line")
    members: dict[str, Member] = {}
    clips = run.members.of_role("clip")
    asked = is_among(clips.column("file_name"), names) | is_among(clips.column("clip_id"), names)
    for member in clips.take(asked):
        members.setdefault(member.file_name, member)
    ids = {m.clip_id: m for m in members.values() if m.usable}
    ready = set(run.featured("clip").column("clip_id").to_pylist())
    chosen: dict[str, str] = {}
    for name in names:
        found = ids.get(name) or members.get(name)
        if found is None:
            raise UserError(
                f"{path} lists '{name}', which is no clip of {run.folder}: correct the list"
            )
        if found.clip_id not in ready:
            raise UserError(
                f"{path} lists '{name}', which the run could not use "
                f"(see {run.folder / 'failures.csv'}): take it out of the list"
            )
        if found.clip_id in chosen:
            raise UserError(
                f"{path} lists '{name}' more than once: take the others out of the list"
            )
        chosen[found.clip_id] = name
    return Subset(str(path), tuple(chosen), f"as {path.name} lists them")


def write_subset(run: "Run", subset: Subset, out: Path) -> None:
    """A csv of the subset's clips, best first, which other trainers and `listed_subset` can read.

    Raises UserError when `out` is a folder, or lies in none.
    """
    if out.is_dir() or not out.parent.is_dir():
        reason = "is a folder" if out.is_dir() else "lies in a folder that does not exist"
        raise UserError(f"{out} {reason}: choose another --out")
    clips = run.usable("clip").those(subset.clip_ids)
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for rank, member in enumerate(clips, start=1):
        writer.writerow((rank, member.clip_id, member.file_name, member.caption, "true"))
    write_atomically(out, text.getvalue())


def _read_names(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise UserError(f"{path} cannot be read ({reason}): give a csv or a text") from None
    if path.suffix.lower() != ".csv":
        return [line.strip() for line in text.splitlines() if line.strip()]
    rows = csv.DictReader(io.StringIO(text, newline=""))
    columns = rows.fieldnames or ()
    column = next((name for name in _NAME_COLUMNS if name in columns), None)
    if column is None:
        raise UserError(f"{path} has no column {' or '.join(_NAME_COLUMNS)}: add one of them")
    names = []
    for row in rows:
        said = (row.get("selected") or "").strip().lower()
        if "selected" in columns and said not in (*_TRUE, *_FALSE):
            raise UserError(
                f"{path}, line {rows.line_num}, has '{said}' for selected: write true or false"
            )
        if "selected" not in columns or said in _TRUE:
            names.append((row[column] or "").strip())
    return names
