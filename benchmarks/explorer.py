"""The explorer over a run of a million clips: opening, sort, filter, search, pages, memory.

    python benchmarks/explorer.py --rows 1000000 --out explorer.json

Writes a synthetic run (rows, motion statistics and scores as a real one has them, the clips being a few
real files), starts `motive explore` on it as a user would, and asks it over HTTP. Every request is a new
one: no filter, search or page comes twice, so that nothing is answered from a cache of answers.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from motive.demo import MODEL
from motive.explorer.table_file import FOLDER
from motive.influence.score_file import write_score_file
from motive.influence.selection import rank_clips
from motive.motion.track import STATISTICS
from motive.pipeline import Run
from motive.runs.members import MADE_BY, SCHEMA
from motive.runs.tables import KEY_COLUMNS
from motive.zoo.render import render_corpus

WORDS = re.findall(
    r"\w+",
    """a the slow fast camera follows red blue old young dog horse woman man car train river city night
    running falling turning jumping waves smoke rain close wide shot of over under through towards""",
)
TARGET_MS = 200.0
TABLE = f"{FOLDER}/table.arrow"


def build_run(path: Path, rows: int, queries: int, seed: int = 0) -> None:
    """A run directory of `rows` clips, in the tables' own layout; one that is there is left as it is."""
    if (path / "selection.csv").is_file():
        return
    rng = np.random.default_rng(seed)
    media = path / "data"
    render_corpus(media, 14, seed=seed)
    run = Run.create(path, clips=str(media), queries=str(media), model=MODEL, compute__threads=1)
    ids = [f"{i:020x}" for i in np.sort(rng.choice(2**48, rows + queries, replace=False))]
    shuffled = rng.permutation(rows + queries)
    query_ids, clip_ids = [ids[i] for i in shuffled[:queries]], [ids[i] for i in shuffled[queries:]]
    captions = _captions(rng, rows)
    _write_members(run, media, query_ids, clip_ids, captions)
    _write_motion(run, rng, [*query_ids, *clip_ids])
    order = np.argsort(clip_ids)
    scores_qn = rng.normal(0, 0.1, (queries, rows)).astype(np.float32)
    ordered = [clip_ids[i] for i in order]
    write_score_file(
        path / "scores.parquet", scores_qn, sorted(query_ids), ordered, run.objective.to_json()
    )
    ranking = rank_clips(scores_qn, ordered, fraction=0.1, percentile=90.0)
    best = ranking.order
    names = [f"clips/{int(order[i]):07d}.mp4" for i in best]
    table = pa.table(
        {
            "rank": np.arange(1, rows + 1),
            "clip_id": [ordered[i] for i in best],
            "file_name": names,
            "caption": [captions[order[i]] for i in best],
            "votes": ranking.votes[best],
            "mean_score": np.round(ranking.mean_score[best], 8),
            "best_query": [f"queries/{q:03d}.mp4" for q in ranking.best_query[best]],
            "selected": ["true" if s else "false" for s in ranking.selected[best]],
        }
    )
    pa_csv.write_csv(table, path / "selection.csv")


def _captions(rng: np.random.Generator, rows: int) -> list[str]:
    chosen = rng.integers(0, len(WORDS), (rows, 11))
    return [" ".join(WORDS[w] for w in line) for line in chosen.tolist()]


def _write_members(
    run: Run, media: Path, query_ids: list[str], clip_ids: list[str], captions: list[str]
) -> None:
    from motive.clips.ingest import file_key

    files = sorted(media.rglob("*.mp4"))
    paths, keys = [str(f) for f in files], [file_key(f) for f in files]
    count, few = len(query_ids) + len(clip_ids), len(files)
    which = np.arange(count) % few
    table = pa.table(
        {
            "key": [f"query:{i}" for i in query_ids] + [f"clip:{i}" for i in clip_ids],
            "made_by": pa.DictionaryArray.from_arrays(
                pa.array(np.zeros(count, np.int32)), [MADE_BY]
            ).cast(pa.string()),
            "role": ["query"] * len(query_ids) + ["clip"] * len(clip_ids),
            "file_name": [f"queries/{i:03d}.mp4" for i in range(len(query_ids))]
            + [f"clips/{i:07d}.mp4" for i in range(len(clip_ids))],
            "path": pa.array(paths).take(pa.array(which)),
            "file": pa.array(keys).take(pa.array(which)),
            "caption": ["the motion that is wanted"] * len(query_ids) + captions,
            "caption_id": ["0"] * count,
            "extra": [json.dumps({"motion": f"m{i % 4}"}) for i in range(len(query_ids))]
            + ["{}"] * len(clip_ids),
            "clip_id": query_ids + clip_ids,
            "frames": pa.array(np.full(count, 17, np.int32)),
            "fps": pa.array(np.full(count, 16, np.float32)),
            "reason": [""] * count,
        },
        schema=pa.schema([*KEY_COLUMNS, *SCHEMA]),
    )
    _write(table, run.store.members.path)


