"""Fifty annotators at once: how long an answer takes, and that none is lost and none counted twice.

    python benchmarks/study_load.py [--annotators 50] [--pairs 200] [--think 0.5] [--json FILE]
        [--postgresql URL]

For each database a study is made, with every pair planned for every annotator, and `motive study serve`
runs in a process of its own. Each annotator has a connection and a cookie, posts an answer to what comes
next, waits `--think` seconds on average (exponentially distributed, as arrivals of people are) and goes
on. One answer in twenty is sent a second time, as after a lost reply. Requests go out of this one
process, on the same cores as the server; what is measured includes them.

In the end the database must hold exactly one judgement for each annotator and pair, each with the choice
that was acknowledged. PostgreSQL is a server of its own in a temporary folder with durable commits
(fsync on), or the one at `--postgresql`, whose database must be empty.
"""

import argparse
import asyncio
import json
import os
import platform
import pwd
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from motive.study.database import Database, database_url
from motive.study.design import DESIGN_FILE, VIDEO_FOLDER, Design, Pair, Rules
from motive.study.judgements import read_judgements
from motive.study.judging import new_id
from motive.study.roster import fill, make_tokens

_REPEATED = 0.05  # share of the answers that are sent twice
_TARGET_MS = 100


def make_study(folder: Path, annotators: int, pairs: int, url: str | None) -> Design:
    """A study without pictures: what is measured is answers."""
    (folder / VIDEO_FOLDER).mkdir(parents=True)
    design = Design(
        id=new_id(),
        arms={"base": "", "motive": ""},
        rules=Rules(per_pair=annotators),
        pairs=tuple(
            Pair(id=new_id(), prompt=f"prompt {k}", seed=0, arm_a="motive", arm_b="base",
                 video_a=new_id(), video_b=new_id())
            for k in range(pairs)
        ),
        annotators=tuple(f"annotator-{k}" for k in range(annotators)),
        database="url" if url else "sqlite",
    )  # fmt: skip
    for pair in design.pairs:
        for name in (pair.video_a, pair.video_b):
            (folder / VIDEO_FOLDER / f"{name}.mp4").touch()
    held = Database(database_url(folder, design.database, url))
    fill(held, design, make_tokens(folder, list(design.annotators)))
    held.close()
    design.write(folder / DESIGN_FILE)
    return design


@contextmanager
def served(folder: Path, url: str | None) -> Iterator[int]:
    """The port of `motive study serve` in a process of its own."""
    words = [sys.executable, "-m", "motive.cli", "study", "serve", str(folder), "--port", "0"]
    words += ["--database", url] if url else []
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = next(line for line in process.stdout if line.startswith("serving "))
        yield int(line.partition(";")[0].rpartition(":")[2])
    finally:
        process.terminate()
        process.wait(30)


