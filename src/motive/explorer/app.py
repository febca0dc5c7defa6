"""The page's own addresses: what it reads of a run."""

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import FastAPI, Query, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.staticfiles import StaticFiles

from motive.errors import ClipError, UserError
from motive.explorer import corpus_map
from motive.explorer.app_decisions import add_decisions
from motive.explorer.clip_files import metadata_of
from motive.explorer.exporting import formats
from motive.explorer.groups import describe_groups, group_queries
from motive.explorer.security import Guard
from motive.explorer.session import Session
from motive.explorer.table import COLUMNS
from motive.explorer.views import parse_filter
from motive.runs.members import Member

STATIC = Path(__file__).parent / "static"
PAGE_LIMIT = 500  # rows of one answer
ALIKE = 0.95  # cosine of gradients from which two clips count as near-duplicates
_HOUR = {"cache-control": "private, max-age=3600"}  # a clip's id changes with its content

Order = Annotated[str, Query(pattern="^(asc|desc)$")]
Text = Annotated[str, Query(max_length=20_000)]


def make_app(session: Session, host: str, token: str | None = None) -> FastAPI:
    """The application.

    host: what the server listens on; token: as of `Guard`.
    """
    app = FastAPI(title="motive explore", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Guard, host=host, token=token)
    app.add_exception_handler(UserError, _answer(400))
    app.add_exception_handler(ClipError, _answer(422))
    app.add_exception_handler(KeyError, _not_there)
    _add_page(app)
    _add_rows(app, session)
    _add_clips(app, session)
    _add_charts(app, session)
    add_decisions(app, session)
    return app


def _add_page(app: FastAPI) -> None:
    @app.get("/")
    def page() -> FileResponse:
        return FileResponse(STATIC / "index.html", headers={"cache-control": "no-cache"})

    app.mount("/static", StaticFiles(directory=STATIC))


def _add_rows(app: FastAPI, session: Session) -> None:
    table, choice, views = session.table, session.choice, session.views

    @app.get("/api/run")
    def run() -> dict[str, Any]:
        config, failures = session.run.config, session.run.path / "failures.csv"
        return {
            "name": session.run.path.resolve().name,
            "path": str(session.run.path.resolve()),
            "model": config.model,
            "clips": len(table),
            "failures": _lines(failures),
            "columns": [vars(column) for column in COLUMNS],
            "queries": [_query(session, q, m) for q, m in session.queries.items()],
            "groups": list(session.grouping.groups),
            "formats": formats(),
            "maps": corpus_map.Maps.methods() if corpus_map.has_features(session.run) else [],
            "sources": session.source_columns,
            "aspect": session.run.sampler.width / session.run.sampler.height,
            "percentile": config.selection.percentile,
            "bounded": session.run.plan.estimator.bounded,
            "curation": choice.summary(),
        }

    @app.get("/api/rows")
    def rows(
        sort: str = "rank",
        order: Order = "asc",
        filter: Text = "",
        offset: Annotated[int, Query(ge=0)] = 0,
        limit: Annotated[int, Query(ge=0, le=PAGE_LIMIT)] = 100,
    ) -> JSONResponse:
        wanted = parse_filter(filter)
        version = choice.version()
        found = views.rows(wanted, sort, order == "desc")
        shown = [_row(session, int(p), sort) for p in found[offset : offset + limit]]
        session.shown.set()
        # Made by hand: FastAPI would look at every value of every row.
        return JSONResponse({"total": len(found), "version": version, "rows": shown})

    @app.get("/api/histogram")
    def histogram(column: str, filter: Text = "") -> dict[str, Any]:
        return views.histogram(column, parse_filter(filter))


