"""What every request passes and every response carries: the page is for its own study alone."""

from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LARGEST_BODY = 4096  # bytes; an answer has some 100

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "media-src 'self' blob:; connect-src 'self'; form-action 'none'; base-uri 'none'; "
    "frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "X-Robots-Tag": "noindex",
}


class Guard:
    """Refuses what other sites ask in an annotator's name, and answers that are no answers.

    A post must come from the page itself: with an `Origin` of this very host (or of `public_url`, behind
    a proxy that changes the host), which browsers set and scripts cannot forge. Anything but a visit is
    refused when the browser says that another site is behind it.
    """

    def __init__(self, app: ASGIApp, public_url: str | None = None) -> None:
        self._app = app
        self._public = urlsplit(public_url or "").netloc or None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        reason = self._refusal(scope["method"], Headers(scope=scope))
        if reason is None:
            await self._app(scope, receive, send_guarded)
        else:
            status, text = reason
            await PlainTextResponse(text, status)(scope, receive, send_guarded)

    def _refusal(self, method: str, headers: Headers) -> tuple[int, str] | None:
        site, mode = headers.get("sec-fetch-site"), headers.get("sec-fetch-mode")
        if site in ("cross-site", "same-site") and mode != "navigate":
            return 403, "another site asked for this"
        if method in ("GET", "HEAD"):
            return None
        origin = urlsplit(headers.get("origin", "")).netloc
        if not origin or origin not in (headers.get("host"), self._public):
            return 403, "another site asked for this"
        if headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            return 415, "an answer is JSON"
        # Beside a transfer coding the length says nothing, and the body may have any.
        length = headers.get("content-length", "")
        if "transfer-encoding" in headers or not length.isdecimal():
            return 411, "an answer has a length"
        if int(length) > LARGEST_BODY:
            return 413, "that is too long for an answer"
        return None
