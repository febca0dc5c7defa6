"""`motive explore` as a user runs it."""

import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from motive.errors import UserError
from motive.explorer.curation import Curation
from motive.explorer.serve import serve_explorer
from motive.explorer.table_file import keep_table, open_table
from motive.pipeline import Run


def started(*words: str) -> subprocess.Popen[str]:
    """Python with these words, its output to be read."""
    return subprocess.Popen(
        [sys.executable, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_it_prints_its_address_answers_and_ends(run: Run) -> None:
    process = started("-m", "motive.cli", "explore", str(run.path), "--no-browser", "--port", "0")
    try:
        assert process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:\d+/", process.stdout.readline())
        assert found
        assert httpx.get(f"{found[0]}api/rows", timeout=60).json()["total"] == 15
    finally:
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate(timeout=60)
    assert "Traceback" not in complaint


SLOW = """
import os, signal, sys, threading, time
from motive.explorer.curation import Curation
from motive.explorer.corpus_map import Maps
from motive.explorer.serve import serve_explorer

decide, end = Curation.decide, threading.Event()

def late(self, ids, decision):
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(2.5)  # longer than what only asks is waited for
    return decide(self, ids, decision)

Curation.decide = late
Maps.of = lambda self, method: end.wait()
serve_explorer(__import__("pathlib").Path(sys.argv[1]), host="127.0.0.1", port=0, browser=False)
"""


def test_ctrl_c_waits_for_a_decision_and_for_no_map(run: Run) -> None:
    """The map would never be ready: the process would not end at all."""
    process = started("-c", SLOW, str(run.path))
    try:
        assert process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:(\d+)/", process.stdout.readline())
        assert found
        rows = httpx.get(f"{found[0]}api/rows", timeout=60).json()["rows"]
        with socket.create_connection(("127.0.0.1", int(found[1]))) as map_wanted:
            map_wanted.sendall(b"GET /api/map HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
            wish = {"clip_ids": [rows[0]["clip_id"]], "decision": "exclude"}
            answer = httpx.post(f"{found[0]}api/decide", json=wish, timeout=60)
            assert answer.json()["changed"] == 1
            _, complaint = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert complaint == "motive: interrupted; run the same command again to go on\n"
    with closing(Curation(run.path)) as kept:
        assert kept.values("decision") == {rows[0]["clip_id"]: "exclude"}


LOADED = """
import json, sys
from motive.explorer.serve import serve_explorer
from motive.explorer.session import Session
import uvicorn
from starlette.testclient import TestClient

def ask(server, sockets):
    with TestClient(server.config.app, base_url="http://127.0.0.1:8765") as client:
        for address in ("/", "/api/run", "/api/rows?limit=100"):
            client.get(address).raise_for_status()
            heavy = {"torch", "lance", "scipy", "sklearn", "pandas", "sqlalchemy", "diffusers"}
            print(json.dumps(sorted(heavy & {name.partition(".")[0] for name in sys.modules})))

uvicorn.Server.run = ask
Session.warm_up = lambda self: None  # which begins with the first page, and loads what it likes
serve_explorer(__import__("pathlib").Path(sys.argv[1]), host="127.0.0.1", port=0, browser=False)
"""


def test_a_prepared_run_shows_its_first_page_before_anything_heavy_is_loaded(run: Run) -> None:
    opened = open_table(run)
    keep_table(run, opened.table, opened.files)
    words = [sys.executable, "-c", LOADED, str(run.path)]
    answer = subprocess.run(words, capture_output=True, text=True, check=True)
    assert [line for line in answer.stdout.splitlines() if line.startswith("[")] == ["[]"] * 3


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
