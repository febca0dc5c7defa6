"""The end of the server: soon after it is asked for, and never between a decision and its answer."""

import asyncio
import logging
import socket

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send

GRACE_SECONDS = 1  # that requests under way are given
_POLL_SECONDS = 0.05
# Posted because they are long, but nothing is kept of them.
_ONLY_ASK = ("/api/lasso", "/api/diversity/effect")


class Changes:
    """ASGI middleware that counts the requests under way that change something, once they are here whole."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        changes = (
            scope["type"] == "http"
            and scope["method"] not in ("GET", "HEAD", "OPTIONS")
            and scope["path"] not in _ONLY_ASK
        )
        if not changes:
            return await self._app(scope, receive, send)
        arrived = False

        async def counted() -> Message:
            nonlocal arrived
            message = await receive()
            if not arrived and message["type"] == "http.request" and not message.get("more_body"):
                arrived = True
                self.under_way += 1
            return message

        try:
            await self._app(scope, counted, send)
        finally:
            self.under_way -= arrived


class Server(uvicorn.Server):
    """One that waits for changes, and for nothing else longer than a second.

    uvicorn would wait for every answer, and a browser takes that of a long video as slowly as it is watched.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._changes = Changes(app)
        super().__init__(
            uvicorn.Config(
                self._changes,
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=GRACE_SECONDS,
            )
        )

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Wait for what changes something, or for a second Ctrl+C; then end."""
        while self._changes.under_way and not self.force_exit:
            await asyncio.sleep(_POLL_SECONDS)
        # uvicorn calls an answer that is cut off an error.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        await super().shutdown(sockets)
