"""One explored run: its table, its files, and what is decided about it, opened together."""

import threading
from functools import cached_property
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from motive.errors import UserError
from motive.explorer.choice import Choice, Diversity
from motive.explorer.corpus_map import Maps
from motive.explorer.curation import Curation
from motive.explorer.exporting import Exports
from motive.explorer.groups import Grouping, group_queries, motion_votes
from motive.explorer.media import Media
from motive.explorer.neighbours import Neighbours
from motive.explorer.query_scores import QueryScores
from motive.explorer.table import SCORE_PREFIX
from motive.explorer.table_file import FOLDER, Opened, keep_table, open_table
from motive.explorer.views import Views
from motive.results import held_back
from motive.runs.members import Member

if TYPE_CHECKING:
    from motive.pipeline import Run


_PATIENCE = 5.0  # seconds


class Session:
    """Everything that the page asks of a run.

    opened: what `open_table` gave of the run; None opens it.

    Raises UserError when the run has no selection or no scores of its objective, or when its curation
    cannot be opened.
    """

    def __init__(self, run: "Run", opened: Opened | None = None) -> None:
        self.run = run
        opened = opened or open_table(run)
        self.table, self.files, self.was_kept = opened.table, opened.files, opened.was_kept
        folder = run.path / FOLDER
        self.scores = QueryScores(run, self.table.clip_ids, opened.query_ids)
        self.table.score_of = self.scores.of
        self.media = Media(run, folder / "media")
        self.neighbours = Neighbours(run, self.table.clip_ids)
        self.maps = Maps(run, self.table.clip_ids, folder)
        self.exports = Exports(run)
        self.curation = Curation(run.path)
        self.choice = Choice(
            self.table,
            self.curation,
            lambda: self.eligible,
            self.neighbours.groups,
            self.source_groups,
            lambda: list(self.motions.values()),
        )
        self.views = Views(self.table, self.choice.mask, self.choice.version)
        self.explaining = (
            threading.Lock()
        )  # a heat map takes the model's memory twice: one at a time
        self._sources: dict[str, np.ndarray] = {}
        self._source_names: dict[str, list[str]] = {}
        self.shown = threading.Event()  # set with the first page of rows
        self._closing, self._warming = False, threading.Thread()

    def warm_up(self) -> threading.Thread:
        """Sort every column and read what later requests would wait for, in the background.

        It begins when the first rows were asked for, so as not to hold them up, or after a while.
        """

        def work() -> None:
            self.shown.wait(_PATIENCE)
            if not self.was_kept and not self._closing:
                keep_table(self.run, self.table, self.files)
                if (same := open_table(self.run)).was_kept:
                    self.table.move_to(same.table)
            for query_id in self.scores.query_ids[:1]:
                if not self._closing:
                    self.scores.of(query_id)

        self._warming = threading.Thread(target=work, name="motive-warm-up", daemon=True)
        self._warming.start()
        return self._warming

    @cached_property
    def queries(self) -> dict[str, Member]:
        """The queries that have scores, by id, in dataset order."""
        scored = set(self.scores.query_ids)
        return {i: member for i, member in self.files.queries.items() if i in scored}

    @cached_property
    def eligible(self) -> np.ndarray:
        """The clips that the run's own settings let be selected, `(N,)` bool."""
        mask = np.ones(len(self.table), bool)
        if held := held_back(self.run):
            mask[self.table.known_positions(held)] = False
        return mask

    @cached_property
    def grouping(self) -> Grouping:
        return group_queries(self.queries)

    @property
    def motions(self) -> dict[str, np.ndarray]:
        """By motion, the clips with a vote of one of its queries, `(N,)` bool."""
        votes = motion_votes(self.grouping, self.scores, set(self.queries))
        count = len(self.table)
        return {n: np.unpackbits(v, count=count).astype(bool) for n, v in votes.items()}

    def source_groups(self, by: str) -> np.ndarray:
        """The source of each clip, `(N,)` int32: its folder, or a column of its metadata; -1 for none."""
        if by not in self._sources:
            if by == "folder":
                names = self.table.texts["file_name"].to_pylist()
                keys = [str(PurePosixPath(name).parent) for name in names]
            else:
                extra = self.files.clip_column("extra", self.table.clip_ids).to_pylist()
                keys = [_value(text, by) for text in extra]
            numbers: dict[str, int] = {"": -1}
            found = [numbers.setdefault(key, len(numbers) - 1) for key in keys]
            self._source_names[by] = [key for key in numbers if key]
            self._sources[by] = np.array(found, np.int32)
        return self._sources[by]

    def source_names(self, by: str) -> list[str]:
        """The names of `source_groups`, by number."""
        self.source_groups(by)
        return self._source_names[by]

    @cached_property
    def source_columns(self) -> list[str]:
        """What clips can be grouped by as sources: the folder, and columns of the dataset's metadata."""
        return ["folder", *self.files.columns]

    def number_of(self, column: str) -> np.ndarray:
        """A column of numbers, also a group's mean score (`group:NAME`).

        Raises UserError when there is none of that name.
        """
        from motive.explorer.groups import mean_over

        if column.startswith("group:"):
            ids = self.grouping.groups.get(column.removeprefix("group:"), [])
            if ids := [i for i in ids if i in self.queries]:
                return mean_over(ids, self.scores)
        try:
            return self.table.number(column)
        except KeyError:
            raise UserError(f"there is no column of numbers {column[:80]!r}") from None

    def effect(self, wanted: Diversity) -> dict[str, Any]:
        """What a diversity would change, against the computed selection; decisions by hand included."""
        choice = self.choice
        choice.refresh()
        before = self.table.selected
        after = (choice.base_of(wanted) & ~choice.excluded) | choice.included
        scores = self.table.numbers["mean_score"]
        per_query = [
            {
                "id": query_id,
                "file_name": member.file_name,
                "before": _mean(self.scores.of(query_id), before),
                "after": _mean(self.scores.of(query_id), after),
            }
            for query_id, member in self.queries.items()
        ]
        return {
            "before": {"count": int(before.sum()), "mean_score": _mean(scores, before)},
            "after": {"count": int(after.sum()), "mean_score": _mean(scores, after)},
            "votes": [_mean(self.table.numbers["votes"], mask) for mask in (before, after)],
            "entered": int((after & ~before).sum()),
            "left": int((before & ~after).sum()),
            "duplicates": [
                self._repeated(mask, self.neighbours.groups(wanted.similarity))
                for mask in (before, after)
            ]
            if wanted.per_duplicate is not None
            else None,
            "motions": [
                {"name": n, "before": int((m & before).sum()), "after": int((m & after).sum())}
                for n, m in self.motions.items()
            ],
            "queries": per_query,
        }

    @staticmethod
    def _repeated(mask: np.ndarray, group: np.ndarray) -> int:
        """Chosen clips beyond the first of their group of near-duplicates."""
        groups = group[mask & (group >= 0)]
        return len(groups) - len(np.unique(groups))

    def close(self, patience: float | None = None) -> None:
        """Let go of the run, after what is being written for the next opening.

        patience: seconds that this is waited for at most, by who then ends the whole process.
        """
        self._closing = True
        self.shown.set()
        if self._warming.is_alive():
            # An interpreter that ends under a thread of Arrow's or Lance's may well crash.
            self._warming.join(patience)
        self.curation.close()


def score_column(query_id: str) -> str:
    return SCORE_PREFIX + query_id


def _mean(values: np.ndarray, mask: np.ndarray) -> float | None:
    return float(values[mask].mean(dtype=np.float64)) if mask.any() else None


def _value(extra: str, name: str) -> str:
    import json

    found = json.loads(extra)
    return str(found.get(name) or "") if isinstance(found, dict) else ""
