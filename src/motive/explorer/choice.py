"""The final choice: the computed selection, or a more diverse one, as a person corrected it."""

import json
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from motive.explorer.curation import Curation
from motive.explorer.diversity import Cap, Coverage, choose_diverse
from motive.explorer.table import ClipTable
from motive.explorer.views import State

SETTING = "diversity"


class Diversity(BaseModel):
    """How varied the choice should be; as it is by default, the computed selection stands.

    per_duplicate: at most so many clips of a group of near-duplicates; None is no cap.
    similarity: cosine of two gradient features from which the clips count as near-duplicates, 0..1.
    per_source: at most so many clips of a source (`source_by`); None is no cap.
    source_by: `folder`, or a column of the dataset's metadata.
    per_motion: at least so many clips with a vote of each motion's queries; None asks for none.
    refill: excluded clips' places go to the next best, so that the number of clips stays.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    per_duplicate: int | None = Field(None, ge=1)
    similarity: float = Field(0.95, gt=0, le=1)
    per_source: int | None = Field(None, ge=1)
    source_by: str = Field("folder", max_length=100)
    per_motion: int | None = Field(None, ge=1)
    refill: bool = False

    @property
    def active(self) -> bool:
        """Whether anything but the computed selection is asked for."""
        wanted = (self.per_duplicate, self.per_source, self.per_motion)
        return self.refill or any(value is not None for value in wanted)


class Choice:
    """Which clips are chosen, and why.

    eligible: which clips the run's own settings let be selected, `(N,)` bool.
    duplicates, sources, motions: give groups for a diversity (`(N,)` ints; `(N,)` ints; bools by motion).
    """

    def __init__(
        self,
        table: ClipTable,
        curation: Curation,
        eligible: Callable[[], np.ndarray],
        duplicates: Callable[[float], np.ndarray],
        sources: Callable[[str], np.ndarray],
        motions: Callable[[], list[np.ndarray]],
    ) -> None:
        self.table, self.curation, self._eligible = table, curation, eligible
        self._duplicates, self._sources, self._motions = duplicates, sources, motions
        self._seen: tuple[int, int] | None = None
        self._count = 0
        self._lock = threading.RLock()
        self.refresh()

    def version(self) -> int:
        """Changes with every decision."""
        self.refresh()
        return self._count

    def refresh(self) -> None:
        """Take over what was decided since, here or by another process."""
        with self._lock:
            now = self.curation.version()
            if now == self._seen:
                return
            self.included = self._mask_of("decision", "include")
            self.excluded = self._mask_of("decision", "exclude")
            self.notes = self.curation.values("note")
            saved = self.curation.setting(SETTING)
            self.diversity = Diversity.model_validate(saved)
            self.base = self.base_of(self.diversity)
            self.chosen = (self.base & ~self.excluded) | self.included
            self._seen, self._count = now, self._count + 1

    def base_of(self, wanted: Diversity) -> np.ndarray:
        """The selection before decisions by hand, under a diversity, `(N,)` bool."""
        if not wanted.active:
            return self.table.selected
        caps = []
        if wanted.per_duplicate is not None:
            caps.append(Cap(self._duplicates(wanted.similarity), wanted.per_duplicate))
        if wanted.per_source is not None:
            caps.append(Cap(self._sources(wanted.source_by), wanted.per_source))
        coverage = None
        if wanted.per_motion is not None:
            coverage = Coverage(self._motions(), wanted.per_motion)
        free = self._eligible() & ~self.excluded & ~self.included
        mask = np.zeros(len(self.table), bool)
        picked = choose_diverse(
            int(self.table.selected.sum()),
            np.flatnonzero(free),
            caps,
            coverage,
            np.flatnonzero(self.included),
        )
        mask[picked] = True
        return mask

    def mask(self, state: State) -> np.ndarray:
        """The clips in a state, `(N,)` bool."""
        self.refresh()
        if state == "noted":
            return self._mask_of("note", None)
        every = np.ones(len(self.table), bool)
        return {
            "all": every,
            "chosen": self.chosen,
            "left": ~self.chosen,
            "computed": self.table.selected,
            "included": self.included,
            "excluded": self.excluded,
        }[state]

    def facts(self, position: int, clip_id: str) -> dict[str, Any]:
        """What a row says beside the computed columns."""
        by_hand = "include" if self.included[position] else "exclude"
        decided = bool(self.included[position] or self.excluded[position])
        return {
            "chosen": bool(self.chosen[position]),
            "decision": by_hand if decided else None,
            "note": self.notes.get(clip_id, ""),
        }

    def summary(self) -> dict[str, Any]:
        """Counts, and what can be undone."""
        self.refresh()
        history = self.curation.history()
        return {
            "chosen": int(self.chosen.sum()),
            "computed": int(self.table.selected.sum()),
            "included": int(self.included.sum()),
            "excluded": int(self.excluded.sum()),
            "notes": len(self.notes),
            "diversity": self.diversity.model_dump(),
            "undo": history.undo,
            "redo": history.redo,
            "version": self._count,
        }

    def save_diversity(self, wanted: Diversity) -> int:
        """Keep a diversity; it can be undone as every decision."""
        value = json.loads(wanted.model_dump_json()) if wanted.active else {}
        return self.curation.set(SETTING, value, "diversity" if value else "no diversity")

    def _mask_of(self, field: Any, value: str | None) -> np.ndarray:
        found = self.curation.values(field)
        ids = [i for i, v in found.items() if value is None or v == value]
        mask = np.zeros(len(self.table), bool)
        if ids:
            mask[self.table.known_positions(ids)] = True
        return mask
