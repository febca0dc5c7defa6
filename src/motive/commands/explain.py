"""`motive explain`: where and when inside a clip its influence comes from."""

import json
from pathlib import Path
from typing import Annotated

import typer

from motive.commands.options import AsJson, RunArgument, open_run_on_disk
from motive.errors import UserError


def explain(
    run: RunArgument,
    clip: Annotated[str, typer.Option(help="A training clip: its id or file name.")],
    query: Annotated[str, typer.Option(help="A query: its id or file name.")],
    video: Annotated[
        Path | None, typer.Option(help="Also write the clip with its heat map, an mp4.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Where and when inside a clip its influence on a query comes from."""
    from motive.explanation import explain as locate

    if video is not None and video.suffix.lower() != ".mp4":
        raise UserError(f"{video} is no name of an mp4: let the name of --video end in .mp4")
    if video is not None and not video.parent.is_dir():
        raise UserError(f"{video.parent} is not there: make it, or choose another --video")
    opened = open_run_on_disk(run, quiet=True)
    found = locate(opened, clip, query)
    if video is not None:
        from motive.explanation.overlay import write_overlay

        write_overlay(found, opened.usable("clip")[found.clip_id], opened.sampler, video)
    if as_json:
        print(json.dumps(found.as_json(), indent=1))
    else:
        from motive.explanation.text import print_explanation

        print_explanation(opened, found)
