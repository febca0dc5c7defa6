"""Who may ask the explorer: this machine's own page, and nobody else's.

A page of another site can make a browser send requests to a server on loopback, and by DNS rebinding even
read the answers. So every request must name this server as its host, and every one that changes something
must come from a page of this very server.
"""

import hashlib
import hmac
import ipaddress
import socket
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders, QueryParams
from starlette.requests import cookie_parser
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LARGEST = 32 * 2**20  # bytes of a request: a lasso around a million clips names them in 8 MB
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "x-frame-options": "DENY",
}


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server on `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """ASGI middleware: refuses requests that are not this page's own, and sets the headers.

    host: what the server listens on. token: when given, a request must bring it once in the address and
    then as a cookie.
    """

    def __init__(self, app: ASGIApp, host: str, token: str | None = None) -> None:
        self._app, self._host, self._token = app, host, token
        # Cookies know no ports: each explorer of a machine has one of its own.
        self._cookie = f"motive_explorer_{hashlib.sha256((token or '').encode()).hexdigest()[:8]}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            # Only lifespan is left; a websocket is of no use here.
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        refusal = self._refusal(scope, headers)
        await (refusal or self._app)(scope, receive, with_headers)

    def _refusal(self, scope: Scope, headers: Headers) -> Response | None:
        host = headers.get("host", "")
        if not self._is_mine(host):
            return PlainTextResponse("this server does not go by that name", 421)
        site, mode = headers.get("sec-fetch-site"), headers.get("sec-fetch-mode")
        changes = scope["method"] not in ("GET", "HEAD", "OPTIONS")
        foreign = site is not None and site not in ("same-origin", "none")
        if foreign and (changes or mode != "navigate"):
            return PlainTextResponse("requests from other sites are refused", 403)
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return PlainTextResponse("requests from other sites are refused", 403)
        kind = headers.get("content-type", "").partition(";")[0].strip()
        if changes and kind != "application/json":
            # A form of another site can send no JSON without asking first.
            return PlainTextResponse("only JSON is taken", 415)
        length = headers.get("content-length", "")
        if changes and ("transfer-encoding" in headers or not length.isdecimal()):
            # The body is read whole before it is looked at: its size must be known.
            return PlainTextResponse("a request says its length", 411)
        if changes and int(length) > LARGEST:
            return PlainTextResponse("the request is too large", 413)
        return self._without_token(scope, headers)

    def _without_token(self, scope: Scope, headers: Headers) -> Response | None:
        if self._token is None:
            return None
        cookie = cookie_parser(headers.get("cookie", "")).get(self._cookie, "")
        if hmac.compare_digest(cookie.encode(), self._token.encode()):
            return None
        given = QueryParams(scope["query_string"]).get("token", "")
        if scope["path"] == "/" and hmac.compare_digest(given.encode(), self._token.encode()):
            answer = RedirectResponse("/", 303)
            # Lax, so that the address also opens from a mail or a chat; what changes something, or
            # is no navigation, is refused to other sites above.
            answer.set_cookie(self._cookie, self._token, httponly=True, samesite="lax")
            return answer
        return PlainTextResponse("open the address that motive explore printed", 401)

    def _is_mine(self, host: str) -> bool:
        """Rebinding needs a name that its owner can point elsewhere: an address is none."""
        name = urlsplit(f"//{host}").hostname or ""
        if name in ("localhost", self._host.lower()):
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            names = {socket.gethostname().lower(), socket.getfqdn().lower()}
            return not is_loopback(self._host) and name in names
        return address.is_loopback or not is_loopback(self._host)
