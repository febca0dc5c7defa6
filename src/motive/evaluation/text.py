"""An evaluation as a table in the terminal."""

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from motive.evaluation.result import Evaluation

_FAILURES = 5  # that are shown


def print_evaluation(evaluation: Evaluation) -> None:
    """Each dimension with its number and network, what is missing and how to have it, what failed."""
    console = Console()
    table = Table(box=box.SIMPLE_HEAD, title=Text(str(evaluation.folder)), title_justify="left")
    table.add_column("dimension", no_wrap=True)
    table.add_column("score", justify="right")
    table.add_column("unit")
    table.add_column("videos", justify="right")
    for name, result in evaluation.results.items():
        score = "none" if result.score is None else f"{result.score:.4f}"
        better = "" if result.dimension.higher_is_better else ", lower is better"
        table.add_row(name, score, result.dimension.unit + better, str(len(result.videos)))
    if evaluation.results:
        console.print(table)
    for name, result in evaluation.results.items():
        _say(console, f"{name}: {result.network}" + (f"; {result.note}" if result.note else ""))
    for name, missing in evaluation.missing.items():
        _say(console, f"missing: {name}, because {missing.why}; {missing.how}")
    for name, result in evaluation.results.items():
        if result.not_there:
            _say(console, f"{name}: {len(result.not_there)} videos of its prompts are not there")
    for failure in evaluation.failures[:_FAILURES]:
        where = f" ({failure.dimension})" if failure.dimension else ""
        _say(console, f"failed: {failure.file_name}{where}: {failure.reason}")
    if len(evaluation.failures) > _FAILURES:
        _say(console, f"and {len(evaluation.failures) - _FAILURES} failures more")


def _say(console: Console, line: str) -> None:
    console.print(line, soft_wrap=True, markup=False, highlight=False)
