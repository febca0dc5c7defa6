"""The command line. A command is a typed function; it holds no logic of its own."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from motive.errors import UserError

if TYPE_CHECKING:
    from motive.pipeline import Run

app = typer.Typer(
    name="motive",
    help="Which of my clips teach a video model to move, and which spoil it?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode=None,
)
zoo_app = typer.Typer(
    help="MotionZoo: rendered clips whose true motion is known.", no_args_is_help=True
)
app.add_typer(zoo_app, name="zoo")


# No docstring: the help above is the program's.
@app.callback()
def _program(
    adapter: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE.PY:CLASS",
            envvar="MOTIVE_ADAPTER",
            help="Take this file's adapter for a video model of your own (docs/adapters.md).",
        ),
    ] = None,
) -> None:
    for where in adapter or []:
        from motive.backbones.private import use_adapter

        use_adapter(where)


RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="The run directory.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress.")]


@app.command()
def curate(
    clips: Annotated[str, typer.Option(help="Training clips: a folder or a metadata file.")],
    model: Annotated[str, typer.Option(help="A diffusers folder, a hub id, or tiny-wan.")],
    out: Annotated[Path, typer.Option(help="The run directory, new or to be taken up.")],
    queries: Annotated[
        str | None,
        typer.Option(help="Clips that show the motion you want; optional with --score-only."),
    ] = None,
    fraction: Annotated[float, typer.Option(help="Share of the clips to select.")] = 0.10,
    percentile: Annotated[float, typer.Option(help="A score above it is the query's vote.")] = 90.0,
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
    timestep: Annotated[str, typer.Option(help="auto, or 1..1000; several with commas.")] = "auto",
    trainer: Annotated[
        str,
        typer.Option(help="Whose loss: paper, diffsynth, musubi, finetrainers or diffusion-pipe."),
    ] = "paper",
    draws: Annotated[int, typer.Option(help="Timesteps of a trainer that are averaged.")] = 1,
    shift: Annotated[
        float | None, typer.Option(help="Of a trainer's timesteps; else the trainer's own.")
    ] = None,
    timestep_range: Annotated[
        str | None, typer.Option(help="FROM,TO: the part of a trainer's timesteps that counts.")
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(help="A fine-tuned transformer for the model's: safetensors or a folder."),
    ] = None,
    lora: Annotated[
        str | None, typer.Option(help="A LoRA over the model: safetensors or a folder.")
    ] = None,
    train: Annotated[
        str, typer.Option(help="Gradients of the base's weights, or of the LoRA's: base or lora.")
    ] = "base",
    parameters: Annotated[str, typer.Option(help="Name pattern of the trained parameters.")] = "*",
    seed: Annotated[int, typer.Option(help="Of the shared noise and the projection.")] = 0,
    frames: Annotated[int | None, typer.Option(help="At most so many frames of a clip.")] = None,
    size: Annotated[str | None, typer.Option(help="HEIGHTxWIDTH in pixels.")] = None,
    fps: Annotated[float | None, typer.Option(help="Resample to this rate; else native.")] = None,
    mode: Annotated[str, typer.Option(help="first frames, or spread over the file.")] = "first",
    fit: Annotated[str, typer.Option(help="crop or stretch to the size.")] = "crop",
    media_root: Annotated[
        str | None, typer.Option(help="Folder in which metadata may name files.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16, float16.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="CPU threads of the model.")] = None,
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
    height, width = _size(size)
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
        "gradients.timestep": _timestep(timestep),
        "gradients.trainer": trainer,
        "gradients.draws": draws,
        "gradients.shift": shift,
        "gradients.timestep_range": _range(timestep_range),
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
    }
    from motive.pipeline import Run
    from motive.runs.config import make_config

    run = Run.create_from(make_config(settings), out, _progress(quiet))
    if retry_failed:
        run.forget_failures()
    if score_only:
        _score_motion(run)
    else:
        _curate(run)


@app.command("run")
def replay(
    config: Annotated[Path, typer.Argument(metavar="RUN.YAML", help="A run's run.yaml.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="NAME=VALUE", help="As in selection.fraction=0.2")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Another run directory; else its own.")] = None,
    quiet: Quiet = False,
) -> None:
    """Replay a run's resolved configuration."""
    from motive.pipeline import Run
    from motive.runs.config import flatten, make_config, parse_overrides, read_yaml

    content = read_yaml(config)
    values = flatten(content.get("config", content)) | parse_overrides(overrides or [])
    _curate(Run.create_from(make_config(values), out or config.resolve().parent, _progress(quiet)))


def _stage_command(name: str, summary: str) -> None:
    def command(run: RunArgument, quiet: Quiet = False) -> None:
        getattr(_open(run, quiet), name)()

    command.__doc__ = summary
    app.command(name)(command)


for _name, _summary in (
    ("ingest", "Read both datasets and decode every new file."),
    ("track", "Follow the motion of every clip."),
    ("encode", "Latents of every clip, embeddings of every caption."),
    ("gradients", "Gradient features of every clip and query."),
    ("score", "Influence of every clip on every query."),
    ("select", "Votes and the best clips."),
    ("report", "report.html, one file to look at."),
):
    _stage_command(_name, _summary)


@app.command()
def export(
    run: RunArgument,
    format: Annotated[
        str,
        typer.Option(
            help="videofolder, diffsynth, musubi, finetrainers, diffusion-pipe, ai-toolkit, "
            "webdataset or data-juicer."
        ),
    ],
    out: Annotated[Path, typer.Option(help="A new folder.")],
    link: Annotated[bool, typer.Option("--link", help="Symbolic links instead of copies.")] = False,
) -> None:
    """Write the selected clips in the layout that a trainer reads."""
    report = _open(run, quiet=True).export(format, out, link=link)
    print(report.summary())


