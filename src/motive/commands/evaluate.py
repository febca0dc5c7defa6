"""How good videos are, in numbers."""

from pathlib import Path
from typing import Annotated

import typer

from motive.commands.options import Device, Quiet, make_progress


def evaluate(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A folder of .mp4 files.")],
    out: Annotated[Path, typer.Option(help="A JSON file; its cache is kept beside it.")],
    dimensions: Annotated[
        str | None, typer.Option(help="Names with commas; else all (docs/evaluation.md).")
    ] = None,
    dino: Annotated[str | None, typer.Option(help="DINO ViT-B/16: a folder or a hub id.")] = None,
    clip_base: Annotated[
        str | None, typer.Option(help="CLIP ViT-B/32: a folder or a hub id.")
    ] = None,
    clip_large: Annotated[
        str | None, typer.Option(help="CLIP ViT-L/14: a folder or a hub id.")
    ] = None,
    aesthetic_head: Annotated[
        Path | None, typer.Option(help="LAION's sa_0_4_vit_l_14_linear.pth.")
    ] = None,
    raft: Annotated[
        str | None, typer.Option(help="C_T_V1, or a file of torchvision's raft_large.")
    ] = None,
    plugin: Annotated[
        list[str] | None,
        typer.Option(metavar="DIMENSION=FILE.PY:CLASS", help="A network of your own."),
    ] = None,
    imaging_mode: Annotated[
        str, typer.Option(help="longer, shorter, shorter_centercrop or None, as in VBench.")
    ] = "longer",
    vbench_python: Annotated[
        Path | None, typer.Option(help="Let the official VBench of this python compute.")
    ] = None,
    prompt_lists: Annotated[
        Path | None,
        typer.Option(help="VBench's prompts_per_dimension: only its own prompts' videos."),
    ] = None,
    only_static: Annotated[
        bool, typer.Option("--only-static", help="Flickering of static videos alone.")
    ] = False,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Measure videos by VBench's dimensions, and by some that need no weights."""
    from motive.evaluation import Networks
    from motive.evaluation import evaluate as measure
    from motive.evaluation.networks.plugin import parse_plugins
    from motive.evaluation.text import print_evaluation

    own = Networks()
    networks = Networks(
        dino=dino or own.dino,
        clip_base=clip_base or own.clip_base,
        clip_large=clip_large or own.clip_large,
        aesthetic_head=aesthetic_head,
        raft=raft or own.raft,
        plugins=parse_plugins(plugin or []),
        imaging_mode=imaging_mode,
        device=device,
    )
    evaluation = measure(
        folder,
        dimensions.split(",") if dimensions else None,
        out=out,
        networks=networks,
        vbench_python=vbench_python,
        lists=prompt_lists,
        only_static=only_static,
        progress=make_progress(quiet),
    )
    print_evaluation(evaluation)
    print(f"evaluation: {out}")
