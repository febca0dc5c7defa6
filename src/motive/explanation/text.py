"""An explanation on the terminal."""

from typing import TYPE_CHECKING

from rich.console import Console

from motive.explanation.explanation import Explanation
from motive.printable import printable

if TYPE_CHECKING:
    from motive.pipeline import Run

_STEPS = "▁▂▃▄▅▆▇█"


def print_explanation(run: "Run", found: Explanation) -> None:
    """The influence, the curve over time and the interval that stands out most."""
    clip, query = run.usable("clip")[found.clip_id], run.usable("query")[found.query_id]
    first, after = found.best_interval
    rate = found.fps or 1.0  # a single frame has none
    console = Console(highlight=False, soft_wrap=True)
    console.print(printable(f"{clip.file_name} on {query.file_name}"), markup=False)
    console.print(
        f"influence {found.influence:+.4g}, of the whole gradients (scores are projected)"
    )
    console.print(f"over time {sparkline(found.curve.tolist())}")
    console.print(
        f"stands out frames {first} to {after - 1} of {len(found.curve)}, "
        f"{first / rate:.2f} to {after / rate:.2f} s"
    )


def sparkline(values: list[float]) -> str:
    """A bar for each value, from the lowest to the highest."""
    low, high = min(values), max(values)
    width = (high - low) or 1.0
    return "".join(_STEPS[round((value - low) / width * (len(_STEPS) - 1))] for value in values)
