"""Prompts from a file, and the file names that VBench looks for: the prompt itself and a number."""

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from motive.errors import UserError

LONGEST_NAME = 255  # bytes, of the file systems in use

_COLUMNS = ("prompt", "caption")  # of a CSV file, the first one that it has
_EXAMPLES = 3  # of bad prompts that a sentence shows


def read_prompts(path: Path) -> list[str]:
    """The prompts of a file, in its order, without the space around them; equal ones stay.

    path: `.txt` with one prompt a line (empty lines do not count); `.json` with a list of texts or of
        objects with `prompt_en`, as VBench_full_info.json has; `.csv` with a column `prompt` or
        `caption`.

    Raises UserError when the file cannot be read so, or has no prompt.
    """
    read = _READERS.get(path.suffix.lower())
    if read is None:
        raise UserError(f"{path} is no file of prompts: give a .txt, .json or .csv")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8"
        raise UserError(f"{path} cannot be read ({reason}): give a file of prompts") from None
    try:
        found = read(text)
    except ValueError as error:
        raise UserError(f"{path} cannot be read as prompts: {error}") from None
    prompts = [prompt.strip() for prompt in found if prompt.strip()]
    if not prompts:
        raise UserError(f"{path} has no prompt: write one a line")
    return prompts


def video_name(prompt: str, index: int) -> str:
    """`PROMPT-INDEX.mp4`, as VBench names the videos of a prompt."""
    return f"{prompt}-{index}.mp4"


def require_names(prompts: Sequence[str], seeds: int) -> None:
    """Refuse prompts that cannot be the names of files. VBench has no other place for a prompt.

    Raises UserError, with examples, for a prompt with a slash, backslash or control character, one
    that begins with a dot, or one that is too long for a file name.
    """
    bad = [(prompt, reason) for prompt in prompts if (reason := _no_name(prompt, seeds))]
    if bad:
        shown = "; ".join(f"'{_short(prompt)}' {reason}" for prompt, reason in bad[:_EXAMPLES])
        more = f"; and {len(bad) - _EXAMPLES} more" if len(bad) > _EXAMPLES else ""
        raise UserError(
            f"a video is named by its prompt, and {len(bad)} of {len(prompts)} prompts cannot be file "
            f"names ({shown}{more}): reword them"
        )


def _no_name(prompt: str, seeds: int) -> str:
    """Why a prompt cannot be a file name; empty when it can."""
    if any(c in "/\\" or not c.isprintable() for c in prompt):
        return "has a slash or a control character"
    if prompt.startswith("."):
        return "begins with a dot"
    try:
        length = len(video_name(prompt, seeds - 1).encode())
    except UnicodeEncodeError:
        return "is no text"
    return "is too long" if length > LONGEST_NAME else ""


def _short(prompt: str) -> str:
    printable = "".join(c if c.isprintable() else "?" for c in prompt)
    return printable if len(printable) <= 40 else printable[:39] + "…"


def _from_json(text: str) -> list[str]:
    content: Any = json.loads(text)
    if not isinstance(content, list):
        raise ValueError("it holds no list")
    prompts: list[Any] = [
        entry.get("prompt_en") if isinstance(entry, dict) else entry for entry in content
    ]
    wrong = next((i for i, prompt in enumerate(prompts) if not isinstance(prompt, str)), None)
    if wrong is not None:
        raise ValueError(f"entry {wrong + 1} is neither a text nor an object with prompt_en")
    return prompts


def _from_csv(text: str) -> list[str]:
    rows = csv.DictReader(text.splitlines(keepends=True))
    column = next((name for name in _COLUMNS if name in (rows.fieldnames or ())), None)
    if column is None:
        raise ValueError("it has no column prompt or caption")
    return [row[column] or "" for row in rows]


_READERS: dict[str, Callable[[str], list[str]]] = {
    ".txt": str.splitlines,
    ".json": _from_json,
    ".csv": _from_csv,
}
