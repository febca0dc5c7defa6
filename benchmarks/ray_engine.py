"""What Ray adds and what it costs: two workers on this machine against one local process.

    python benchmarks/ray_engine.py [--clips 100] [--rows 2000] [--workers 2] [--json FILE]

A corpus of MotionZoo clips (33 frames of 64 x 64) goes through DIS and `tiny-wan`, once in one local process
with one thread and once through a Ray cluster of this machine, every worker with one thread. Each engine
runs in a process of its own. Of each stage: `start`, from its beginning until the first clip is done
(imports, workers, models); `clips_per_s` after that; and the whole time. `empty` is a stage that does
nothing: what a row costs, handed out, handed back and committed. `init` is the start of the cluster. Features
must be equal bit for bit. All times are of the clock, which other programs disturb: the load stands beside
them.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_worker_niceness", "0")  # as the local engine; Ray's own choice is 15

import pyarrow as pa

from motive.runs.progress import Progress
from motive.runs.stage import Stage
from motive.runs.store import Store
from motive.runs.tables import Row
from motive.runs.wanted import Wanted

STAGES = ("ingest", "track", "encode", "encode text", "gradients")


class Clock(Progress):
    """When each stage began, had its first clip done, and its last."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.stages: dict[str, dict[str, float]] = {}

    @contextmanager
    def stage(self, name: str, total: int) -> Iterator[Callable[[str], None]]:
        begun, done = time.monotonic(), []
        yield lambda item: done.append(time.monotonic())
        if done:
            first, last = done[0], done[-1]
            after = sum(t > first for t in done)
            self.stages[name] = {
                "clips": len(done),
                "start": round(first - begun, 2),
                "clips_per_s": round(after / (last - first), 2) if last > first else float("nan"),
                "whole": round(time.monotonic() - begun, 2),
            }


class Empty(Stage):
    """Gives a number for a number."""

    name, table, schema = "empty", "empty", pa.schema([("number", pa.int64())])

    def fingerprint(self) -> str:
        return "empty"

    def process(self, row: Row) -> Row:
        return {"number": row["number"]}


def measure(engine: str, folder: Path, rows: int, workers: int) -> dict[str, Any]:
    """One engine over the corpus in `folder`."""
    from motive.pipeline import Run
    from motive.runs.engine import make_engine

    found: dict[str, Any] = {}
    if engine == "ray":
        import ray

        since = time.monotonic()
        ray.init(
            address="local", num_cpus=workers, include_dashboard=False, log_to_driver=False,
            logging_level="ERROR", object_store_memory=200 * 2**20,
        )  # fmt: skip
        found["init"] = round(time.monotonic() - since, 2)
    clock = Clock()
    run = Run.create(
        folder / engine,
        progress=clock,
        clips=str(folder / "corpus"),
        queries=str(folder / "queries"),
        model="tiny-wan",
        sampling__frames=33,
        compute__engine=engine,
        compute__device="cpu",
        compute__threads=1,
        compute__decoders=1 if engine == "local" else None,
    )
    for stage in ("ingest", "track", "encode", "gradients"):
        getattr(run, stage)()
    (folder / f"{engine}-empty").mkdir()
    store = Store(folder / f"{engine}-empty", make_engine(engine))
    wanted = {f"{n:09d}": {"key": f"{n:09d}", "number": n} for n in range(rows)}
    store.work(Empty(), Wanted.of(wanted), clock)
    found["stages"] = clock.stages
    features = run.features("clip")
    found["features"] = {
        m.feature_key: f.tobytes().hex()
        for m, f in zip(features.members, features.features_nd, strict=True)
    }
    return found


def alone(engine: str, folder: Path, rows: int, workers: int) -> dict[str, Any]:
    """`measure` in a process of its own."""
    words = [sys.executable, __file__, "--part", engine, "--folder", str(folder)]
    words += ["--rows", str(rows), "--workers", str(workers)]
    subprocess.run(words, check=True)
    return json.loads((folder / f"{engine}.json").read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--part", choices=("local", "ray"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part:
        found = measure(given.part, given.folder, given.rows, given.workers)
        (given.folder / f"{given.part}.json").write_text(json.dumps(found))
        return
    from motive.zoo.render import render_corpus

    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="ray-bench-") as text:
        folder = Path(text)
        render_corpus(folder / "corpus", given.clips, seed=0, lengths=(33,))
        render_corpus(folder / "queries", 2, seed=1, lengths=(33,))
        local, on_ray = (alone(e, folder, given.rows, given.workers) for e in ("local", "ray"))
    same = local.pop("features") == on_ray.pop("features")
    print(
        f"load {load:.1f} before, {os.getloadavg()[0]:.1f} after; cluster started in {on_ray['init']} s"
    )
    print(
        f"{'stage':<12} {'local: start':>12} {'clips/s':>8} {'ray: start':>11} {'clips/s':>8} {'ratio':>6}"
    )
    for name in (*STAGES, "empty"):
        mine, theirs = local["stages"][name], on_ray["stages"][name]
        ratio = theirs["clips_per_s"] / mine["clips_per_s"]
        print(
            f"{name:<12} {mine['start']:>12.2f} {mine['clips_per_s']:>8.2f} "
            f"{theirs['start']:>11.2f} {theirs['clips_per_s']:>8.2f} {ratio:>6.2f}"
        )
    empty = 1000 / on_ray["stages"]["empty"]["clips_per_s"]
    print(f"a row that costs nothing: {empty:.2f} ms by Ray; features equal bit for bit: {same}")
    if given.json:
        report = {
            "clips": given.clips, "rows": given.rows, "workers": given.workers, "load": load,
            "local": local, "ray": on_ray, "features_equal": same, "cores": os.cpu_count(),
        }  # fmt: skip
        given.json.write_text(json.dumps(report, indent=1) + "\n")
    if not same:
        sys.exit("the features differ")


if __name__ == "__main__":
    main()
