"""The page's own addresses: what it changes. Nothing of the run's own files is written here."""

from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field

from motive.errors import UserError
from motive.explorer.choice import Diversity
from motive.explorer.corpus_map import inside
from motive.explorer.exporting import export_chosen, formats
from motive.explorer.session import Session
from motive.explorer.views import parse_filter

ClipIds = Annotated[list[Annotated[str, Field(max_length=64)]], Field(max_length=2_000_000)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Decide(_Body):
    """clip_ids, or all clips that a filter lets through."""

    decision: Literal["include", "exclude"] | None
    clip_ids: ClipIds | None = None
    filter: str | None = Field(None, max_length=20_000)


class Note(_Body):
    clip_id: str = Field(max_length=64)
    text: str = Field(max_length=10_000)


class Lasso(_Body):
    """A polygon on the map, in the map's own coordinates."""

    polygon: list[tuple[float, float]] = Field(min_length=3, max_length=5000)
    method: Literal["pca", "umap"] = "pca"


class ExportWish(_Body):
    format: str = Field(max_length=40)
    name: str = Field(max_length=100)
    link: bool = False


def add_decisions(app: FastAPI, session: Session) -> None:
    """Everything that is posted."""
    choice, curation, table = session.choice, session.curation, session.table

    @app.get("/api/curation")
    def state() -> dict[str, Any]:
        return choice.summary() | {"events": curation.history().events}

    @app.post("/api/decide")
    def decide(wish: Decide) -> dict[str, Any]:
        if (wish.clip_ids is None) == (wish.filter is None):
            raise UserError("give either clips or a filter")
        if wish.clip_ids is not None:
            ids = wish.clip_ids
            table.positions(ids)  # none is kept that the run does not have
        else:
            mask = session.views.mask(parse_filter(wish.filter or ""))
            every = np.arange(len(table)) if mask is None else np.flatnonzero(mask)
            ids = table.clip_ids.take(pa.array(every)).to_pylist()
        changed = curation.decide(ids, wish.decision)
        return choice.summary() | {"changed": changed}

    @app.post("/api/note")
    def note(wish: Note) -> dict[str, Any]:
        table.position(wish.clip_id)
        curation.note(wish.clip_id, wish.text)
        return choice.summary()

    @app.post("/api/undo")
    def undo() -> dict[str, Any]:
        what = curation.undo()
        return choice.summary() | {"what": what}

    @app.post("/api/redo")
    def redo() -> dict[str, Any]:
        what = curation.redo()
        return choice.summary() | {"what": what}

    @app.post("/api/diversity/effect")
    def effect(wish: Diversity) -> dict[str, Any]:
        return session.effect(wish)

    @app.post("/api/diversity")
    def diversity(wish: Diversity) -> dict[str, Any]:
        session.effect(wish)  # what cannot be computed is not kept
        choice.save_diversity(wish)
        return choice.summary()

    @app.post("/api/lasso")
    def lasso(wish: Lasso) -> dict[str, Any]:
        points = session.maps.of(wish.method).points_n2
        found = np.flatnonzero(inside(points, np.array(wish.polygon)))
        return {"set": session.views.keep_set(found), "count": len(found)}

    @app.post("/api/export")
    def export(wish: ExportWish) -> dict[str, Any]:
        if wish.format not in formats():
            raise UserError(f"there is no format {wish.format!r}: use {', '.join(formats())}")
        choice.refresh()
        chosen = choice.chosen.copy()
        if not chosen.any():
            raise UserError("no clip is chosen: include some first")
        job = session.exports.start(
            wish.name,
            lambda out: export_chosen(wish.format, table, chosen, session.files, out, wish.link),
        )
        return job.as_json()

    @app.get("/api/export/{number}")
    def export_state(number: int) -> dict[str, Any]:
        return session.exports.job(number).as_json()
