"""A server for one run, on loopback unless told otherwise."""

import os
import secrets
import socket
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from motive.errors import INTERRUPTED, INTERRUPTED_SAYS, UserError

PORT = 8765


def serve_explorer(path: Path, *, host: str, port: int | None, browser: bool) -> None:
    """Open the run in `path` and answer until interrupted. Prints the address once it answers.

    port: None is 8765, or any free one when that is taken; 0 is any free one.
    browser: open the address in the person's browser.

    A server that others can reach asks for the secret in the address that is printed.

    Raises UserError when the run cannot be explored, the port is taken, or a package is missing.
    """
    listening = _listen(host, port)
    from motive.explorer.table_file import open_table
    from motive.pipeline import Run

    run = Run.open(path)
    with ThreadPoolExecutor(1) as beside:
        # Arrow and Lance read the tables while Python imports the server.
        opening = beside.submit(open_table, run)
        try:
            from motive.explorer.app import make_app
            from motive.explorer.ending import GRACE_SECONDS, Server
            from motive.explorer.security import is_loopback
            from motive.explorer.session import Session
        except ImportError as error:
            raise UserError(
                f"the explorer needs the package {error.name}: "
                "pip install 'motive-attribution[explore]'"
            ) from None
        session = Session(run, opening.result())
    token = None if is_loopback(host) else secrets.token_urlsafe(24)
    app = make_app(session, host, token)
    # Listening on every address is no address to go to.
    name = socket.gethostname() if host in ("0.0.0.0", "::") else host
    shown = f"[{name}]" if ":" in name else name
    address = f"http://{shown}:{listening.getsockname()[1]}/"
    if token:
        address += f"?token={token}"
    session.warm_up()
    print(f"{path} at {address}", flush=True)
    if token:
        print("whoever has this address sees the clips and can change the choice", flush=True)
    print("Ctrl+C ends it; decisions are saved as they are made", flush=True)
    if browser:
        import webbrowser

        webbrowser.open(address)
    try:
        Server(app).run(sockets=[listening])
    except KeyboardInterrupt:
        session.close(GRACE_SECONDS)
        _leave_if_busy()
        raise
    finally:
        session.close()


def _leave_if_busy() -> None:
    """End the process here if a thread still computes what nobody waits for any more.

    Python would wait for it, for as long as a map or a heat map takes, or crash when it takes itself down
    under it. Nothing is lost: what is kept is written whole, and decisions were waited for.
    """
    if threading.active_count() > 1:
        print(f"motive: {INTERRUPTED_SAYS}", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(INTERRUPTED)


def _listen(host: str, port: int | None) -> socket.socket:
    """A socket that listens, so that the address can be told before the first request."""
    tries = (PORT, 0) if port is None else (port,)
    for wanted in tries:
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            # asyncio sends small answers at once only on sockets that say they are TCP.
            made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind((host, wanted))
            made.listen(128)
            return made
        except (OSError, OverflowError) as error:
            made.close()
            reason = getattr(error, "strerror", None) or error
    raise UserError(
        f"{host} port {tries[-1]} cannot be listened on ({reason}): use another --port or --host"
    )
