"""A diagnosis for people."""

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from motive.doctor import Diagnosis, gigabytes

# Below, two gradients differ by the rounding of sums in another order: float32's and half floats'.
_ROUNDING = {"float32": 1e-4, "bfloat16": 3e-2, "float16": 3e-2}


def print_diagnosis(found: Diagnosis, console: Console | None = None) -> None:
    """One table, then what is missing and what to change."""
    console = console or Console()
    console.print(_table(found))
    for sentence in found.missing:
        console.print(f"missing: {sentence}", soft_wrap=True, markup=False, highlight=False)
    if found.fits:
        console.print("it fits this device's memory", soft_wrap=True, highlight=False)
    else:
        console.print(
            f"it does not fit this device's {gigabytes(found.memory_there)}",
            soft_wrap=True,
            highlight=False,
        )
    for sentence in found.advice:
        console.print(f"to change: {sentence}", soft_wrap=True, markup=False, highlight=False)


def _table(found: Diagnosis) -> Table:
    table = Table(
        title=Text(f"{found.model} on {found.device} in {found.dtype}"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_header=False,
    )
    table.add_column()
    table.add_column(justify="right")
    table.add_column(overflow="fold")
    memory = found.memory
    rows: list[tuple[str, str, str]] = [
        ("parameters", f"{found.parameters:,}", f"in {found.tensors:,} tensors"),
        ("differentiated", f"{found.chosen_parameters:,}", "of them"),
        ("clip", f"{found.frames} frames", f"of {found.height}x{found.width} pixels"),
        ("tokens", f"{found.tokens:,}", f"of {found.latent_cells:,} latent cells"),
        (
            "forward",
            _flop(found.flop_forward),
            f"{found.flop_attention / max(found.flop_forward, 1):.0%} of it attention",
        ),
        (
            "clip in all",
            _flop(found.flop_per_clip),
            f"forward and backward at {len(found.timesteps)} timestep"
            + ("s" if len(found.timesteps) > 1 else "")
            + (", activations computed twice to save memory" if found.recomputes else ""),
        ),
        (
            "estimator",
            found.estimator,
            f"{len(found.timesteps)} passes for a clip, {found.query_passes} for a query"
            + (
                f", and {found.moments_passes} more for each of up to 256 clips before"
                if found.moments_passes
                else ""
            ),
        ),
        *(
            (f"weights, {dtype}", gigabytes(size), "counted")
            for dtype, size in memory.weights.items()
        ),
        ("activations", gigabytes(memory.activations), "kept for the backward pass, counted"),
        ("working memory", gigabytes(memory.working), "modelled: twice the largest activation"),
        ("one gradient", gigabytes(memory.gradient), "the largest parameter's, counted"),
        ("projection", gigabytes(memory.projection), "state and sums, as allocated"),
        *(
            [
                (
                    "second moments",
                    gigabytes(memory.second_moments),
                    "4 bytes for each number that is differentiated",
                )
            ]
            if memory.second_moments
            else []
        ),
        ("gradient stage", gigabytes(memory.total), f"of {gigabytes(found.memory_there)} there"),
        *(
            (name, gigabytes(size), "weights, loaded alone in the encode stage, counted")
            for name, size in found.other_networks.items()
        ),
    ]
    if found.seconds_per_clip is not None and found.hours is not None:
        rows += [
            ("seconds a clip", f"{found.seconds_per_clip:,.2f}", "estimated from a calibration"),
            ("hours", f"{found.hours:,.1f}", f"for the gradients of {found.clips:,} clips"),
        ]
    rows.append(("batches", *_batches(found)))
    for name, value, note in rows:
        table.add_row(name, value, Text(note))
    return table


def _batches(found: Diagnosis) -> tuple[str, str]:
    difference = found.batch_difference
    if difference is None:
        return "not tried", "whether gradients are independent of the batch"
    if difference == 0:
        return "independent", "a clip's gradient is the same to the bit with another in its batch"
    said = f"with another clip in its batch a gradient moves by {difference:.1e} of its norm"
    kind = "independent" if difference <= _ROUNDING[found.dtype] else "NOT independent"
    return kind, f"{said}, by rounding" if kind == "independent" else said


def _flop(count: int) -> str:
    return f"{count / 1e12:,.2f} TFLOP" if count >= 1e11 else f"{count / 1e9:,.2f} GFLOP"