class Connection:
    """One annotator's kept-alive connection."""

    def __init__(self, port: int, cookie: str) -> None:
        self._port = port
        self._head = (
            f"Host: 127.0.0.1:{port}\r\nOrigin: http://127.0.0.1:{port}\r\nCookie: {cookie}\r\n"
            "Content-Type: application/json\r\n"
        )

    async def open(self) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)

    async def post(self, path: str, content: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        body = json.dumps(content)
        request = f"POST {path} HTTP/1.1\r\n{self._head}Content-Length: {len(body)}\r\n\r\n{body}"
        self._writer.write(request.encode())
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
        answer = json.loads(await self._reader.readexactly(length))
        return int(head.split()[1]), answer


async def annotate(
    name: str, connection: Connection, think: float, seconds: list[float]
) -> dict[str, str]:
    """Answer everything; the acknowledged choice of each place."""
    rng = random.Random(name)
    kept: dict[str, str] = {}
    await connection.open()
    await asyncio.sleep(rng.random() * think)
    _, turn = await connection.post("/api/turn", {})
    while turn["place"] is not None:
        await asyncio.sleep(rng.expovariate(1 / think) if think else 0)
        answer = {
            "place": turn["place"],
            "choice": rng.choice(("left", "tie", "right")),
            "response_ms": 4000,
        }
        for _ in range(2 if rng.random() < _REPEATED else 1):
            start = time.perf_counter()
            status, turn = await connection.post("/api/answers", answer)
            seconds.append(time.perf_counter() - start)
            assert status == 200, (status, turn)
        kept[answer["place"]] = answer["choice"]
    return kept


async def all_at_once(
    port: int, tokens: dict[str, str], cookie: str, think: float
) -> tuple[list[dict[str, str]], list[float]]:
    seconds: list[float] = []
    work = [
        annotate(name, Connection(port, f"{cookie}={token}"), think, seconds)
        for name, token in tokens.items()
    ]
    return list(await asyncio.gather(*work)), seconds


def measure(
    folder: Path, annotators: int, pairs: int, think: float, url: str | None
) -> dict[str, Any]:
    design = make_study(folder, annotators, pairs, url)
    tokens = make_tokens(folder, list(design.annotators))
    cookie = f"motive_study_{design.id[:8]}"
    with served(folder, url) as port:
        start = time.perf_counter()
        kept, seconds = asyncio.run(all_at_once(port, tokens, cookie, think))
        lasted = time.perf_counter() - start
    held = Database(database_url(folder, design.database, url))
    found, _ = read_judgements(held, design)
    stored = stored_choices(held)
    held.close()
    acknowledged = {place: choice for one in kept for place, choice in one.items()}
    keys = {(j.annotator, j.prompt) for j in found}
    p50, p95, p99 = (1000 * float(np.percentile(seconds, q)) for q in (50, 95, 99))
    return {
        "database": "postgresql" if url else "sqlite",
        "annotators": annotators,
        "judgements": len(found),
        "planned": annotators * pairs,
        "lost": sum(place not in stored for place in acknowledged),
        "changed": sum(stored.get(p) not in (None, c) for p, c in acknowledged.items()),
        "doubled": len(found) - len(keys),
        "requests": len(seconds),
        "think_seconds": think,
        "requests_per_second": len(seconds) / lasted,
        "p50_ms": p50,
        "p95_ms": p95,
        "p99_ms": p99,
        "max_ms": 1000 * max(seconds),
    }


def stored_choices(held: Database) -> dict[str, str]:
    """The choice that each judgement amounts to, by place."""
    from sqlalchemy import select

    from motive.study.schema import judgements, places

    with held.reading() as connection:
        rows = connection.execute(
            select(places.c.id, places.c.a_left, judgements.c.winner).join(judgements)
        ).all()
    return {
        row.id: "tie"
        if row.winner == "tie"
        else ("left" if (row.winner == "a") == row.a_left else "right")
        for row in rows
    }


@contextmanager
def postgresql(root: Path, given: str | None) -> Iterator[str | None]:
    """A URL of an empty database; None where there is no server."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if given or not programs:
        yield given
        return
    names = {entry.pw_name for entry in pwd.getpwall()}
    user = ("postgres" if "postgres" in names else "nobody") if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="motive-postgres-", dir=root))
    root.chmod(0o711)
    if user:
        shutil.chown(folder, user)

    def run(program: str, *words: str) -> None:
        command = [str(programs[-1] / program), *words]
        subprocess.run(command, check=True, user=user, cwd=folder, stdout=subprocess.DEVNULL)

    data = str(folder / "data")
    run("initdb", "-D", data, "-U", "motive", "-A", "trust", "-E", "UTF8", "--no-sync")
    switches = f"-c listen_addresses='' -c unix_socket_directories={folder}"
    run("pg_ctl", "-D", data, "-w", "-l", str(folder / "log"), "-o", switches, "start")
    try:
        yield f"postgresql://motive@/postgres?host={folder}"
    finally:
        run("pg_ctl", "-D", data, "-w", "-m", "fast", "stop")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--annotators", type=int, default=50)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--think", type=float, default=0.5, help="mean seconds between answers")
    parser.add_argument("--postgresql", metavar="URL", help="an empty database")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        with postgresql(root, options.postgresql) as url:
            for folder, place in (("sqlite", None), ("postgresql", url)):
                if folder == "postgresql" and url is None:
                    print("postgresql: no server is installed, and --postgresql names none")
                    continue
                row = measure(
                    root / folder, options.annotators, options.pairs, options.think, place
                )
                results.append(row)
                print(
                    f"{row['database']:10} {row['judgements']} of {row['planned']} judgements, "
                    f"{row['lost']} lost, {row['changed']} changed, {row['doubled']} doubled; "
                    f"{row['requests_per_second']:.0f} requests/s; p50 {row['p50_ms']:.1f} ms, "
                    f"p95 {row['p95_ms']:.1f} ms (wanted: {_TARGET_MS}), p99 {row['p99_ms']:.1f} ms",
                    flush=True,
                )
    if options.json:
        machine = {"cores": os.cpu_count(), "python": platform.python_version()}
        options.json.write_text(
            json.dumps({"machine": machine, "results": results}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
