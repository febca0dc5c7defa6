"""A run to look at and to correct, in a browser."""

from pathlib import Path
from typing import Annotated

import typer

from motive.commands.options import RunArgument


def explore(
    run: RunArgument,
    port: Annotated[
        int | None, typer.Option(help="8765 if it is free, else another; 0 is any.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Where to listen: only this machine can reach 127.0.0.1.")
    ] = "127.0.0.1",
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Open no browser.")] = False,
) -> None:
    """See why clips were chosen and correct the choice, in a browser; the run stays as it is."""
    from motive.explorer.serve import serve_explorer

    serve_explorer(Path(run), host=host, port=port, browser=not no_browser)
