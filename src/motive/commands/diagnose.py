"""`motive diagnose`: the clips that teach an artifact."""

from pathlib import Path
from typing import Annotated

import typer

from motive.commands.options import AsJson, RunArgument, open_run
from motive.errors import UserError


def diagnose(
    run: RunArgument,
    query: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CLIP",
            help="A query of the run that shows the artifact: its file name or clip id; may be given "
            "several times. Else every unwanted query.",
        ),
    ] = None,
    drop_top: Annotated[
        int | None,
        typer.Option(help="Write a list of every clip but so many of the first to --out."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="A csv of the clips that are kept, for motive finetune.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Rank the clips that teach what a query shows, for you to look at and drop."""
    if (drop_top is None) != (out is None):
        raise UserError("the clips that are kept need both --drop-top and --out: give both or none")
    opened = open_run(run, quiet=True)
    from motive import diagnosis
    from motive.subsets import write_subset

    found = diagnosis.diagnose(opened, query or ())
    kept = None if drop_top is None else found.kept(drop_top)
    path = diagnosis.write_diagnosis(opened, found)
    if kept is not None and out is not None:
        write_subset(opened, kept, out)
    if as_json:
        print(diagnosis.as_json(found))
        return
    from motive.terminal import print_diagnosis

    print_diagnosis(found, path)
    if kept is not None:
        print(f"{len(kept.clip_ids)} clips kept: {out}")
