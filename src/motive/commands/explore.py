"""A run to look at and to correct, in a browser."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from motive.commands.options import RunArgument

if TYPE_CHECKING:
    from motive.pipeline import Run


def explore(
    run: RunArgument,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="8765 if it is free, else another; 0 is any."),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Where to listen: only this machine can reach 127.0.0.1.")
    ] = "127.0.0.1",
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Open no browser.")] = False,
) -> None:
    """See why clips were chosen and correct the choice, in a browser; the run stays as it is."""
    from motive.explorer.serve import serve_explorer
    from motive.runs.remote import on_disk, run_path

    serve_explorer(on_disk(run_path(run)), host=host, port=port, browser=not no_browser)


def prepare_explorer(run: "Run") -> None:
    """Make what a large run's first opening would wait for; a disk that is full only makes it wait."""
    from motive.explorer.table_file import prepare_table

    if not isinstance(run.folder, Path):
        return  # on an object store: the explorer opens runs on a disk
    try:
        prepare_table(run)
    except OSError as error:
        reason = error.strerror or error
        run.progress.say(f"explore: its table is not kept ({reason}); the first opening makes it")