@app.command()
def info(
    run: RunArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Clips, queries, failures, objective, seconds and peak memory per stage."""
    facts = _open(run, quiet=True).info()
    if as_json:
        print(json.dumps(facts, indent=1, ensure_ascii=False))
    else:
        from motive.terminal import print_info

        print_info(facts)


@app.command()
def doctor(
    model: Annotated[str, typer.Argument(help="A diffusers folder, a hub id, or tiny-wan.")],
    frames: Annotated[
        int | None, typer.Option(help="Of a clip; else what the model is for.")
    ] = None,
    size: Annotated[str | None, typer.Option(help="HEIGHTxWIDTH in pixels.")] = None,
    timestep: Annotated[str, typer.Option(help="auto, or 1..1000; several with commas.")] = "auto",
    parameters: Annotated[str, typer.Option(help="Name pattern of the trained parameters.")] = "*",
    projection: Annotated[str, typer.Option(help="As of curate.")] = "fastfood",
    dim: Annotated[int, typer.Option(help="Length of a gradient feature.")] = 512,
    clips: Annotated[int, typer.Option(help="To project the hours for.")] = 1000,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32, bfloat16, float16.")] = "auto",
    threads: Annotated[int | None, typer.Option(help="CPU threads of the model.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """What attribution with a model costs here, before any of it is paid; needs no weights."""
    height, width = _size(size)
    from motive.doctor import examine
    from motive.runs.config import make_config

    settings = {
        "clips": "",
        "queries": "",
        "model": model,
        "sampling.frames": frames,
        "sampling.height": height,
        "sampling.width": width,
        "gradients.timestep": _timestep(timestep),
        "gradients.parameters": parameters,
        "gradients.projection": projection,
        "gradients.dim": dim,
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


@app.command()
def backbones(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """The video models that have an adapter, what was tested of them, and their memory."""
    from motive.backbones.catalog import catalog

    families = catalog()
    if as_json:
        print(json.dumps(families, indent=1, ensure_ascii=False))
    else:
        from motive.terminal import print_backbones

        print_backbones(families)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where to write the demo.")],
    seeds: Annotated[int, typer.Option(help="Independent corpora for the intervals.")] = 3,
    quiet: Quiet = False,
) -> None:
    """The main job on rendered clips whose motion is known, with the shipped tiny-wan."""
    from motive.demo import run_demo

    run_demo(out, seeds=seeds, progress=_progress(quiet))


@zoo_app.command("render")
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
    render_corpus(out, count, seed=seed, kinds=chosen, camera=camera, progress=_progress(quiet))
    print(f"{count} clips in {out}")


def _curate(run: "Run") -> None:
    run.curate()
    from motive.terminal import print_result

    print_result(run)


def _score_motion(run: "Run") -> None:
    run.score_motion()
    from motive.terminal import print_motion

    print_motion(run)


def _open(path: Path, quiet: bool) -> "Run":
    from motive.pipeline import Run

    return Run.open(path, _progress(quiet))


def _progress(quiet: bool) -> Any:
    from motive.runs.progress import Progress

    return Progress(quiet=quiet)


def _size(text: str | None) -> tuple[int | None, int | None]:
    if text is None:
        return None, None
    height, x, width = text.lower().partition("x")
    if not (x and height.isdigit() and width.isdigit()):
        raise UserError(f"the size '{text}' is wrong: write HEIGHTxWIDTH, as in 480x832")
    return int(height), int(width)


def _timestep(text: str) -> str | int | tuple[int, ...]:
    if text == "auto":
        return text
    try:
        values = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UserError(
            f"the timestep '{text}' is wrong: use auto or numbers from 1 to 1000"
        ) from None
    return values if len(values) > 1 else values[0]


def _range(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        first, last = (float(part) for part in text.split(","))
    except ValueError:
        raise UserError(
            f"the timestep range '{text}' is wrong: write FROM,TO, as in 875,1000"
        ) from None
    return first, last


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; a user's mistake is one sentence and exit code 2."""
    sys.exit(_outcome(lambda: app(arguments, standalone_mode=False)))


_INTERRUPTED = 130  # what shells give for Ctrl-C


def _outcome(command: Callable[[], object]) -> int:
    import errno

    # Newer versions of typer carry a click of their own: this is the one whose errors it raises.
    usage_error: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "ClickException")
    try:
        # A command returns None; a number is the exit code of a typer.Exit, 130 that of Ctrl-C.
        if code := command():
            raise KeyboardInterrupt if code == _INTERRUPTED else typer.Exit(cast(int, code))
    except UserError as error:
        return _complain(str(error), 2)
    except usage_error as error:
        text = error.format_message()
        if text.startswith("Usage:"):  # a group of commands without a command is asked for help
            print(text, file=sys.stderr)
            return 2
        return _complain(f"{text.rstrip('.')} (see motive --help)", 2)
    except (typer.Abort, KeyboardInterrupt):
        return _complain("interrupted; run the same command again to go on", _INTERRUPTED)
    except typer.Exit as error:
        return error.exit_code
    except OSError as error:
        full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        if error.errno not in (*full, errno.EACCES, errno.EROFS, errno.EPERM):
            raise
        place = error.filename or "the output"
        return _complain(
            f"{place} cannot be written ({error.strerror}): free space or choose another place", 2
        )
    return 0


def _complain(sentence: str, code: int) -> int:
    print(f"motive: {sentence}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
