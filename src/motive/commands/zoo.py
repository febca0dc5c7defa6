"""MotionZoo: the demo on it, and rendered corpora of one's own."""

from pathlib import Path
from typing import Annotated

import typer

from motive.commands.options import Quiet, make_progress


def demo(
    out: Annotated[Path, typer.Option(help="Where to write the demo.")],
    seeds: Annotated[int, typer.Option(help="Independent corpora for the intervals.")] = 3,
    quiet: Quiet = False,
) -> None:
    """The main job on rendered clips whose motion is known, with the shipped tiny-wan."""
    from motive.demo import run_demo

    run_demo(out, seeds=seeds, progress=make_progress(quiet))


def zoo_render(
    out: Annotated[Path, typer.Option(help="A new folder.")],
    count: Annotated[int, typer.Option(help="Number of clips.")] = 140,
    seed: Annotated[int, typer.Option(help="Of the corpus.")] = 0,
    kinds: Annotated[str | None, typer.Option(help="Only these kinds, with commas.")] = None,
    camera: Annotated[
        str | None, typer.Option(help="Film every clip with this camera: none, pan, zoom, jitter.")
    ] = None,
    quiet: Quiet = False,
) -> None:
    """Render labelled clips as mp4, with their true motion beside them."""
    from motive.zoo.render import render_corpus

    chosen = kinds.split(",") if kinds else None
    render_corpus(out, count, seed=seed, kinds=chosen, camera=camera, progress=make_progress(quiet))
    print(f"{count} clips in {out}")
