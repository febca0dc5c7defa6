"""What is shown in a terminal does nothing there."""

import io

import pytest
from rich.console import Console

from motive.printable import printable
from motive.runs.progress import Progress

ESCAPES = "\x1b]0;owned\x07\x1b[2J\x9b31m\x7f\r\x08\u202egnp.exe"


def test_control_characters_are_spelled_out() -> None:
    assert printable("a ball — 球\tб") == "a ball — 球\\tб"
    assert printable("\x1b[2J") == "\\x1b[2J"
    assert printable("one\ntwo") == "one\\ntwo"
    assert printable(ESCAPES).isprintable()


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_shows_names_as_text(terminal: bool) -> None:
    out = io.StringIO()
    progress = Progress(Console(file=out, force_terminal=terminal, width=300, color_system=None))
    with progress.stage("ingest", 1) as advance:
        advance(ESCAPES)
    progress.say(f"of {ESCAPES}")
    for harm in ("\x1b]0;", "\x1b[2J", "\x9b", "\x07", "\u202e"):
        # The live bar has escapes of its own; none of them clears the screen or names the window.
        assert harm not in out.getvalue()
    assert "\\x1b]0;owned" in out.getvalue()
