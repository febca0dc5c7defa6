"""The annotators' page and what it calls."""

from pathlib import Path

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, Response
from fastapi.staticfiles import StaticFiles
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic import BaseModel, ConfigDict, Field

from motive.study.database import Database
from motive.study.design import VIDEO_FOLDER, Design
from motive.study.guard import Guard
from motive.study.judging import Answered, Choice, Judging, Side, Turn, token_hash

_HERE = Path(__file__).parent
_KEPT_DAYS = 180  # of the cookie that a link leaves
_DAY_MS = 86_400_000


class Answer(BaseModel):
    """What the page posts. response_ms: from both videos ready to the answer confirmed."""

    model_config = ConfigDict(extra="forbid", strict=True)

    place: str = Field(max_length=32)
    choice: Choice
    response_ms: int | None = Field(None, ge=0, le=_DAY_MS)


def make_app(
    study: Path, design: Design, database: Database, public_url: str | None = None
) -> FastAPI:
    """The application that serves one study.

    An annotator opens `/join/SECRET`, which leaves the secret in a cookie and shows the page; from then
    on no address holds it. Nothing that is sent names an arm, a file or a prompt.

    public_url: where annotators reach it, when that is not where it listens.
    """
    app = FastAPI(title="study", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Guard, public_url=public_url)
    app.mount("/static", StaticFiles(directory=_HERE / "static"))
    judging = Judging(design, database)
    pages = Environment(
        loader=FileSystemLoader(_HERE / "templates"), autoescape=True, undefined=StrictUndefined
    )
    # Cookies know no ports: two studies on one machine need two names.
    cookie = f"motive_study_{design.id[:8]}"
    secure = (public_url or "").startswith("https:")

    def token_of(request: Request) -> str:
        return request.cookies.get(cookie, "")

    def page(name: str, status: int = 200, **values: object) -> HTMLResponse:
        return HTMLResponse(pages.get_template(name).render(**values), status)

    @app.get("/join/{token}")
    def join(token: str) -> Response:
        if len(token) > 128 or judging.annotator(token) is None:
            return page("closed.html", 404, reason="This link is not, or no longer, valid.")
        answer = RedirectResponse("/", 303)
        answer.set_cookie(
            cookie,
            token,
            max_age=_KEPT_DAYS * 86_400,
            httponly=True,
            secure=secure,
            samesite="lax",  # a link in a mail is a visit from another site; a post from there is not one
        )
        return answer

    @app.get("/")
    def judge(request: Request) -> Response:
        token = token_of(request)
        if judging.annotator(token) is None:
            return page("closed.html", 401, reason="Please open the link that you were sent.")
        # Answers that could not be sent yet are kept in the browser under this name.
        return page(
            "judge.html", question=design.rules.question, keep=token_hash(f"keep {token}")[:16]
        )

    @app.post("/api/turn")
    def turn(request: Request) -> JSONResponse:
        return _turn_response(judging.turn(token_of(request)))

    @app.post("/api/more")
    def more(request: Request) -> JSONResponse:
        return _turn_response(judging.take_over(token_of(request)))

    @app.post("/api/answers")
    def answers(answer: Answer, request: Request) -> JSONResponse:
        token = token_of(request)
        kept = judging.answer(token, answer.place, answer.choice, answer.response_ms)
        if kept is None:
            return _turn_response(None)
        outcome, following = kept
        status = {Answered.NOT_YOURS: 404, Answered.OTHER_BEFORE: 409}.get(outcome, 200)
        return _turn_response(following, status)

    @app.get("/places/{place}/{side}")
    def video(place: str, side: Side, request: Request) -> FileResponse:
        name = judging.video(token_of(request), place, side)
        if name is None:
            raise HTTPException(404)
        return FileResponse(
            study / VIDEO_FOLDER / f"{name}.mp4",
            media_type="video/mp4",
            headers={"Cache-Control": "private, max-age=3600"},
        )

    @app.get("/health")
    def health() -> JSONResponse:
        return JSONResponse({"ok": True})

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"error": "that is no answer"}, 422)  # and nothing of it is sent back

    return app


def _turn_response(turn: Turn | None, status: int = 200) -> JSONResponse:
    if turn is None:
        return JSONResponse({"error": "open the link that you were sent"}, 401)
    return JSONResponse(
        {"place": turn.place_id, "done": turn.done, "total": turn.total, "more": turn.more}, status
    )
