"""From clips and queries to a selection: `motive curate`, and `motive run` to replay one."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from motive.commands.explore import prepare_explorer
from motive.commands.options import (
    Address,
    Checkpoint,
    ClipMemory,
    ClipSeconds,
    Decoders,
    Device,
    Draws,
    Dtype,
    Estimator,
    Lora,
    Parameters,
    Posterior,
    Quiet,
    Shift,
    Size,
    TimestepRange,
    Train,
    Trainer,
    make_progress,
    parse_range,
    parse_size,
    parse_timestep,
)
from motive.errors import UserError

if TYPE_CHECKING:
    from motive.pipeline import Run


def curate(
    clips: Annotated[str, typer.Option(help="Training clips: a folder or a metadata file.")],
    model: Annotated[str, typer.Option(help="A diffusers folder, a hub id, or tiny-wan.")],
    out: Annotated[
        str, typer.Option(help="The run directory, new or to be taken up: a folder, or s3://….")
    ],
    queries: Annotated[
        str | None,
        typer.Option(help="Clips that show the motion you want; optional with --score-only."),
    ] = None,
    fraction: Annotated[float, typer.Option(help="Share of the clips to select, 0 to 1.")] = 0.10,
    percentile: Annotated[
        float, typer.Option(help="0 to 100; a score above it is the query's vote.")
    ] = 90.0,
    max_camera_share: Annotated[
        float | None, typer.Option(help="Select no clip with more camera motion, 0 to 1.")
    ] = None,
    min_speed: Annotated[
        float | None, typer.Option(help="Select no clip with a lower mean speed, px per frame.")
    ] = None,
    tracker: Annotated[str, typer.Option(help="Motion tracker: dis, alltracker or raft.")] = "dis",
    tracker_checkpoint: Annotated[
        str | None, typer.Option(help="The tracker's weights: a file or a hub id.")
    ] = None,
    camera_model: Annotated[
        str, typer.Option(help="Of the camera's motion: translation, similarity, homography.")
    ] = "similarity",
    mask: Annotated[
        str, typer.Option(help="Mask recipe: paper, object, camera, or none for the plain loss.")
    ] = "paper",
    trusted: Annotated[
        bool, typer.Option("--trusted", help="Weight the mask by visibility and confidence.")
    ] = False,
    static_below: Annotated[
        float, typer.Option(help="Pixels; a clip that moves no more than this is static.")
    ] = 0.1,
    dim: Annotated[int, typer.Option(help="Length of a gradient feature.")] = 512,
    projection: Annotated[
        str, typer.Option(help="fastfood, countsketch, rademacher, factored or identity.")
    ] = "fastfood",
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
    seed: Annotated[int, typer.Option(help="Of the shared noise and the projection.")] = 0,
    frames: Annotated[int | None, typer.Option(help="At most so many frames of a clip.")] = None,
    size: Size = None,
    fps: Annotated[float | None, typer.Option(help="Resample to this rate; else native.")] = None,
    mode: Annotated[str, typer.Option(help="first frames, or spread over the file.")] = "first",
    fit: Annotated[str, typer.Option(help="crop or stretch to the size.")] = "crop",
    media_root: Annotated[
        str | None, typer.Option(help="Folder in which metadata may name files.")
    ] = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    threads: Annotated[int | None, typer.Option(help="CPU threads of the model.")] = None,
    engine: Annotated[
        str, typer.Option(help="local, or ray for the machines of a cluster.")
    ] = "local",
    address: Address = None,
    clip_seconds: ClipSeconds = None,
    clip_memory: ClipMemory = None,
    decoders: Decoders = None,
    score_only: Annotated[
        bool, typer.Option("--score-only", help="Stop after tracking: motion.csv and a table.")
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Try again what failed before.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Rank clips by the motion they teach and select the best, in one go."""
    if queries is None and not score_only:
        raise UserError("there are no queries: give --queries, or --score-only for motion alone")
    for name, text in (("--clips", clips), ("--queries", queries), ("--out", out)):
        if text == "":  # a shell's variable that is not set, and no word for the working directory
            raise UserError(f"{name} is empty: name a folder, or . for this one")
    if Path(out).resolve() in {Path(text).resolve() for text in (clips, queries or clips)}:
        raise UserError(f"--out {out} is a dataset's folder: choose one for the run alone")
    height, width = parse_size(size)
    settings = {
        "clips": clips,
        "queries": clips if queries is None else queries,
        "media_root": media_root,
        "model": model,
        "seed": seed,
        "sampling.frames": frames,
        "sampling.height": height,
        "sampling.width": width,
        "sampling.fps": fps,
        "sampling.mode": mode,
        "sampling.fit": fit,
        "motion.tracker": tracker,
        "motion.checkpoint": tracker_checkpoint,
        "motion.camera": camera_model,
        "motion.mask": mask,
        "motion.mask_trusted": trusted,
        "motion.static_below": static_below,
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
        "selection.fraction": fraction,
        "selection.percentile": percentile,
        "selection.max_camera_share": max_camera_share,
        "selection.min_speed": min_speed,
        "compute.device": device,
        "compute.dtype": dtype,
        "compute.threads": threads,
        "compute.clip_seconds": clip_seconds,
        "compute.clip_memory": clip_memory,
        "compute.decoders": decoders,
        "compute.engine": engine,
        "compute.address": address,
    }
    from motive.pipeline import Run
    from motive.runs.config import make_config
    from motive.runs.remote import run_path

    run = Run.create_from(make_config(settings), run_path(out), make_progress(quiet))
    if retry_failed:
        run.forget_failures()
    if score_only:
        _score_motion(run)
    else:
        _curate(run)


def replay(
    config: Annotated[str, typer.Argument(metavar="RUN.YAML", help="A run's run.yaml.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="NAME=VALUE", help="As in selection.fraction=0.2")
    ] = None,
    out: Annotated[str | None, typer.Option(help="Another run directory; else its own.")] = None,
    quiet: Quiet = False,
) -> None:
    """Replay a run's resolved configuration."""
    from motive.pipeline import Run
    from motive.runs.config import flatten, make_config, parse_overrides, read_yaml
    from motive.runs.remote import run_path

    file = run_path(config)
    content = read_yaml(file)
    values = flatten(content.get("config", content)) | parse_overrides(overrides or [])
    folder = file.resolve().parent if out is None else run_path(out)
    _curate(Run.create_from(make_config(values), folder, make_progress(quiet)))


def _curate(run: "Run") -> None:
    run.curate()
    prepare_explorer(run)
    from motive.terminal import print_result

    print_result(run)


def _score_motion(run: "Run") -> None:
    run.score_motion()
    from motive.terminal import print_motion

    print_motion(run)
