"""SIGKILL at random moments, and the same command again: is the run the same as an undisturbed one?

    python benchmarks/kills.py --kills 100 --engine local --json kills.json

Every kill is of a `motive curate` at a moment drawn from all its stages alike; the command then runs again,
to its end or to another kill (one time in four), and what lies in the run directory at last is compared with
an undisturbed run bit for bit. With `--engine ray` it is the driver that is killed, or a worker, or both.

Corpus and model are small, so that all is about rows and files: rendered clips and tiny-wan, at 32 × 32
pixels. What was compared is kept in `WORK/compared.jsonl`: the same command goes on where it was.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "e2e"))
from commands import KILLED, Terminal
from run_files import tables
from test_killed import assert_like_undisturbed

CLIPS = 14
COMPUTED = {"ingest": "files", "track": "motion", "encode": "latents", "encode text": "texts"}
OUTPUTS = {"score": "scores.parquet", "select": "selection.csv", "report": "report.html"}
AGAIN = 0.25  # of the kills hit the rerun of a run that was killed


@dataclass(frozen=True)
class Kill:
    """One kill.

    stage: the first one that was not done then.
    after_s: since the stage that it was meant for began.
    outlived: whether the command went on to its end by itself, as it should when a worker is killed.
    """

    engine: str
    victim: str
    stage: str
    after_s: float
    outlived: bool = False


def stage_now(run: Path, finished: Path) -> str:
    """The first stage that has not all its rows or its output."""
    if not (run / "run.yaml").exists():
        return "start"
    mine, theirs = tables(run), tables(finished)
    for stage, name in COMPUTED.items():
        if name not in mine or mine[name].count_rows() < theirs[name].count_rows():
            return stage
    for name, table in theirs.items():
        if name.startswith("features-") and (
            name not in mine or mine[name].count_rows() < table.count_rows()
        ):
            return "gradients"
    for stage, name in OUTPUTS.items():
        stamps = run / "outputs.json"
        made = json.loads(stamps.read_text()) if stamps.exists() else {}
        if not (run / name).exists() or stage not in made:
            return stage
    return "end"


def lengths(finished: Path, total: float) -> dict[str, float]:
    """Seconds of each stage in an undisturbed run, in order; `start` is what comes before them."""
    log = json.loads((finished / "stages.json").read_text())
    stages = {stage: float(entry["seconds"]) for stage, entry in log.items()}
    return {"start": max(0.1, total - sum(stages.values())), **stages}


def wait_for(before: str | None, seconds: float, run: Path, alive: Callable[[], bool]) -> None:
    """So many seconds into the stage that follows `before`, or until nothing is alive.

    A stage begins when the one before it is in the run's log; the first one, when there is a run.
    """
    log = run / "stages.json"
    while alive():
        if before is None or (before == "start" and (run / "run.yaml").exists()):
            break
        if log.exists() and before in json.loads(log.read_text()):
            break
        time.sleep(0.005)
    time.sleep(seconds)


class Ray:
    """A command that runs with Ray, in a session of its own, so that all its processes are known."""

    def __init__(self, words: list[str], log: Path) -> None:
        self._log = log
        with log.open("w") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "motive.cli", *words],
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def workers(self) -> list[int]:
        """The processes below this one that Ray's actors live in."""
        # Not Ray's own: without its raylet a machine is lost, and here there is only one.
        named = {pid: command_of(pid) for pid in below(self.process.pid)}
        return [p for p, name in named.items() if name.startswith("ray::") and "Agent" not in name]

    def strike(self, victim: str, chance: random.Random) -> bool:
        """Kill; False when there was nobody to kill."""
        hit = False
        if victim in ("worker", "both"):
            workers = self.workers()
            if workers:
                hit = True
                kill(chance.choice(workers))
        if victim in ("driver", "both") and self.process.poll() is None:
            hit = True
            self.process.kill()
        return hit

    def code(self, timeout: float = 600) -> int:
        return self.process.wait(timeout)

    def said(self) -> str:
        return self._log.read_text()[-2000:]


def kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def command_of(pid: int) -> str:
    try:
        return (
            Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        )
    except OSError:
        return ""


def below(pid: int) -> list[int]:
    """All processes that `pid` started, and theirs."""
    children: dict[int, list[int]] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = status.read_text()
        except OSError:
            continue
        children.setdefault(int(text.rpartition(")")[2].split()[1]), []).append(
            int(status.parent.name)
        )
    found, waiting = [], [pid]
    while waiting:
        more = children.get(waiting.pop(), [])
        found += more
        waiting += more
    return found


def orphans(mark: str) -> int:
    """Decoders of these runs that outlived them."""
    return sum(
        "motive.clips.decoder" in command_of(int(p.name)) and mark in environment_of(int(p.name))
        for p in Path("/proc").glob("[0-9]*")
    )


def environment_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
    except OSError:
        return ""


