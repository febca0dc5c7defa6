"""What a run has found: exported for a trainer, told in numbers; and its stages one by one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from motive.commands.options import AsJson, Quiet, RunArgument, open_run

STAGES = {
    "ingest": "Read both datasets and decode every new file.",
    "track": "Follow the motion of every clip.",
    "encode": "Latents of every clip, embeddings of every caption.",
    "gradients": "Gradient features of every clip and query.",
    "score": "Influence of every clip on every query.",
    "select": "Votes and the best clips.",
    "report": "report.html, one file to look at.",
}


def stage_command(name: str) -> Callable[..., None]:
    """The command that works through one stage of a run."""

    def command(run: RunArgument, quiet: Quiet = False) -> None:
        getattr(open_run(run, quiet), name)()

    command.__doc__ = STAGES[name]
    return command


def export(
    run: RunArgument,
    format: Annotated[
        str,
        typer.Option(
            help="videofolder, diffsynth, musubi, finetrainers, diffusion-pipe, ai-toolkit, "
            "webdataset, data-juicer or fiftyone."
        ),
    ],
    out: Annotated[Path, typer.Option(help="A new folder.")],
    link: Annotated[bool, typer.Option("--link", help="Symbolic links instead of copies.")] = False,
) -> None:
    """Write the selected clips in the layout that a trainer reads."""
    report = open_run(run, quiet=True).export(format, out, link=link)
    print(report.summary())


def info(
    run: RunArgument,
    as_json: AsJson = False,
) -> None:
    """Clips, queries, failures, objective, seconds and peak memory per stage."""
    facts = open_run(run, quiet=True).info()
    if as_json:
        print(json.dumps(facts, indent=1, ensure_ascii=False))
    else:
        from motive.terminal import print_info

        print_info(facts)
