"""Train on what was selected: `motive finetune`."""

from pathlib import Path
from typing import Annotated

import typer

from motive.commands.options import (
    Device,
    Quiet,
    RunArgument,
    make_progress,
    open_run_on_disk,
    parse_range,
)


def finetune(
    run: RunArgument,
    subset: Annotated[
        str,
        typer.Option(
            help="selection, random, magnitude, embedding, all and others, or a file that lists clips."
        ),
    ],
    model: Annotated[str, typer.Option(help="A diffusers folder, a hub id, or tiny-wan.")],
    out: Annotated[Path, typer.Option(help="The trained model's folder, or one to be taken up.")],
    lora: Annotated[
        int | None,
        typer.Option(metavar="RANK", help="Train a LoRA of this rank; else all weights."),
    ] = None,
    parameters: Annotated[
        str | None, typer.Option(help="Name pattern of the weights that are trained.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Optimiser steps: equal for subsets that are compared.")
    ] = None,
    repeats: Annotated[
        int | None, typer.Option(help="How often each clip is shown; 50 without --steps.")
    ] = None,
    lr: Annotated[float, typer.Option(help="AdamW's constant learning rate.")] = 1e-5,
    weight_decay: Annotated[float, typer.Option(help="AdamW's.")] = 0.01,
    batch: Annotated[int, typer.Option(help="Clips in a step.")] = 1,
    seed: Annotated[int, typer.Option(help="Of order, timesteps, noise and a new LoRA.")] = 0,
    subset_seed: Annotated[int, typer.Option(help="Of the random subset.")] = 0,
    fraction: Annotated[
        float | None, typer.Option(help="Share of the clips in the subset; else the run's own.")
    ] = None,
    embedding_model: Annotated[
        str | None, typer.Option(help="Of the subset embedding: a folder or a hub id.")
    ] = None,
    trainer: Annotated[
        str,
        typer.Option(
            help="Whose timesteps: uniform (shifted as the model's scheduler), diffsynth, musubi, "
            "finetrainers or diffusion-pipe."
        ),
    ] = "uniform",
    shift: Annotated[
        float | None, typer.Option(help="Of the timesteps; else the trainer's or the model's own.")
    ] = None,
    timestep_range: Annotated[
        str | None, typer.Option(help="FROM,TO: only these timesteps, as experts are trained.")
    ] = None,
    dtype: Annotated[
        str, typer.Option(help="Of the computation: auto, float32, bfloat16. Weights are float32.")
    ] = "auto",
    device: Device = "auto",
    threads: Annotated[int | None, typer.Option(help="CPU threads of the model.")] = None,
    checkpoint_every: Annotated[
        int, typer.Option(help="Steps that an interruption loses at most.")
    ] = 200,
    tracker: Annotated[
        str, typer.Option(help="Told the loss: none, tensorboard, trackio or wandb.")
    ] = "none",
    quiet: Quiet = False,
) -> None:
    """Fine-tune a model on a subset of the run's clips; interrupted, it goes on."""
    from motive.finetuning import FinetuneSettings

    settings = FinetuneSettings(
        steps=steps,
        repeats=repeats,
        batch=batch,
        lr=lr,
        weight_decay=weight_decay,
        lora=lora,
        parameters=parameters,
        seed=seed,
        subset_seed=subset_seed,
        fraction=fraction,
        embedding_model=embedding_model,
        trainer=trainer,
        shift=shift,
        timestep_range=parse_range(timestep_range),
        dtype=dtype,
        device=device,
        threads=threads,
        checkpoint_every=checkpoint_every,
        tracker=tracker,
    )
    opened = open_run_on_disk(run, quiet)
    from motive.finetuning import finetune as fine_tune

    fine_tune(opened, subset, model, out, settings, make_progress(quiet))
    from motive.finetuning.record import summary

    print(summary(out))
