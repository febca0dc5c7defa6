"""Of video models, before any work: what attribution costs, and which have an adapter."""

import json
from typing import Annotated

import typer

from motive.commands.options import (
    AsJson,
    Checkpoint,
    Device,
    Draws,
    Dtype,
    Estimator,
    Lora,
    Parameters,
    Posterior,
    Shift,
    Size,
    TimestepRange,
    Train,
    Trainer,
    parse_range,
    parse_size,
    parse_timestep,
)


def doctor(
    model: Annotated[str, typer.Argument(help="A diffusers folder, a hub id, or tiny-wan.")],
    frames: Annotated[
        int | None, typer.Option(help="Of a clip; else what the model is for.")
    ] = None,
    size: Size = None,
    estimator: Estimator = "paper",
    timestep: Annotated[str, typer.Option(help="auto, or 1..1000; several with commas.")] = "auto",
    trainer: Trainer = "paper",
    draws: Draws = 1,
    shift: Shift = None,
    timestep_range: TimestepRange = None,
    checkpoint: Checkpoint = None,
    lora: Lora = None,
    train: Train = "base",
    posterior: Posterior = None,
    parameters: Parameters = None,
    projection: Annotated[str, typer.Option(help="As of curate.")] = "fastfood",
    dim: Annotated[int, typer.Option(help="Length of a gradient feature.")] = 512,
    clips: Annotated[int, typer.Option(min=1, help="To project the hours for.")] = 1000,
    device: Device = "auto",
    dtype: Dtype = "auto",
    threads: Annotated[int | None, typer.Option(help="CPU threads of the model.")] = None,
    as_json: AsJson = False,
) -> None:
    """What attribution with a model costs here, before any of it is paid; needs no weights."""
    height, width = parse_size(size)
    from motive.doctor import examine
    from motive.runs.config import make_config

    settings = {
        "clips": "",
        "queries": "",
        "model": model,
        "sampling.frames": frames,
        "sampling.height": height,
        "sampling.width": width,
        "gradients.estimator": estimator,
        "gradients.timestep": parse_timestep(timestep),
        "gradients.trainer": trainer,
        "gradients.draws": draws,
        "gradients.shift": shift,
        "gradients.timestep_range": parse_range(timestep_range),
        "gradients.posterior": posterior,
        "gradients.parameters": parameters,
        "gradients.projection": projection,
        "gradients.dim": dim,
        "finetuned.checkpoint": checkpoint,
        "finetuned.lora": lora,
        "finetuned.train": train,
        "compute.device": device,
        "compute.dtype": dtype,
        "compute.threads": threads,
    }
    found = examine(make_config(settings), clips=clips)
    if as_json:
        print(json.dumps(found.as_json(), indent=1))
    else:
        from motive.doctor.text import print_diagnosis

        print_diagnosis(found)


def backbones(
    as_json: AsJson = False,
) -> None:
    """The video models that have an adapter, what was tested of them, and their memory."""
    from motive.backbones.catalog import catalog

    families = catalog()
    if as_json:
        print(json.dumps(families, indent=1, ensure_ascii=False))
    else:
        from motive.terminal import print_backbones

        print_backbones(families)
