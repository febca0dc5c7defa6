"""What several commands take: the run's directory, and options that are written in the same way."""

from typing import TYPE_CHECKING, Annotated

import typer

from motive.errors import UserError

if TYPE_CHECKING:
    from motive.pipeline import Run
    from motive.runs.progress import Progress

# A word and no Path, which would make s3:/bucket of s3://bucket.
RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="The run directory: a folder, or s3://bucket/folder.")
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Address = Annotated[
    str | None,
    typer.Option(help="HOST:PORT of a Ray cluster; else the one found, or one of this machine."),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16, float16.")]
Size = Annotated[str | None, typer.Option(help="HEIGHTxWIDTH in pixels.")]

# What the first decoding of a clip may take.
ClipSeconds = Annotated[
    float | None, typer.Option(help="A clip that takes longer to decode fails; 60 by default.")
]
ClipMemory = Annotated[
    int | None, typer.Option(help="MB; a clip that needs more to decode fails; 2048 by default.")
]
Decoders = Annotated[
    int | None, typer.Option(help="Processes that decode in ingest; else one per processor.")
]

# The objective that is differentiated.
Estimator = Annotated[
    str,
    typer.Option(help="Of influence: paper, no-mask, centred, ridge, effect or motion-effect."),
]
Trainer = Annotated[
    str,
    typer.Option(help="Whose loss: paper, diffsynth, musubi, finetrainers or diffusion-pipe."),
]
Draws = Annotated[int, typer.Option(help="Timesteps of a trainer that are averaged.")]
Shift = Annotated[
    float | None, typer.Option(help="Of a trainer's timesteps; else the trainer's own.")
]
TimestepRange = Annotated[
    str | None, typer.Option(help="FROM,TO: the part of a trainer's timesteps that counts.")
]
Posterior = Annotated[
    str | None,
    typer.Option(help="Latents are the encoder's mean or a sample; else the trainer's own."),
]
Parameters = Annotated[
    str | None, typer.Option(help="Name pattern of the trained parameters; else what is trained.")
]
Checkpoint = Annotated[
    str | None,
    typer.Option(help="A fine-tuned transformer for the model's: safetensors or a folder."),
]
Lora = Annotated[str | None, typer.Option(help="A LoRA over the model: safetensors or a folder.")]
Train = Annotated[
    str, typer.Option(help="Gradients of the base's weights, or of the LoRA's: base or lora.")
]


def open_run(path: str, quiet: bool) -> "Run":
    """The run in a directory, with its progress shown unless `quiet`."""
    from motive.pipeline import Run

    return Run.open(path, make_progress(quiet))


def open_run_on_disk(path: str, quiet: bool) -> "Run":
    """As `open_run`, for a command that cannot work on a run on an object store."""
    from motive.runs.remote import on_disk, run_path

    on_disk(run_path(path))
    return open_run(path, quiet)


def make_progress(quiet: bool) -> "Progress":
    """Shown on the terminal, or not at all."""
    from motive.runs.progress import Progress

    return Progress(quiet=quiet)


def parse_size(text: str | None) -> tuple[int | None, int | None]:
    """Height and width of `480x832`."""
    if text is None:
        return None, None
    height, x, width = text.lower().partition("x")
    if not (x and height.isdigit() and width.isdigit()):
        raise UserError(f"the size '{text}' is wrong: write HEIGHTxWIDTH, as in 480x832")
    return int(height), int(width)


def parse_timestep(text: str) -> str | int | tuple[int, ...]:
    """`auto`, one timestep or several."""
    if text == "auto":
        return text
    try:
        values = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UserError(
            f"the timestep '{text}' is wrong: use auto or numbers from 1 to 1000"
        ) from None
    return values if len(values) > 1 else values[0]


def parse_range(text: str | None) -> tuple[float, float] | None:
    """Both ends of `FROM,TO`."""
    if text is None:
        return None
    try:
        first, last = (float(part) for part in text.split(","))
    except ValueError:
        raise UserError(
            f"the timestep range '{text}' is wrong: write FROM,TO, as in 875,1000"
        ) from None
    return first, last
