"""What a run has found: exported for a trainer, told in numbers; and its stages one by one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from motive.commands.explore import prepare_explorer
from motive.commands.options import (
    Address,
    AsJson,
    ClipMemory,
    ClipSeconds,
    Decoders,
    Quiet,
    RunArgument,
    open_run,
)

if TYPE_CHECKING:
    from motive.pipeline import Run

STAGES = {
    "ingest": "Read both datasets and decode every new file.",
    "track": "Follow the motion of every clip.",
    "encode": "Latents of every clip, embeddings of every caption.",
    "gradients": "Gradient features of every clip and query.",
    "score": "Influence of every clip on every query.",
    "select": "Votes and the best clips.",
    "report": "report.html, one file to look at.",
}
COMPUTING = ("track", "encode")  # an engine puts clips through them

_Estimator = Annotated[str | None, typer.Option(help="From now on the run's; as of curate.")]
_Engine = Annotated[
    str | None, typer.Option(help="local or ray, this time; else as run.yaml says.")
]


def _say_where(run: "Run", stage: str) -> None:
    from motive.pipeline import OUTPUTS

    print(f"{stage}: {run.folder / OUTPUTS[stage]}")


def stage_command(name: str) -> Callable[..., None]:
    """The command that works through one stage of a run."""

    def command(run: RunArgument, quiet: Quiet = False) -> None:
        opened = open_run(run, quiet)
        getattr(opened, name)()
        if name == "select":
            prepare_explorer(opened)
        _say_where(opened, name)

    def computing(
        run: RunArgument,
        engine: _Engine = None,
        address: Address = None,
        quiet: Quiet = False,
    ) -> None:
        opened = open_run(run, quiet)
        opened.use_engine(engine, address)
        getattr(opened, name)()

    def ingest(
        run: RunArgument,
        engine: _Engine = None,
        address: Address = None,
        clip_seconds: ClipSeconds = None,
        clip_memory: ClipMemory = None,
        decoders: Decoders = None,
        quiet: Quiet = False,
    ) -> None:
        opened = open_run(run, quiet)
        opened.use_engine(engine, address)
        opened.plan.limit_decoding(clip_seconds, clip_memory, decoders)
        opened.ingest()

    def gradients(
        run: RunArgument,
        estimator: _Estimator = None,
        engine: _Engine = None,
        address: Address = None,
        quiet: Quiet = False,
    ) -> None:
        _estimate(open_run(run, quiet), name, estimator, engine, address)

    def score(run: RunArgument, estimator: _Estimator = None, quiet: Quiet = False) -> None:
        opened = open_run(run, quiet)
        _estimate(opened, name, estimator)
        _say_where(opened, name)

    own: dict[str, Callable[..., None]] = {"ingest": ingest, "gradients": gradients, "score": score}
    chosen = computing if name in COMPUTING else own.get(name, command)
    chosen.__doc__ = STAGES[name]
    return chosen


def _estimate(
    run: "Run",
    stage: str,
    estimator: str | None,
    engine: str | None = None,
    address: str | None = None,
) -> None:
    """A stage whose outcome is an estimator's; one that is named becomes the run's."""
    if estimator is not None:
        run = run.with_estimator(estimator)
    run.use_engine(engine, address)
    getattr(run, stage)()
    if estimator is not None:
        run.keep()


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
