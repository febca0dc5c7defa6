"""Files of a Lance table that are written in one process and committed in another.

A fragment that was written and never committed is a file that no version of the table names: it is in
nobody's way, and `motive check` removes it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa


@dataclass(frozen=True)
class Written:
    """Rows that lie beside their table.

    fragments: what Lance must know of the files, as JSON.
    keys, made_by: of the rows; each key is there once.
    """

    fragments: tuple[str, ...]
    keys: tuple[str, ...]
    made_by: frozenset[str]


def write_fragments(path: str, table: pa.Table) -> Written:
    """Write a table's rows beside the Lance table in `path`, which exists."""
    import lance

    fragments = lance.fragment.write_fragments(table, path, mode="append")
    return Written(
        tuple(_as_json(fragment) for fragment in fragments),
        tuple(table.column("key").to_pylist()),
        frozenset(table.column("made_by").to_pylist()),
    )


def commit_fragments(dataset: Any, written: Sequence[Written]) -> Any:
    """One version more of the table, with all the fragments in it. Returns the table as it is then."""
    import lance

    fragments = [_from_json(text) for one in written for text in one.fragments]
    return lance.LanceDataset.commit(
        dataset.uri, lance.LanceOperation.Append(fragments), read_version=dataset.version
    )


def read_fragments(path: str, written: Written) -> list[dict[str, Any]]:
    """The rows that `write_fragments` wrote."""
    from lance.file import LanceFileReader

    files = [file for text in written.fragments for file in _from_json(text).files]
    found: list[dict[str, Any]] = []
    for file in files:
        found += LanceFileReader(f"{path}/data/{file.path}").read_all().to_table().to_pylist()
    return found


def _as_json(fragment: Any) -> str:
    import json

    return json.dumps(fragment.to_json())


def _from_json(text: str) -> Any:
    from lance.fragment import FragmentMetadata

    return FragmentMetadata.from_json(text)
