"""The files of a run's clips and queries, found by clip id and by nothing else."""

import json
import threading
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from motive.explorer.stored import dataset_of, equals, read_columns, whole
from motive.motion.masks import motion_mask
from motive.motion.track import maps_of
from motive.runs.members import MADE_BY, SCHEMA, Member

if TYPE_CHECKING:
    from motive.pipeline import Run

_FIELDS = [field.name for field in SCHEMA]


@dataclass(frozen=True)
class Mask:
    """A motion mask as a page draws it.

    values_fhw: 0..255, one grid for each sampled frame. fps: of the sampled frames.
    """

    values_fhw: np.ndarray
    fps: float


class ClipFiles:
    """The usable members of a run. A million of them cost 8 MB until one is asked for.

    queries, columns: of the properties of these names, when they are known; None looks when asked.
    """

    def __init__(
        self,
        run: "Run",
        queries: dict[str, Member] | None = None,
        columns: list[str] | None = None,
    ) -> None:
        self._run = run
        if queries is not None:
            self.queries = queries
        if columns is not None:
            self.columns = columns
        self._lock = threading.Lock()
        self._known: dict[str, Member] = {}

    def find(self, clip_id: str) -> Member:
        """The clip or the query of that id.

        Raises KeyError when the run has none.
        """
        with self._lock:
            if clip_id in self._known:
                return self._known[clip_id]
            dataset, ids, rows = self._index
            position = pc.index(ids, pa.scalar(clip_id, ids.type)).as_py()
            if position < 0:
                raise KeyError(clip_id)
            row = dataset.take([int(rows[position])], columns=_FIELDS).to_pylist()[0]
            if len(self._known) > 20_000:
                self._known = {}
            self._known[clip_id] = Member(**row)
            return self._known[clip_id]

    @cached_property
    def queries(self) -> dict[str, Member]:
        """The usable queries by clip id, in dataset order."""
        where = f"{equals('made_by', MADE_BY)} and role = 'query' and reason = ''"
        found = read_columns(self._run.store.members, _FIELDS, where)
        return {row["clip_id"]: Member(**row) for row in found.to_pylist()}

    @cached_property
    def columns(self) -> list[str]:
        """The names of the dataset's other columns, as its first usable clip has them."""
        where = f"{equals('made_by', MADE_BY)} and role = 'clip' and reason = ''"
        found = read_columns(self._run.store.members, _FIELDS, where, most=1).to_pylist()
        return list(metadata_of(Member(**found[0]))) if found else []

    def clip_column(self, name: str, clip_ids: pa.Array) -> pa.Array:
        """A column of the clips' members, in the order of these ids."""
        where = f"{equals('made_by', MADE_BY)} and role = 'clip' and reason = ''"
        found = read_columns(self._run.store.members, ["clip_id", name], where)
        place = pc.index_in(clip_ids, value_set=whole(found["clip_id"]))
        return whole(found[name]).take(place)

    def mask(self, clip_id: str) -> Mask | None:
        """The motion mask by the run's recipe, the paper's for a run without one; None if not tracked."""
        run = self._run
        stage, settings = run.plan.track_stage, run.config.motion
        row = run.store.results(stage).lookup([clip_id], stage.fingerprint()).get(clip_id)
        if row is None:
            return None
        mask_fhw = motion_mask(
            maps_of(row),
            "paper" if settings.mask == "none" else settings.mask,
            trusted=settings.mask_trusted,
            static_below=settings.static_below,
        )
        values = np.round(255 * mask_fhw).astype(np.uint8)
        return Mask(values, self.find(clip_id).fps or 1.0)

    @cached_property
    def _index(self) -> tuple[Any, pa.Array, np.ndarray]:
        """The table as it was, the usable clip ids, and their rows in it."""
        dataset = dataset_of(self._run.store.members.path)
        found = dataset.to_table(columns=["clip_id", "reason", "made_by"])
        usable = pc.and_(pc.equal(found["reason"], ""), pc.equal(found["made_by"], MADE_BY))
        rows = np.flatnonzero(usable.to_numpy(zero_copy_only=False)).astype(np.int64)
        return dataset, whole(found["clip_id"]).take(pa.array(rows)), rows


def metadata_of(member: Member) -> dict[str, Any]:
    """The dataset's other columns of a clip."""
    found = json.loads(member.extra)
    return found if isinstance(found, dict) else {}
