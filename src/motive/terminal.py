"""What a person sees in the terminal at the end of a command."""

from textwrap import shorten
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from motive.printable import printable
from motive.results import POLARITY_COLUMNS, held_back, motion_rows, stream_selection

if TYPE_CHECKING:
    from motive.diagnosis import Diagnosis
    from motive.integrity import Check
    from motive.pipeline import Run
    from motive.runs.remote import RunPath

_ROWS = 12  # of the selection that are shown
_CAPTION = 40  # letters of a caption that are shown
# Heads of the motion table, with the statistic and its form.
_MOTION_COLUMNS = {
    "object": ("object_speed", "{:.3f}"),
    "all": ("mean_speed", "{:.3f}"),
    "p95": ("p95_speed", "{:.2f}"),
    "camera": ("camera_share", "{:.0%}"),
    "moving": ("moving_share", "{:.0%}"),
    "jerk": ("jerk", "{:.2f}"),
    "sure": ("confident_share", "{:.0%}"),
}


def print_result(run: "Run") -> None:
    """The head of the selection, how many files failed, and where the rest is."""
    console = Console()
    ranked = selected = mute = 0
    rows = []
    for row in stream_selection(run):
        ranked, selected = ranked + 1, selected + (row["selected"] == "true")
        mute += not row["caption"].strip()
        if ranked <= _ROWS:
            rows.append(row)
    failures = run.failures()
    table = _table(f"{selected} of {ranked} clips selected")
    # Where some queries are unwanted, what their votes took away.
    polar = [name for name in POLARITY_COLUMNS if rows and name in rows[0]]
    for name in ("rank", "votes", *(name.removeprefix("votes_") for name in polar), "mean score"):
        table.add_column(name, justify="right")
    for name in ("file", "best query"):
        table.add_column(name, overflow="fold")
    for row in rows[: min(_ROWS, max(selected, 1))]:
        table.add_row(
            row["rank"],
            row["votes"],
            *(row[name] for name in polar),
            run.plan.estimator.as_text(float(row["mean_score"]), 4),
            _text(row["file_name"]),
            _text(row["best_query"]),
        )
    console.print(table)
    if selected > _ROWS:
        _print_plain(console, f"and {selected - _ROWS} more in {run.folder / 'selection.csv'}")
    if held := held_back(run):
        clips = _counted(len(held), "clip was", "clips were")
        console.print(f"{clips} held back for their motion", soft_wrap=True)
    if mute:
        console.print(
            f"{mute} of {ranked} clips have no caption: give those that you train with",
            soft_wrap=True,
        )
    _print_failures(console, run, len(failures))
    _print_plain(console, f"report: {run.folder / 'report.html'}")


def print_backbones(families: list[dict[str, Any]]) -> None:
    """The families with their pipeline classes, their published models, and what was tested."""
    console = Console()

    def say(line: str) -> None:
        console.print(line, soft_wrap=True, highlight=False, markup=False)

    width = max(len(model["model"]) for family in families for model in family["models"])
    for family in families:
        say(f"{family['family']} ({', '.join(family['pipeline_classes'])})")
        for model in family["models"]:
            memory = ", ".join(
                f"{size / 1e9:5.1f} GB in {dtype}" for dtype, size in model["weight_bytes"].items()
            )
            say(f"  {model['model']:{width}} {model['parameters'] / 1e9:6.2f} B   {memory}")
    say("Parameters and their memory are those of the network whose gradients are taken.")
    for tested in dict.fromkeys(family["tested"] for family in families):
        whose = ", ".join(f["family"] for f in families if f["tested"] == tested)
        console.print(f"\n{whose}: {tested}", highlight=False, markup=False)


def print_motion(run: "Run") -> None:
    """The clips with the most object motion, and where the rest is."""
    console = Console()
    rows = motion_rows(run)
    table = _table(f"motion of {len(rows)} clips, in pixels per frame")
    for name in _MOTION_COLUMNS:
        table.add_column(name, justify="right")
    table.add_column("file", overflow="fold")
    for row in rows[:_ROWS]:
        cells = [form.format(row[name]) for name, form in _MOTION_COLUMNS.values()]
        table.add_row(*cells, _text(row["file_name"]))
    console.print(table)
    if len(rows) > _ROWS:
        console.print(f"and {len(rows) - _ROWS} more", soft_wrap=True)
    if held := held_back(run):
        console.print(f"{len(held)} of them would be held back from a selection", soft_wrap=True)
    _print_failures(console, run, len(run.failures()))
    _print_plain(console, f"motion: {run.folder / 'motion.csv'}")


