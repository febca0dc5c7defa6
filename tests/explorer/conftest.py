"""A small finished run to explore: real clips, one of them a gif, with captions that try to break out."""

import csv
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import httpx
import pytest
import uvicorn
from starlette.testclient import TestClient

from motive.explorer.app import make_app
from motive.explorer.session import Session
from motive.pipeline import Run
from motive.zoo.render import render_corpus

HOSTILE = [
    "<img src=x onerror='window.broken=1'>",
    "</script><script>window.broken=1</script>",
    "a river, slow & wide",
    "Ein Fluß: 水 \N{RIGHT-TO-LEFT OVERRIDE}gpm",
]
HOST = "127.0.0.1"


def write_gif(source: Path, target: Path) -> None:
    with av.open(str(source)) as reader, av.open(str(target), "w", format="gif") as writer:
        video = reader.streams.video[0]
        stream = writer.add_stream("gif", rate=16)
        stream.width, stream.height, stream.pix_fmt = video.width, video.height, "rgb8"
        for frame in reader.decode(video):
            writer.mux(stream.encode(frame.reformat(format="rgb8")))
        writer.mux(stream.encode(None))


@pytest.fixture(scope="session")
def made_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fifteen clips against four queries, a fifth selected. Not to be written into."""
    folder = tmp_path_factory.mktemp("explorer")
    render_corpus(folder / "clips", 14, seed=3)
    render_corpus(folder / "queries", 4, seed=10_003, kinds=["bounce", "roll"])
    table = folder / "clips" / "metadata.csv"
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row, caption in zip(rows, HOSTILE, strict=False):
        row["caption"] = caption
    write_gif(folder / "clips" / rows[0]["file_name"], folder / "clips" / "clips" / "moving.gif")
    rows.append({**rows[0], "file_name": "clips/moving.gif", "caption": "a gif of the first"})
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    run = Run.create(
        folder / "run",
        clips=str(folder / "clips"),
        queries=str(folder / "queries"),
        model="tiny-wan",
        selection__fraction=0.2,
        compute__threads=1,
    )
    run.curate(report=False)
    return folder / "run"


@pytest.fixture
def run(made_run: Path, tmp_path: Path) -> Run:
    """A copy of the run, to decide about."""
    return Run.open(shutil.copytree(made_run, tmp_path / "run"))


@pytest.fixture
def session(run: Run) -> Iterator[Session]:
    made = Session(run)
    yield made
    made.close()


@pytest.fixture
def client(session: Session) -> Iterator[TestClient]:
    with TestClient(make_app(session, HOST), base_url="http://127.0.0.1:8765") as made:
        yield made


class Server:
    """The application behind a real socket."""

    def __init__(self, session: Session, **settings: Any) -> None:
        self.socket = socket.create_server((HOST, 0))
        self.address = f"http://{HOST}:{self.socket.getsockname()[1]}/"
        config = uvicorn.Config(make_app(session, HOST, **settings), log_level="error")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]})
        self.thread.start()
        while True:
            try:
                httpx.get(self.address, timeout=5)
                return
            except httpx.TransportError:
                time.sleep(0.05)

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(20)


@pytest.fixture
def server(session: Session) -> Iterator[Server]:
    made = Server(session)
    yield made
    made.stop()
