"""Metadata files read whole: text, JSON, TOML, YAML. What cannot be read is the user's error."""

import json
import stat
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from motive.errors import UserError

#: A million clips with a long caption each; what is larger does not fit into memory when it is parsed.
MAX_METADATA_BYTES = 2 * 2**30


def require_readable(path: Path) -> None:
    """Raise UserError for what is no file, such as a pipe that would be waited for, or is too large."""
    try:
        status = path.stat()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): check its rights.") from error
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"{path} is no regular file: put a file there, or take it away.")
    if status.st_size > MAX_METADATA_BYTES:
        raise UserError(
            f"{path} has {status.st_size:,} bytes, more than the {MAX_METADATA_BYTES:,} that metadata "
            "may have: split the dataset."
        )


def read_text(path: Path) -> str:
    """UTF-8 text, with or without a byte order mark, line ends as they stand."""
    with opened_text(path) as file:
        return file.read()


@contextmanager
def opened_text(path: Path, newline: str = "") -> Iterator[TextIO]:
    """The file's text as `read_text` gives it, to be read in parts; so are its errors.

    newline: what ends a line, as of `open`.
    """
    require_readable(path)
    try:
        with path.open(encoding="utf-8-sig", newline=newline) as file:
            yield file
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): check its rights.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text: save it as UTF-8.") from error


def read_json(path: Path) -> object:
    """The value of a JSON file; a key that stands twice in one object is an error."""
    try:
        return json.loads(read_text(path), object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}): correct it.") from error


def read_toml(path: Path) -> dict[str, object]:
    """The table of a TOML file."""
    try:
        return tomllib.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid TOML ({error}): correct it.") from error


def read_yaml(path: Path) -> object:
    """The value of a YAML file, plain types only."""
    import yaml

    try:
        return yaml.safe_load(read_text(path))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} is not valid YAML ({reason}): correct it.") from error


def unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object whose later key would silently hide an earlier one is refused (`json` hook)."""
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return result


def tables_of(value: object) -> list[dict[str, object]]:
    """The dictionaries in a list; empty for anything else."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
