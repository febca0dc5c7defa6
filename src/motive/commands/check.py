"""Whether a run is whole: `motive check`."""

import json
from typing import Annotated

import typer

from motive.commands.options import AsJson, RunArgument, open_run


def check(
    run: RunArgument,
    mend: Annotated[
        bool, typer.Option("--mend", help="Do what is safe; the next run makes the rest again.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Prove that everything in a run is there, once and whole; exit code 1 if not."""
    from motive.integrity import check_run

    found = check_run(open_run(run, quiet=True), mend=mend)
    if as_json:
        print(json.dumps(found.as_dict(), indent=1, ensure_ascii=False))
    else:
        from motive.terminal import print_integrity

        print_integrity(found)
    if not found.is_sound:
        raise typer.Exit(1)