def _add_clips(app: FastAPI, session: Session) -> None:
    files, media, table = session.files, session.media, session.table

    @app.get("/api/clip/{clip_id}")
    def clip(clip_id: str) -> dict[str, Any]:
        member, position = files.find(clip_id), table.position(clip_id)
        scores = session.scores.at(position)
        return {
            **_row(session, position),
            "position": position,
            "frames": member.frames,
            "fps": member.fps,
            "metadata": {k: str(v) for k, v in metadata_of(member).items()},
            "scores": [
                {"id": q, "score": s, "vote": s > session.scores.threshold(q)}
                for q, s in scores.items()
            ],
        }

    @app.get("/api/at/{position}")
    def at(position: int) -> dict[str, Any]:
        if not 0 <= position < len(table):
            raise KeyError(position)
        return _row(session, position)

    @app.get("/api/extremes")
    def extremes(
        query: str, count: Annotated[int, Query(ge=1, le=50)] = 6
    ) -> dict[str, list[dict[str, Any]]]:
        name = f"score:{query}"
        found = {}
        for side, descending in (("most", True), ("least", False)):
            order = table.order(name, descending=descending)[:count]
            found[side] = [_row(session, int(p), name) for p in order]
        return found

    @app.get("/poster/{clip_id}.jpg")
    def poster(clip_id: str) -> Response:
        return Response(media.poster(files.find(clip_id)), media_type="image/jpeg", headers=_HOUR)

    @app.get("/media/{clip_id}")
    def original(clip_id: str) -> FileResponse:
        path, kind = media.original(files.find(clip_id))
        return FileResponse(path, media_type=kind, headers=_HOUR)

    @app.get("/sampled/{clip_id}.mp4")
    def sampled(clip_id: str) -> FileResponse:
        path = media.as_sampled(files.find(clip_id))
        return FileResponse(path, media_type="video/mp4", headers=_HOUR)

    @app.get("/api/mask/{clip_id}")
    def mask(clip_id: str) -> dict[str, Any]:
        found = files.mask(clip_id)
        if found is None:
            raise KeyError(clip_id)
        return {
            "shape": found.values_fhw.shape,
            "fps": found.fps,
            "values": base64.b64encode(found.values_fhw.tobytes()).decode(),
        }

    @app.get("/api/similar/{clip_id}")
    def similar(
        clip_id: str,
        count: Annotated[int, Query(ge=1, le=200)] = 12,
        similarity: Annotated[float, Query(ge=0, le=1)] = ALIKE,
    ) -> dict[str, Any]:
        found = session.neighbours.similar(files.find(clip_id).feature_key, max(count, 50))
        alike = sum(value >= similarity for value in found.similarity)
        nearest = table.positions(found.clip_ids)
        positions = nearest[:count]
        rows = [_row(session, int(p)) for p in positions]
        for row, value in zip(rows, found.similarity, strict=False):
            row["similarity"] = round(value, 4)
        own = table.known_positions([clip_id]).tolist()  # a query is in no grid
        return {
            "exact": found.exact,
            "rows": rows,
            "set": session.views.keep_set([*own, *positions.tolist()]),
            "duplicates": alike,
            "duplicates_set": session.views.keep_set([*own, *nearest[:alike].tolist()]),
        }

    @app.get("/api/explain")
    def explain(clip: str, query: str) -> JSONResponse:
        files.find(clip)
        if query not in session.queries:
            raise KeyError(query)
        return JSONResponse(_explanation(session, clip, query))


