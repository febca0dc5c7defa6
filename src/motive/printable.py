"""Names and captions come from anywhere: shown in a terminal, they are text and nothing else."""

import re

# Control characters (an escape may retitle, recolour or answer for the terminal) and what turns the
# direction of writing.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def printable(text: str) -> str:
    """`text` on one line, every control character spelled out as in Python: `\\x1b`."""
    text = text.replace("\n", "\\n").replace("\t", "\\t")
    return _CONTROLS.sub(lambda found: ascii(found[0])[1:-1], text)
