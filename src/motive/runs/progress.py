"""Progress of long work: a live bar in a terminal, a plain line now and then elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar

from motive.printable import printable

PLAIN_SECONDS = 10.0  # between two plain lines

Advance = Callable[[str], None]


class Progress:
    """Says how far a stage is. `quiet` says nothing."""

    def __init__(self, console: Console | None = None, *, quiet: bool = False) -> None:
        self.console = console or Console(stderr=True)
        self.quiet = quiet

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[Advance]:
        """A function to call after each item with the item's name."""
        if self.quiet:
            yield lambda item: None
        elif self.console.is_terminal:
            with self._live(name, total) as advance:
                yield advance
        else:
            yield self._plain(name, total)

    @contextmanager
    def _live(self, name: str, total: int) -> Iterator[Advance]:
        bar = Bar(
            TextColumn("{task.description:<10}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[item]}"),
            console=self.console,
        )
        with bar:
            task = bar.add_task(name, total=total, rate="", item="")
            start, count = time.monotonic(), 0

            def advance(item: str) -> None:
                nonlocal count
                count += 1
                rate = count / max(1e-9, time.monotonic() - start)
                shown = printable(item)
                shown = shown if len(shown) <= 40 else "…" + shown[-39:]
                bar.update(task, advance=1, rate=f"{rate:.1f}/s", item=shown)

            yield advance
            bar.update(task, item="")

    def _plain(self, name: str, total: int) -> Advance:
        start = said = time.monotonic()
        count = 0

        def advance(item: str) -> None:
            nonlocal count, said
            count += 1
            now = time.monotonic()
            if count == total or now - said >= PLAIN_SECONDS:
                rate = count / max(1e-9, now - start)
                left = (total - count) / rate
                self.console.print(
                    f"{name} {count}/{total} {rate:.1f}/s {left:.0f} s left {printable(item)}",
                    soft_wrap=True,
                    markup=False,
                    highlight=False,
                )
                said = now

        return advance

    def say(self, text: str) -> None:
        """A line of its own."""
        if not self.quiet:
            self.console.print(printable(text), soft_wrap=True, markup=False, highlight=False)
