"""Rows as the text of a csv file, to be written whole or not at all."""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from motive.runs.remote import RunPath, whole_file

_ROWS = 4096  # whose text is held at once


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """A line of heads, then the rows.

    Raises ValueError for a row with another column.
    """
    return "".join(csv_parts(columns, rows))


def csv_parts(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """As `csv_text`, in parts."""
    buffer = io.StringIO(newline="")
    writer, waiting = csv.DictWriter(buffer, columns), iter(rows)
    writer.writeheader()
    while some := list(islice(waiting, _ROWS)):
        writer.writerows(some)
        yield buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()
    yield buffer.getvalue()


def write_csv(path: RunPath, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write the file whole or not at all; memory does not grow with the rows."""
    with whole_file(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        file.writelines(csv_parts(columns, rows))
