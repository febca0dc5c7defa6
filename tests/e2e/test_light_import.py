"""`motive --help` answers at once: nothing heavy is imported before a command needs it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from commands import in_python
from run_files import Finished

HEAVY = {"torch", "diffusers", "transformers", "lance", "pyarrow", "numpy", "cv2", "av", "numba"}
SHOW = (
    "import json, sys; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
)


@pytest.mark.parametrize(
    "statement", ["import motive", "import motive.cli", "import motive.errors"]
)
def test_importing_the_command_line_imports_nothing_heavy(statement: str) -> None:
    command = [sys.executable, "-c", f"{statement}; {SHOW}"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True)
    loaded = set(json.loads(answer.stdout))
    assert "motive" in loaded
    assert loaded & HEAVY == set()


def test_help_names_every_command() -> None:
    outcome = in_python(["--help"]).succeeded()
    stages = ("ingest", "track", "encode", "gradients", "score", "select", "report")
    for command in ("curate", "run", "export", "info", "demo", "zoo", *stages):
        assert command in outcome.out, command
    assert outcome.err == ""


@pytest.mark.parametrize("command", ["curate", "info"])
def test_a_finished_run_is_looked_at_without_torch(
    finished: Finished, copied: Path, command: str
) -> None:
    words = {"curate": [*finished.words, "--out", str(copied)], "info": ["info", str(copied)]}
    code = f"""
import json, sys
from motive.cli import main
try:
    main({words[command]!r})
except SystemExit as end:
    assert end.code == 0, end.code
print(json.dumps(sorted({{name.partition('.')[0] for name in sys.modules}})))
"""
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    loaded = set(json.loads(answer.stdout.splitlines()[-1]))
    assert "lance" in loaded
    assert loaded & {"torch", "diffusers", "transformers", "numba", "av", "jinja2"} == set()
