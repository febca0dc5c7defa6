"""Arms' videos, studies made of them, a browser, and a database server."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from playwright.sync_api import Browser, sync_playwright
from study_parts import PROMPTS

from motive.study.creation import create_study
from motive.study.design import Rules
from motive.zoo.render import write_mp4

MakeStudy = Callable[..., Path]

_SWITCHES = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def _missing(what: str, packages: str) -> None:
    """Without it these tests skip, but where CI is set its absence is a failure."""
    if os.environ.get("CI"):
        pytest.fail(f"{what} is missing, and CI is set: install {packages}")
    pytest.skip(f"{what} is not installed")


@pytest.fixture(scope="session")
def arms(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three arms with half a second of video of each of two prompts and two seeds."""
    root = tmp_path_factory.mktemp("arms")
    for k, name in enumerate(("base", "motive", "random")):
        (root / name).mkdir()
        for i, prompt in enumerate(PROMPTS):
            for seed in range(2):
                frames = _moving_square(step=2 + 2 * k, row=10 + 8 * i + 20 * seed)
                write_mp4(root / name / f"{prompt}-{seed}.mp4", frames, 24)
    (root / "prompts.txt").write_text("\n".join(PROMPTS) + "\n")
    return {name: root / name for name in ("base", "motive", "random")}


def _moving_square(step: int, row: int) -> np.ndarray:
    frames = np.full((12, 72, 128, 3), (40, 60, 90), np.uint8)
    for f, frame in enumerate(frames):
        frame[row : row + 20, 5 + f * step : 25 + f * step] = (240, 180, 60)
    return frames


@pytest.fixture
def make_study(arms: dict[str, Path], tmp_path: Path) -> MakeStudy:
    """Makes a study of two arms, or of those that are named."""

    def make(
        *names: str, out: Path | None = None, rules: dict[str, Any] | None = None, **settings: Any
    ) -> Path:
        chosen = {name: arms[name] for name in names or ("base", "motive")}
        settings.setdefault("annotators", ["ann", "bob", "cleo"])
        settings.setdefault("checks", 1)
        folder = out or tmp_path / "study"
        given = {"per_pair": len(settings["annotators"])} | (rules or {})
        prompts = arms["base"].parent / "prompts.txt"
        create_study(folder, chosen, prompts, Rules(**given), **settings)
        return folder

    return make


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Debian's Chromium, without a window."""
    path = shutil.which("chromium")
    if path is None:
        _missing("Chromium", "the package chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, headless=True, args=_SWITCHES)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The folder of a PostgreSQL server's socket; the server listens on nothing else."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs:
        _missing("PostgreSQL", "the package postgresql")
    # The server refuses to be root.
    user = _someone() if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="motive-postgres-", dir="/tmp"))
    if user:
        shutil.chown(folder, user)

    def run(program: str, *words: str) -> None:
        command = [str(programs[-1] / program), *words]
        subprocess.run(
            command, check=True, user=user, cwd=folder, stdout=subprocess.DEVNULL, timeout=120
        )

    data = str(folder / "data")
    run("initdb", "-D", data, "-U", "motive", "-A", "trust", "-E", "UTF8", "--no-sync")
    switches = f"-c listen_addresses='' -c unix_socket_directories={folder} -c fsync=off"
    log = str(folder / "log")
    run("pg_ctl", "-D", data, "-w", "-l", log, "-o", switches, "start")
    yield str(folder)
    run("pg_ctl", "-D", data, "-w", "-m", "immediate", "stop")
    shutil.rmtree(folder)


def _someone() -> str:
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


@pytest.fixture
def postgres(postgres_server: str, request: pytest.FixtureRequest) -> str:
    """The URL of an empty database."""
    name = f"d{abs(hash(request.node.nodeid)) % 10**9}"
    address = f"host={postgres_server} user=motive dbname=postgres"
    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    return f"postgresql://motive@/{name}?host={postgres_server}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str | None:
    """Both kinds of database, one after the other: None is SQLite in the study's folder."""
    return None if request.param == "sqlite" else str(request.getfixturevalue("postgres"))
