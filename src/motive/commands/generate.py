"""Videos from a model, to look at, to measure and to ask about."""

from pathlib import Path
from typing import Annotated

import typer

from motive.commands.options import Device, Dtype, Quiet, Size, make_progress, parse_size


def generate(
    model: Annotated[str, typer.Option(help="A diffusers folder, a hub id, or tiny-wan.")],
    prompts: Annotated[
        Path, typer.Option(help="One a line (.txt), VBench's .json, or a .csv with captions.")
    ],
    out: Annotated[Path, typer.Option(help="A folder for PROMPT-0.mp4 and so on, new or begun.")],
    seeds: Annotated[int, typer.Option(help="Videos of each prompt.")] = 5,
    checkpoint: Annotated[
        str | None,
        typer.Option(help="A fine-tuned transformer for the model's: safetensors or a folder."),
    ] = None,
    lora: Annotated[
        str | None, typer.Option(help="A LoRA over the model: safetensors or a folder.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Of sampling; else what the model is for.")
    ] = None,
    frames: Annotated[int | None, typer.Option(help="Of a video; else as above.")] = None,
    size: Size = None,
    guidance: Annotated[
        float | None, typer.Option(help="Classifier-free guidance scale; else as above.")
    ] = None,
    negative_prompt: Annotated[
        str | None, typer.Option(help="What the videos should not show.")
    ] = None,
    fps: Annotated[float | None, typer.Option(help="Frames per second; else as above.")] = None,
    images: Annotated[
        Path | None, typer.Option(help="Pictures PROMPT.png that an image-to-video model needs.")
    ] = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    threads: Annotated[int | None, typer.Option(help="CPU threads of the model.")] = None,
    quiet: Quiet = False,
) -> None:
    """Make videos of every prompt, named as VBench looks for them; what is there is not made again."""
    height, width = parse_size(size)
    from motive.generation import generate as make_videos

    made = make_videos(
        model,
        prompts,
        out,
        seeds,
        checkpoint=checkpoint,
        lora=lora,
        steps=steps,
        frames=frames,
        height=height,
        width=width,
        guidance=guidance,
        negative_prompt=negative_prompt,
        fps=fps,
        images=images,
        device=device,
        dtype=dtype,
        threads=threads,
        progress=make_progress(quiet),
    )
    print(f"{len(made)} videos in {out}")
