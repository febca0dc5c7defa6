"""Progress, as lines in a log and as a bar in a terminal."""

import io

import pytest
from rich.console import Console

from motive.runs import progress
from motive.runs.progress import Progress


def console(*, terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=120)


def text_of(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_log_gets_the_last_line_and_one_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = console(terminal=False)
    with Progress(lines).stage("track", 5) as advance:
        for i in range(5):
            advance(f"[bold]clip {i}.mp4")
    assert len(text_of(lines).splitlines()) == 1
    # The file's name is no markup.
    assert text_of(lines).startswith("track 5/5 ")
    assert text_of(lines).rstrip().endswith("0 s left [bold]clip 4.mp4")
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.0)
    every = console(terminal=False)
    with Progress(every).stage("track", 3) as advance:
        for i in range(3):
            advance(f"{i}")
    assert [line.split()[1] for line in text_of(every).splitlines()] == ["1/3", "2/3", "3/3"]


def test_a_terminal_gets_a_bar() -> None:
    bar = console(terminal=True)
    with Progress(bar).stage("encode", 2) as advance:
        advance("x" * 60 + "end.mp4")
        advance("b.mp4")
    assert "encode" in text_of(bar)
    assert "2/2" in text_of(bar)


def test_quiet_says_nothing() -> None:
    silent = console(terminal=True)
    quiet = Progress(silent, quiet=True)
    with quiet.stage("track", 1) as advance:
        advance("a")
    quiet.say("done")
    assert text_of(silent) == ""


def test_say_prints_a_line_as_it_is() -> None:
    lines = console(terminal=False)
    Progress(lines).say("3 of 4 [done] " + "long " * 60)
    assert text_of(lines) == "3 of 4 [done] " + "long " * 60 + "\n"
