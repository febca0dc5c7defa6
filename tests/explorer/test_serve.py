"""`motive explore` as a user runs it."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from motive.errors import UserError
from motive.explorer.serve import serve_explorer
from motive.pipeline import Run


def test_it_prints_its_address_answers_and_ends(run: Run) -> None:
    words = [sys.executable, "-m", "motive.cli", "explore", str(run.path)]
    process = subprocess.Popen(
        [*words, "--no-browser", "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        assert process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:\d+/", process.stdout.readline())
        assert found
        assert httpx.get(f"{found[0]}api/rows", timeout=60).json()["total"] == 15
    finally:
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate(timeout=60)
    assert "Traceback" not in complaint


def test_a_port_that_is_taken(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} cannot be listened on"):
            serve_explorer(run.path, host="127.0.0.1", port=port, browser=False)


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no run"):
        serve_explorer(tmp_path, host="127.0.0.1", port=0, browser=False)


def test_a_missing_package_is_one_sentence(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(UserError, match=r"motive-attribution\[explore\]"):
        serve_explorer(run.path, host="127.0.0.1", port=0, browser=False)
