"""`motive subset`: the clips that a selection method takes, as a file for any trainer."""

from pathlib import Path
from typing import Annotated

import typer

from motive.commands.options import Quiet, RunArgument, open_run
from motive.errors import UserError


def subset(
    run: RunArgument,
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="selection, no-mask, random, magnitude, embedding, motion-statistics, all, or a FILE "
            "that lists clips.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="A csv, best clip first.")],
    seed: Annotated[int, typer.Option(help="Of random.")] = 0,
    fraction: Annotated[
        float | None, typer.Option(help="Share of the clips; else as many as the selection has.")
    ] = None,
    embedding_model: Annotated[
        str | None, typer.Option(help="Of embedding: a V-JEPA 2 model's folder or hub id.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Write the clips that a selection method takes, Motive's own or a baseline's."""
    if not out.parent.is_dir():  # before what may take hours of gradients
        raise UserError(f"{out.parent} is not there: make it, or choose another --out")
    opened = open_run(run, quiet)
    from motive.subsets import choose_subset, write_subset

    chosen = choose_subset(
        opened, name, seed=seed, embedding_model=embedding_model, fraction=fraction
    )
    write_subset(opened, chosen, out)
    print(f"{len(chosen.clip_ids)} clips in {out}: {chosen.note}")
