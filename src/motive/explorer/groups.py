"""Queries and the motions they show: who votes for what, and where the votes overlap."""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from motive.explorer.clip_files import metadata_of
from motive.explorer.query_scores import QueryScores
from motive.runs.members import Member

BY_NAME = "file name"
_FIRST_CHOICE = ("motion", "motion_label", "label", "category", "class")


@dataclass(frozen=True)
class Grouping:
    """Queries by the motion they show.

    label: the metadata column that says so, or `BY_NAME`. groups: query ids by motion, in order.
    """

    label: str
    groups: dict[str, list[str]]


def group_queries(queries: dict[str, Member], label: str | None = None) -> Grouping:
    """The queries grouped by a column of their metadata, or by the beginning of their file names.

    label: None takes the first of motion, motion_label … that the queries have, else the names.
    """
    options = labels_of(queries)
    if label not in options:
        label = next((name for name in _FIRST_CHOICE if name in options), BY_NAME)
    groups: dict[str, list[str]] = {}
    for query_id, member in queries.items():
        if label == BY_NAME:
            name = _name_prefix(member.file_name)
        else:
            name = str(metadata_of(member).get(label) or "none")
        groups.setdefault(name, []).append(query_id)
    return Grouping(label, dict(sorted(groups.items())))


def labels_of(queries: dict[str, Member]) -> list[str]:
    """What the queries can be grouped by: columns that say the same of several queries, and the names."""
    rows = [metadata_of(member) for member in queries.values()]
    names = dict.fromkeys(name for row in rows for name in row)
    found = []
    for name in names:
        values = {str(row.get(name, "")) for row in rows}
        if len(values) < len(rows) or name in _FIRST_CHOICE:
            found.append(name)
    return [*found, BY_NAME]


def overlap(masks: list[np.ndarray], count: int) -> list[list[float]]:
    """Jaccard overlap of sets of clips, 0..1: shared over all that either has; of two empty sets 0.

    masks: packed bits of `count` clips each.
    """
    sizes = [_ones(mask, count) for mask in masks]
    matrix = np.zeros((len(masks), len(masks)))
    for i, first in enumerate(masks):
        for j in range(i, len(masks)):
            both = _ones(first & masks[j], count)
            either = sizes[i] + sizes[j] - both
            matrix[i, j] = matrix[j, i] = both / either if either else 0.0
    return matrix.round(4).tolist()


def describe_groups(
    grouping: Grouping, queries: dict[str, Member], scores: QueryScores, chosen: np.ndarray
) -> dict[str, Any]:
    """Votes by query and by motion, what of them is chosen, and both overlaps."""
    count = len(chosen)
    packed_chosen = np.packbits(chosen)
    present = {q for q in scores.query_ids if q in queries}
    group_of = {q: name for name, ids in grouping.groups.items() for q in ids}
    rows: list[dict[str, Any]] = []
    for query_id in (q for ids in grouping.groups.values() for q in ids if q in present):
        values, votes = scores.of(query_id), scores.votes[query_id]
        rows.append(
            {
                "id": query_id,
                "file_name": queries[query_id].file_name,
                "group": group_of[query_id],
                "votes": _ones(votes, count),
                "chosen": _ones(votes & packed_chosen, count),
                "mean": float(values.mean()),
                "mean_chosen": float(values[chosen].mean()) if chosen.any() else None,
            }
        )
    unions = motion_votes(grouping, scores, present)
    return {
        "label": grouping.label,
        "labels": labels_of(queries),
        "queries": rows,
        "groups": [
            {
                "name": name,
                "queries": sum(row["group"] == name for row in rows),
                "votes": _ones(votes, count),
                "chosen": _ones(votes & packed_chosen, count),
            }
            for name, votes in unions.items()
        ],
        "query_overlap": overlap([scores.votes[row["id"]] for row in rows], count),
        "group_overlap": overlap(list(unions.values()), count),
    }


def motion_votes(
    grouping: Grouping, scores: QueryScores, present: set[str]
) -> dict[str, np.ndarray]:
    """By motion, the clips with a vote of any of its queries, packed."""
    found = {}
    for name, ids in grouping.groups.items():
        votes = [scores.votes[q] for q in ids if q in present]
        if votes:
            found[name] = np.bitwise_or.reduce(votes)
    return found


def mean_over(query_ids: list[str], scores: QueryScores) -> np.ndarray:
    """The mean score of each clip with these queries, `(N,)` float32."""
    total = np.zeros(len(scores.of(query_ids[0])))
    for query_id in query_ids:
        total += scores.of(query_id)
    return (total / len(query_ids)).astype(np.float32)


def _ones(packed: np.ndarray, count: int) -> int:
    return int(np.unpackbits(packed, count=count).sum(dtype=np.int64))


def _name_prefix(file_name: str) -> str:
    """What is before the number at the end of a name; the folder for a name that is but a number."""
    path = PurePosixPath(file_name)
    prefix = re.sub(r"[\s._-]*\d+$", "", path.stem)
    return prefix or path.parent.name or path.stem