def _add_charts(app: FastAPI, session: Session) -> None:
    @app.get("/api/map")
    def corpus(column: str = "mean_score", method: str = "pca") -> JSONResponse:
        made = session.maps.of("umap" if method == "umap" else "pca")
        positions = corpus_map.drawn(len(session.table))
        positions = positions[np.isfinite(made.points_n2[positions, 0])]
        points = made.points_n2[positions]
        return JSONResponse(
            {
                "note": made.note,
                "total": int(np.isfinite(made.points_n2[:, 0]).sum()),
                "positions": positions.tolist(),
                "x": points[:, 0].round(4).tolist(),
                "y": points[:, 1].round(4).tolist(),
                **_colours(session, column, positions),
            }
        )

    @app.get("/api/groups")
    def groups(label: str | None = None) -> dict[str, Any]:
        session.choice.refresh()
        grouping = group_queries(session.queries, label)
        return describe_groups(grouping, session.queries, session.scores, session.choice.chosen)

    @app.get("/api/scatter")
    def scatter(score: str = "mean_score", column: str = "mean_speed") -> JSONResponse:
        from scipy.stats import spearmanr

        x, y = session.number_of(column), session.number_of(score)
        good = np.isfinite(x) & np.isfinite(y)
        rho = float(spearmanr(x[good], y[good]).statistic) if good.sum() > 2 else float("nan")
        positions = corpus_map.drawn(len(session.table))
        positions = positions[good[positions]]
        session.choice.refresh()
        return JSONResponse(
            {
                "positions": positions.tolist(),
                "x": _rounded(x[positions]),
                "y": _rounded(y[positions]),
                "chosen": session.choice.chosen[positions].astype(int).tolist(),
                "total": int(good.sum()),
                "rho": round(rho, 3) if rho == rho else None,
            }
        )


def _row(session: Session, position: int, sort: str = "") -> dict[str, Any]:
    row = session.table.row(position)
    if ":" in sort:
        row[sort] = float(session.table.number(sort)[position])
    return row | session.choice.facts(position, row["clip_id"])


def _query(session: Session, query_id: str, member: Member) -> dict[str, Any]:
    motion = next((n for n, ids in session.grouping.groups.items() if query_id in ids), "")
    return {
        "id": query_id,
        "file_name": member.file_name,
        "caption": member.caption,
        "motion": motion,
        "frames": member.frames,
        "fps": member.fps,
    }


def _colours(session: Session, column: str, positions: np.ndarray) -> dict[str, Any]:
    """A column at some clips: numbers, or the most frequent texts as categories."""
    if column == "chosen":
        session.choice.refresh()
        names, codes = ["left", "chosen"], session.choice.chosen[positions].astype(int)
    elif column in session.table.texts:
        texts = session.table.texts[column].take(positions.tolist()).to_pylist()
        names = sorted(set(texts), key=lambda text: (-texts.count(text), text))[:9]
        codes = np.array([names.index(t) if t in names else len(names) for t in texts], int)
        names = [*names, "other"]
    elif column in session.source_columns:
        groups = session.source_groups(column)[positions]
        names = session.source_names(column)
        codes = groups
    else:
        return {"colour": _rounded(session.number_of(column)[positions]), "names": None}
    return {"colour": codes.tolist(), "names": names}


def _explanation(session: Session, clip: str, query: str) -> dict[str, Any]:
    """values: -127..127 of `scale`, the largest absolute value of the heat map."""
    from motive.explanation import explain

    with session.explaining:
        found = explain(session.run, clip, query)
    heat = found.heat_fhw
    scale = float(np.abs(heat).max()) or 1.0
    values = np.round(127 * heat / scale).astype(np.int8)
    return {
        "shape": heat.shape,
        "values": base64.b64encode(values.tobytes()).decode(),
        "scale": scale,
        "influence": found.influence,
        "curve": found.curve.tolist(),
        "frame_map": found.frame_map,
        "best_interval": found.best_interval,
    }


def _rounded(values: np.ndarray) -> list[float | None]:
    """To six significant digits: scores may be tiny."""
    return [float(f"{v:.6g}") if v == v else None for v in values.astype(float).tolist()]


def _lines(file: Path) -> int:
    import csv

    if not file.is_file():
        return 0
    with file.open(newline="", encoding="utf-8", errors="replace") as stream:
        return sum(1 for _ in csv.DictReader(stream))


def _answer(status: int) -> Callable[[Request, Exception], JSONResponse]:
    return lambda request, error: JSONResponse({"error": str(error)}, status)


def _not_there(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": "the run has no such clip"}, 404)
