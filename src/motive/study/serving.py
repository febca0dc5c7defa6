"""`motive study serve`: the page on a port, and the links to send."""

import logging
import socket
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import uvicorn

from motive.errors import UserError
from motive.study.database import open_database
from motive.study.design import VIDEO_FOLDER, Design, read_design
from motive.study.roster import read_tokens
from motive.study.server import make_app

LOOPBACK = "127.0.0.1"
_THINKING_SECONDS = 75  # between two answers, for which a connection is kept
_PORTS = {"http": ":80", "https": ":443"}  # which browsers leave out
_WAITING = 256  # connections that the system may hold for us


def serve_study(
    study: Path,
    *,
    host: str = LOOPBACK,
    port: int = 8788,
    public_url: str | None = None,
    database: str | None = None,
    ready: Callable[[str], None] = lambda address: None,
) -> None:
    """Serve a study's page until the process is interrupted.

    port: 0 takes one that is free.
    public_url: the address that annotators use, when it is not where the server listens.
    ready: called with the address once connections are accepted.

    Raises UserError when there is nothing to serve, when the address is taken, and when it is all
    interfaces (0.0.0.0, ::), which nobody can open, without a `public_url`.
    """
    public = None if public_url is None else public_address(public_url)
    design = read_design(study)
    _require_videos(study, design)
    held = open_database(study, design, database)
    try:
        listening = _listen(host, port, named=public is not None)
        address = public or f"http://{_shown(host)}:{listening.getsockname()[1]}"
        config = uvicorn.Config(
            make_app(study, design, held, public),
            log_level=logging.WARNING,
            access_log=False,  # it would hold the links' secrets
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=_THINKING_SECONDS,
        )
        ready(address)
        uvicorn.Server(config).run(sockets=[listening])
    finally:
        held.close()


def links(study: Path, address: str) -> dict[str, str]:
    """The link of each annotator, by name; empty when `links.csv` has been taken away."""
    return {name: f"{address}/join/{token}" for name, token in read_tokens(study).items()}


def public_address(url: str) -> str:
    """The address that annotators use as browsers write it in `Origin`.

    Raises UserError unless it is http(s)://HOST or http(s)://HOST:PORT: the page's own paths begin at /.
    """
    try:
        parts = urlsplit(url)
        usable = parts.port != 0 and parts.hostname and parts.username is None
    except ValueError:
        usable = False
    if (
        not usable
        or parts.scheme not in _PORTS
        or parts.path not in ("", "/")
        or parts.query
        or parts.fragment
    ):
        raise UserError(
            f"--public-url {url} is no address of a host of its own: "
            f"write it like https://study.example.org"
        )
    return f"{parts.scheme}://{parts.netloc.lower().removesuffix(_PORTS[parts.scheme])}"


def _require_videos(study: Path, design: Design) -> None:
    if not design.has_videos:
        raise UserError(f"{study} holds judgements collected elsewhere: there is no page to serve")
    names = {video for item in design.items for video in (item.video_a, item.video_b)}
    missing = sorted(f"{n}.mp4" for n in names if not (study / VIDEO_FOLDER / f"{n}.mp4").is_file())
    if missing:
        raise UserError(
            f"{study / VIDEO_FOLDER} lacks {len(missing)} videos ({missing[0]}): copy the whole folder"
        )


def _listen(host: str, port: int, *, named: bool) -> socket.socket:
    """named: annotators have an address to use, whatever this one is."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    # Else a restarted server waits a minute for its own port.
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        if not named and ip_address(listening.getsockname()[0]).is_unspecified:
            listening.close()
            raise UserError(
                f"--host {host} is every interface and no address to open: add --public-url with the "
                f"one that annotators use, such as http://{socket.gethostname()}:{port}"
            )
        listening.listen(_WAITING)
    except (OSError, OverflowError) as error:
        listening.close()
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"{host}:{port} cannot be listened on ({reason}): choose another --host or --port"
        ) from None
    return listening


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