def print_diagnosis(diagnosis: "Diagnosis", path: "RunPath") -> None:
    """The clips that most teach what the queries show, and where the rest is."""
    console = Console()
    names = ", ".join(query.file_name for query in diagnosis.queries[:3])
    if more := len(diagnosis.queries) - 3:
        names += f" and {more} more" if more > 0 else ""
    table = _table(escape(printable(f"the clips that most teach {names}")))
    for name in ("rank", "score", "z", "wanted", "px/frame"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("file", overflow="fold")
    table.add_column("caption")
    for suspect in diagnosis.suspects[:_ROWS]:
        wanted = suspect.wanted_score
        table.add_row(
            str(suspect.rank),
            _signed(suspect.score, diagnosis.bounded),
            f"{suspect.robust_z:+.1f}",
            "" if wanted is None else _signed(wanted, diagnosis.bounded),
            f"{suspect.motion['mean_speed']:.2f}",
            _text(suspect.file_name),
            _text(shorten(suspect.caption, _CAPTION, placeholder="…")),
        )
    console.print(table)
    if (rest := len(diagnosis.suspects) - _ROWS) > 0:
        console.print(f"and {rest} more", soft_wrap=True)
    for query, reason in diagnosis.left_out:
        _print_plain(console, f"{query.file_name} was left out: {reason}")
    _print_plain(console, f"diagnosis: {path}")


def _signed(score: float, bounded: bool) -> str:
    """A score in a table; one without bounds by three significant digits where it is tiny."""
    return f"{score:+.4f}" if bounded or abs(score) >= 0.001 else f"{score:+.3g}"


def _print_failures(console: Console, run: "Run", count: int) -> None:
    if count:
        files = _counted(count, "file")
        _print_plain(console, f"{files} could not be used: {run.folder / 'failures.csv'}")


def print_info(facts: dict[str, Any]) -> None:
    """`motive info` for people."""
    console = Console()
    _print_plain(
        console,
        f"{facts['run']}: {_counted(facts['clips'], 'clip')} ({facts['clips_ranked']} ranked, "
        f"{facts['selected']} selected), {_counted(facts['queries'], 'query', 'queries')}, "
        f"{_counted(len(facts['failures']), 'failure')}",
    )
    stages = _table("stages")
    for name in ("stage", "done", "failed", "seconds", "peak MB"):
        stages.add_column(name, justify="left" if name == "stage" else "right")
    for stage, entry in facts["stages"].items():
        stages.add_row(
            stage,
            f"{entry['done']:.0f}",
            f"{entry['failed']:.0f}",
            f"{entry['seconds']:.1f}",
            f"{entry['peak_mb']:.0f}",
        )
    console.print(stages)
    objective = _table(f"objective {facts['objective_id']}")
    objective.add_column("field")
    objective.add_column("value", overflow="fold")
    for name, value in facts["objective"].items():
        of_queries = facts["query_objective"].get(name)
        objective.add_row(name, _text(str(value)))
        if of_queries != value:
            objective.add_row(f"{name} (queries)", Text(str(of_queries)))
    console.print(objective)
    estimator, passes = facts["estimator"]["name"], facts["estimator"]["passes"]
    console.print(
        f"estimator: {estimator}, "
        f"{_counted(passes['clip'], 'forward and backward pass', 'forward and backward passes')} "
        f"for a clip, {passes['query']} for a query",
        soft_wrap=True,
        highlight=False,
    )
    if facts["failures"]:
        failures = _table("failures")
        for name in ("file", "stage", "reason"):
            failures.add_column(name, overflow="fold")
        for row in facts["failures"]:
            failures.add_row(_text(row["file_name"]), row["stage"], _text(row["reason"]))
        console.print(failures)


def _print_plain(console: Console, line: str) -> None:
    """A line with a path or foreign text: whole, unbroken, and nothing in it is markup."""
    console.print(printable(line), soft_wrap=True, markup=False, highlight=False)


def _counted(count: int, one: str, more: str = "") -> str:
    return f"{count} {one if count == 1 else more or one + 's'}"


def print_check(check: list[dict[str, Any]], note: str) -> None:
    """The comparison of methods on clips whose motion is known."""
    console = Console()
    table = _table("share of each query's top 10% that shows the query's motion")
    table.add_column("method")
    table.add_column("share", justify="right")
    table.add_column("95% interval", justify="right")
    for row in check:
        table.add_row(
            str(row["method"]),
            f"{row['precision']:.3f}",
            f"{row['low']:.3f} … {row['high']:.3f}",
        )
    console.print(table)
    console.print(note, highlight=False)


def _text(text: str) -> Text:
    """Foreign text, in which nothing is markup or for the terminal to do."""
    return Text(printable(text))


def _table(title: str) -> Table:
    return Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)


def print_integrity(check: "Check") -> None:
    """What is wrong with a run, how to mend it, and what was mended."""
    console = Console()
    for finding in check.findings:
        said = f"mended: {finding.mended}" if finding.mended else f"to mend: {finding.mend}"
        line = f"{finding.level}: {finding.where}: {finding.what} ({said})"
        console.print(printable(line), soft_wrap=True, markup=False, highlight=False)
    rows = ", ".join(f"{name} {count}" for name, count in check.counts.items())
    console.print(f"rows: {rows}", soft_wrap=True, markup=False, highlight=False)
    if check.working:
        console.print(f"{check.working} processes are at work on the run")
    console.print("the run is sound" if check.is_sound else "the run is not sound")