def _write_motion(run: Run, rng: np.random.Generator, ids: list[str]) -> None:
    stage = run.plan.track_stage
    table = run.store.results(stage)
    one = np.arange(len(ids) + 1, dtype=np.int32)
    columns: dict[str, Any] = {"key": ids, "made_by": [stage.fingerprint()] * len(ids)}
    for field in table.schema:
        if field.name in STATISTICS:
            values = rng.gamma(2.0, 1.5, len(ids)).astype(np.float32)
            columns[field.name] = values / values.max() if "share" in field.name else values
        elif field.name == "shape":
            columns[field.name] = pa.ListArray.from_arrays(3 * one, np.ones(3 * len(ids), np.int32))
        elif pa.types.is_list(field.type):  # maps of one number: real ones would fill the disk
            columns[field.name] = pa.ListArray.from_arrays(one, np.ones(len(ids), np.float32))
        elif field.name not in columns:
            columns[field.name] = np.ones(len(ids), np.float32)
    _write(pa.table(columns, schema=table.schema), table.path)


def _write(table: pa.Table, path: Path) -> None:
    import lance

    path.parent.mkdir(parents=True, exist_ok=True)
    lance.write_dataset(table, str(path), mode="create")


class Server:
    """`motive explore` in a process of its own. opened_s: until the page and its first rows came."""

    def __init__(self, run: Path) -> None:
        self.client = httpx.Client(timeout=60)  # a browser that is open already
        start = time.perf_counter()
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "motive.cli",
                "explore",
                str(run),
                "--no-browser",
                "--port",
                "0",
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = next(line for line in self.process.stdout if "http://" in line)
        self.client.base_url = line[line.index("http://") :].strip()
        self.client.get("/").raise_for_status()
        self.client.get("/api/run").raise_for_status()
        self.client.get("/api/rows?offset=0&limit=100").raise_for_status()
        self.opened_s, self.opened_cpu_s = time.perf_counter() - start, self.cpu_s()

    def seconds(self, url: str) -> tuple[float, float]:
        """Of the answer, by the clock and of the server's processor time."""
        start, before = time.perf_counter(), self.cpu_s()
        self.client.get(url).raise_for_status()
        return time.perf_counter() - start, self.cpu_s() - before

    def cpu_s(self) -> float:
        """Processor time of all the server's threads so far, to a hundredth of a second."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def megabytes(self) -> tuple[float, float]:
        """Resident now, and at most so far."""
        found = {}
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in ("VmRSS", "VmHWM"):
                found[name] = int(value.split()[0]) / 1024
        return found["VmRSS"], found["VmHWM"]

    def close(self) -> None:
        self.client.close()
        self.process.terminate()
        self.process.wait(30)


def requests(
    rows: int, query_ids: list[str], rng: np.random.Generator
) -> dict[str, Callable[[], str]]:
    """A maker of new addresses for each kind of request."""
    columns = ["rank", "mean_score", "votes", *STATISTICS, "file_name", "caption", "best_query"]
    scores = [f"score:{query}" for query in query_ids]

    def any_of(values: list[str]) -> str:
        return values[rng.integers(len(values))]

    def bounds(low: float, high: float) -> list[float]:
        return sorted(rng.uniform(low, high, 2).tolist())

    def filtered() -> str:
        ranges = {
            "mean_speed": bounds(0, 12),
            "camera_share": bounds(0, 1),
            "mean_score": bounds(-0.1, 0.1),
        }
        chosen = dict(list(ranges.items())[: rng.integers(1, 4)])
        return quote(json.dumps({"ranges": chosen}))

    def text() -> str:
        words = " ".join(any_of(WORDS) for _ in range(rng.integers(1, 3)))
        return quote(
            json.dumps({"text": words, "ranges": {"mean_speed": [rng.uniform(0, 3), None]}})
        )

    def page(limit: int = 100) -> str:
        return f"offset={rng.integers(0, max(1, rows - limit))}&limit={limit}"

    def sort() -> str:
        return f"sort={any_of(columns)}&order={any_of(['asc', 'desc'])}"

    def score_sort() -> str:
        return f"sort={quote(any_of(scores))}&order={any_of(['asc', 'desc'])}"

    return {
        "page": lambda: f"/api/rows?{page()}",
        "sort": lambda: f"/api/rows?{sort()}&{page()}",
        "sort by a query's score": lambda: f"/api/rows?{score_sort()}&{page()}",
        "filter": lambda: f"/api/rows?filter={filtered()}&offset=0&limit=100",
        "filter and sort": lambda: f"/api/rows?{sort()}&filter={filtered()}&offset=0&limit=100",
        "caption search": lambda: f"/api/rows?filter={text()}&offset=0&limit=100",
        "histogram": lambda: (
            f"/api/histogram?column={any_of(['mean_score', *STATISTICS])}&filter={filtered()}"
        ),
    }


def measure_openings(run: Path, repeats: int) -> dict[str, dict[str, Any]]:
    """Seconds until the page has its first rows: without the table kept beside the run, and with it."""
    kept = run / TABLE
    found: dict[str, dict[str, Any]] = {
        kind: {"s": [], "cpu_s": []} for kind in ("without the kept table", "with it")
    }
    for _ in range(repeats):
        kept.unlink(missing_ok=True)
        for times in found.values():
            server = Server(run)
            try:
                times["s"].append(server.opened_s)
                times["cpu_s"].append(server.opened_cpu_s)
                while not kept.is_file():
                    time.sleep(0.2)
            finally:
                server.close()
    for times in found.values():
        times["median_s"] = float(np.median(times["s"]))
    return found


def measure(run: Path, rows: int, times: int, settle_s: float) -> dict[str, Any]:
    """settle_s: pause after the opening, as a person looks; 0 asks at once."""
    rng = np.random.default_rng(1)
    server = Server(run)
    try:
        query_ids = [q["id"] for q in server.client.get("/api/run").json()["queries"]]
        time.sleep(settle_s)
        kinds = requests(rows, query_ids, rng)
        taken: dict[str, list[float]] = {kind: [] for kind in kinds}
        order = [kind for kind in kinds for _ in range(times)]
        rng.shuffle(order)
        cpu = dict.fromkeys(kinds, 0.0)
        for kind in order:
            seconds, cpu_s = server.seconds(kinds[kind]())
            taken[kind].append(1000 * seconds)
            cpu[kind] += 1000 * cpu_s / times
        resident, peak = server.megabytes()
        everything = np.concatenate([np.array(values) for values in taken.values()])
        return {
            "rows": rows,
            "cores": len(os.sched_getaffinity(0)),
            "load": os.getloadavg()[0],
            "settle_s": settle_s,
            "resident_mb": resident,
            "peak_mb": peak,
            "ms": {kind: _summary(np.array(values)) for kind, values in taken.items()},
            "all_ms": _summary(everything),
            "mean_cpu_ms": cpu,
        }
    finally:
        server.close()


def _summary(values_ms: np.ndarray) -> dict[str, float]:
    names = {"p50": 50, "p95": 95, "max": 100}
    return {n: float(np.percentile(values_ms, p)) for n, p in names.items()} | {
        "count": len(values_ms)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=10)
    parser.add_argument("--times", type=int, default=60, help="requests of each kind")
    parser.add_argument(
        "--settle", type=float, default=0.0, help="seconds between opening and asking"
    )
    parser.add_argument("--openings", type=int, default=7, help="of each kind; the median counts")
    parser.add_argument("--run", type=Path, default=Path("explorer-run"))
    parser.add_argument("--out", type=Path, default=Path("explorer.json"))
    given = parser.parse_args()
    build_run(given.run, given.rows, given.queries)
    openings = measure_openings(given.run, given.openings)
    found = {"openings": openings, **measure(given.run, given.rows, given.times, given.settle)}
    given.out.write_text(json.dumps(found, indent=1) + "\n")
    print(f"{'request':<26}{'p50 ms':>9}{'p95 ms':>9}{'max ms':>9}{'mean CPU ms':>13}")
    for kind, row in [*found["ms"].items(), ("all", found["all_ms"])]:
        cpu = found["mean_cpu_ms"].get(kind, float("nan"))
        print(f"{kind:<26}{row['p50']:>9.1f}{row['p95']:>9.1f}{row['max']:>9.1f}{cpu:>13.1f}")
    for kind, opened in openings.items():
        print(
            f"opened {kind} in {opened['median_s']:.2f} s, the median of {given.openings} "
            f"({min(opened['s']):.2f} to {max(opened['s']):.2f} s; "
            f"{np.median(opened['cpu_s']):.2f} s of processor time)"
        )
    print(
        f"{found['resident_mb']:.0f} MB resident, {found['peak_mb']:.0f} MB at most; "
        f"load average {found['load']:.1f} on {found['cores']} cores"
    )
    print("within 200 ms" if found["all_ms"]["p95"] < TARGET_MS else "NOT within 200 ms")


if __name__ == "__main__":
    main()
