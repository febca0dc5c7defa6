"""A run of a million clips, stage by stage: seconds and peak memory of each command, and how they grow.

    python benchmarks/million.py --rows 10000 100000 1000000 --json million.json

Makes a run directory whose tables hold what ingest, tracking, encoding and gradients would have left
(synthetic rows in the stages' own layouts, 512 numbers a feature; the files are hard links to a few real
clips), and works on it with the product's own commands, each in a process of its own. Those of the first
four stages find out that nothing is to be done: that is the bookkeeping which every restart of a large
run pays. What grows with the clips by a power p is fitted over the sizes from 10,000 up; 1 is linear.

A million clips take some 5 GB of disk in --work while they are measured; --keep leaves them there.
"""

import argparse
import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

FITTED_FROM = 10_000
MOTIVE = [sys.executable, "-m", "motive.cli"]


def commands(run: Path) -> dict[str, list[str]]:
    """What is measured, in this order."""
    at = str(run)
    return {
        **{f"{s}, nothing to do": [s, at] for s in ("ingest", "track", "encode", "gradients")},
        "score": ["score", at],
        "vote and select": ["select", at],
        "report": ["report", at],
        "export of the best 10% as links": [
            *("export", at, "--format", "videofolder", "--link", "--out", f"{at}-export")
        ],
        "info": ["info", at, "--json"],
        "curate of the finished run": ["run", f"{at}/run.yaml", "--quiet"],
        "check": ["check", at],
    }


def measure(words: list[str]) -> dict[str, float]:
    """One command in a process of its own: seconds, processor seconds and peak resident megabytes."""
    start = time.perf_counter()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen([*MOTIVE, *words], stdout=output, stderr=subprocess.STDOUT)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            raise SystemExit(f"motive {' '.join(words)}: {output.read().decode()[-2000:]}")
    return {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "peak_mb": used.ru_maxrss / 1024,
    }


def measure_explorer(run: Path, rows: int) -> dict[str, dict[str, float]]:
    """The opening, and a query of any kind: its mean processor time, and the clock's 95th percentile."""
    made = Path(f"{run}-explorer.json")
    words = ["--run", str(run), "--rows", str(rows), "--openings", "1", "--times", "10"]
    script = Path(__file__).parent / "explorer.py"
    subprocess.run(
        [sys.executable, str(script), *words, "--out", str(made)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    found = json.loads(made.read_text())
    opened = {
        f"explorer opens {kind}": {
            "seconds": values["median_s"],
            "cpu_seconds": values["cpu_s"][0],
            "peak_mb": found["peak_mb"],
        }
        for kind, values in found["openings"].items()
    }
    cpu = found["mean_cpu_ms"].values()
    asked = {
        "seconds": found["all_ms"]["p95"] / 1000,
        "cpu_seconds": sum(cpu) / len(cpu) / 1000,
        "peak_mb": found["peak_mb"],
    }
    return {**opened, "explorer query (95th percentile)": asked}


def exponent(sizes: list[int], seconds: list[float]) -> float | None:
    """p of the power law seconds ~ sizes^p, by least squares of the logarithms; None for one size."""
    if len(sizes) < 2:
        return None
    x, y = [math.log(size) for size in sizes], [math.log(s) for s in seconds]
    return statistics.linear_regression(x, y).slope


def known_commands() -> set[str]:
    answer = subprocess.run([*MOTIVE, "--help"], capture_output=True, text=True, check=True)
    return {words[0].strip("│ ") for line in answer.stdout.splitlines() if (words := line.split())}


def measure_size(rows: int, folder: Path, say: Any = print) -> dict[str, dict[str, float]]:
    """All steps of one size. folder: is made, and holds what was measured."""
    folder.mkdir(parents=True)
    # In a process of its own, and this one stays small: what a process holds when it starts another
    # counts as the other's peak. So nothing of motive is imported here.
    maker = Path(__file__).with_name("million_run.py")
    subprocess.run([sys.executable, str(maker), str(folder), str(rows)], check=True)
    found = {}
    known = known_commands()
    for step, words in commands(folder / "run").items():
        if words[0] in known:
            found[step] = measure(words)
            say(f"{rows:>10,} {step:<34}{_row(found[step])}", flush=True)
    for step, values in measure_explorer(folder / "run", rows).items():
        found[step] = values
        say(f"{rows:>10,} {step:<34}{_row(values)}", flush=True)
    return found


def _row(values: dict[str, float]) -> str:
    return f"{values['seconds']:>9.2f} s{values['cpu_seconds']:>9.2f} CPU s{values['peak_mb']:>8.0f} MB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--json", type=Path, default=Path("million.json"))
    parser.add_argument("--work", type=Path, default=Path("million-work"), help="a new folder")
    parser.add_argument("--keep", action="store_true", help="leave the runs in --work")
    given = parser.parse_args()
    found: dict[str, Any] = {"cores": len(os.sched_getaffinity(0)), "sizes": {}}
    for rows in given.rows:
        folder = given.work / str(rows)
        try:
            found["sizes"][rows] = measure_size(rows, folder)
        finally:
            if not given.keep:
                shutil.rmtree(folder, ignore_errors=True)
        found["load"] = os.getloadavg()[0]
        found["growth"] = growth(found["sizes"])
        given.json.write_text(json.dumps(found, indent=1) + "\n")
    print(f"{'step':<34}{'time grows by':>15}{'bytes a clip':>15}")
    for step, values in found["growth"].items():
        power = "-" if values["exponent"] is None else f"n^{values['exponent']:.2f}"
        print(f"{step:<34}{power:>15}{values['bytes_per_clip']:>15,.0f}")


def growth(sizes: dict[int, dict[str, dict[str, float]]]) -> dict[str, dict[str, Any]]:
    """Of each step: the exponent of its processor time, and the memory that each further clip takes."""
    large = sorted(n for n in sizes if n >= FITTED_FROM)
    found: dict[str, dict[str, Any]] = {}
    for step in sizes[large[-1]] if large else {}:
        steps = [sizes[n][step] for n in large]
        more = steps[-1]["peak_mb"] - steps[0]["peak_mb"]
        found[step] = {
            "exponent": exponent(large, [s["cpu_seconds"] for s in steps]),
            "bytes_per_clip": more * 2**20 / (large[-1] - large[0]) if len(large) > 1 else 0.0,
        }
    return found


if __name__ == "__main__":
    main()
