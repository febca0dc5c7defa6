"""`motive compare`: any set of selections, trained, generated from and evaluated."""

from pathlib import Path
from typing import Annotated

import typer

from motive.commands.options import Quiet, make_progress


def compare(
    spec: Annotated[
        Path,
        typer.Argument(
            metavar="SPEC.YAML",
            help="run, model, arms, training, generation, evaluation, seeds (docs/comparison.md).",
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="Where to work; else a folder named as the specification.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Fine-tune, generate and evaluate several selections over seeds, to one table with intervals."""
    from motive.comparison import compare as work
    from motive.comparison import read_spec

    out = out or spec.with_suffix("")
    comparison = work(read_spec(spec), out, progress=make_progress(quiet))
    print(comparison.as_markdown())
    print(f"comparison: {out / 'comparison.json'}")