def strike_local(
    motive: Terminal, words: list[str], when: Callable[[Callable[[], bool]], None]
) -> bool:
    """Start and kill; says whether the kill came in time."""
    started = motive.start(*words)
    when(started.process.is_alive)
    outcome = started.kill_after(0.0)
    if outcome.code not in (KILLED, 0):
        raise SystemExit(f"a command failed without a kill:\n{outcome.err}")
    return outcome.code == KILLED


def strike_ray(
    words: list[str],
    log: Path,
    when: Callable[[Callable[[], bool]], None],
    victim: str,
    chance: random.Random,
) -> tuple[bool, bool]:
    """Start, kill, and wait for the end; says whether the kill came in time, and what it did not end."""
    command = Ray(words, log)
    when(lambda: command.process.poll() is None)
    hit = command.strike(victim, chance)
    code = command.code()
    if victim == "worker" and code != 0:
        print(f"exit code {code} after a worker's end:\n{command.said()}", flush=True)
    return hit, code == 0


def campaign(kills: int, engine: str, seed: int, work: Path) -> dict[str, Any]:
    """Kill, run again, compare; sum up."""
    from motive.zoo.render import render_corpus

    os.environ["OMP_NUM_THREADS"] = "1"  # before the server starts, which hands it on
    os.environ["MOTIVE_KILLS"] = str(os.getpid())
    work.mkdir(parents=True, exist_ok=True)
    (work / "streams").mkdir(exist_ok=True)
    zoo = work / "zoo"
    if not (zoo / "metadata.csv").exists():
        render_corpus(zoo, CLIPS, seed=3)
    motive = Terminal(work / "streams")
    words = ["curate", "--clips", str(zoo), "--queries", str(zoo), "--model", "tiny-wan", "--quiet"]
    words += ["--frames", "5", "--size", "32x32", "--dim", "64", "--fraction", "0.5"]
    finished = work / "finished"
    shutil.rmtree(finished, ignore_errors=True)
    motive(*words, "--out", finished).succeeded()  # the server is warm after it
    shutil.rmtree(finished)
    since = time.monotonic()
    motive(*words, "--out", finished).succeeded()
    calm = time.monotonic() - since
    total = {"local": calm}
    engines = ["local", "ray"] if engine == "both" else [engine]
    if "ray" in engines:
        since = time.monotonic()
        alone = Ray([*words, "--engine", "ray", "--out", str(work / "calm")], work / "ray.log")
        if alone.code() != 0:
            raise SystemExit(f"Ray does not run undisturbed:\n{alone.said()}")
        assert_like_undisturbed(work / "calm", finished)
        shutil.rmtree(work / "calm")
        total["ray"] = time.monotonic() - since
    log = work / "compared.jsonl"
    there = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    while sum(len(entry["kills"]) for entry in there) < kills:
        chance = random.Random(f"{seed} {len(there)}")
        name = chance.choice(engines)
        run = work / f"run-{len(there)}"
        shutil.rmtree(run, ignore_errors=True)
        mine = [*words, "--engine", name, "--out", str(run)]
        hits: list[Kill] = []
        while not hits or chance.random() < AGAIN:
            stages = lengths(finished, calm)
            stage = chance.choice(list(stages))
            before = dict(zip(stages, [None, *stages], strict=False))[stage]
            after = chance.uniform(0.0, stages[stage])
            victim = chance.choice(("driver", "worker", "both")) if name == "ray" else "driver"

            when = partial(wait_for, before, after, run)
            if name == "local":
                hit, outlived = strike_local(motive, mine, when), False
            else:
                hit, outlived = strike_ray(mine, work / "ray.log", when, victim, chance)
            if not hit:
                break  # it was done already: compared all the same
            hits.append(Kill(name, victim, stage_now(run, finished), round(after, 3), outlived))
        motive(*words, "--out", run).succeeded()
        assert_like_undisturbed(run, finished)
        shutil.rmtree(run)
        there.append({"kills": [asdict(hit) for hit in hits]})
        with log.open("a") as file:
            file.write(json.dumps(there[-1]) + "\n")
        print(f"{sum(len(entry['kills']) for entry in there)}/{kills} {hits}", flush=True)
    done = [entry for compared in there for entry in compared["kills"]]
    time.sleep(2.0)
    return {
        "kills": len(done),
        "runs_compared": len(there),
        "different": 0,  # a difference ends the campaign with its assertion
        "orphans": orphans(f"MOTIVE_KILLS={os.getpid()}"),
        "by_stage": dict(Counter(entry["stage"] for entry in done)),
        "by_victim": dict(Counter(f"{entry['engine']} {entry['victim']}" for entry in done)),
        "workers_outlived": sum(entry.get("outlived", False) for entry in done),
        "undisturbed_s": {name: round(seconds, 1) for name, seconds in total.items()},
        "seed": seed,
        "list": done,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--engine", choices=("local", "ray", "both"), default="local")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = given.work or Path(temporary)
        found = campaign(given.kills, given.engine, given.seed, work.resolve())
    print(json.dumps({k: v for k, v in found.items() if k != "list"}, indent=1))
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
