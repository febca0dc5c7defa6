"""The price of scoring: a store of features read, scored, voted on and ranked, in units of the bare
matrix product over the same features already in memory.

    python benchmarks/scoring.py --clips 1000000 --queries 50 [--threads 2] [--dir D] [--json FILE]

The store is made first, once: random unit features in a Lance table with the columns of a run's.
Then, in turn, several times over, each in a process of its own that is held to the same `--threads`
cores: ours, from the store on the disk (or in the system's cache of it) to the ranking; and over a
float32 array in memory the product in NumPy, in torch, and FAISS's flat index, which finds the top
100 clips of each query. `ratio_to_matmul` is our median over that of the faster product, and
`cpu_ratio_to_matmul` the same of processor seconds, which other programs on the machine disturb less.
"""

import argparse
import importlib.util
import json
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

DIM = 512
MADE_BY = "benchmark"
FAISS_TOP = 100
_BLOCK = 10_000  # clips made at a time
# The feature column's type, and the version of Lance's file format (None: Lance's own choice).
STORAGE = {
    "list": (pa.list_(pa.float32()), None),
    "list-2.0": (pa.list_(pa.float32()), "2.0"),
    "fixed": (pa.list_(pa.float32(), DIM), None),
    "half": (pa.list_(pa.float16(), DIM), None),
}


def unit_features(count: int, seed: int) -> np.ndarray:
    features = np.random.default_rng(seed).standard_normal((count, DIM), dtype=np.float32)
    return features / np.linalg.norm(features, axis=1, keepdims=True)


def blocks(clips: int) -> Iterator[tuple[int, np.ndarray]]:
    for start in range(0, clips, _BLOCK):
        yield start, unit_features(min(_BLOCK, clips - start), seed=start + 1)


def clip_id(number: int) -> str:
    return f"{number:020x}"


def make_store(path: Path, clips: int, storage: str) -> float | None:
    """Seconds that the writing took; None for a store that was there."""
    import lance

    from motive.runs.tables import KEY_COLUMNS

    if path.exists():
        return None
    kind, version = STORAGE[storage]
    schema = pa.schema([*KEY_COLUMNS, ("feature", kind), ("norm", pa.float64())])

    def batches() -> Iterator[pa.RecordBatch]:
        for start, features in blocks(clips):
            count = len(features)
            numbers = pa.array(features.astype(kind.value_type.to_pandas_dtype()).ravel())
            if storage.startswith("list"):
                offsets = np.arange(0, features.size + 1, DIM, dtype=np.int32)
                column = pa.ListArray.from_arrays(pa.array(offsets), numbers)
            else:
                column = pa.FixedSizeListArray.from_arrays(numbers, DIM)
            keys = pa.array([clip_id(start + i) for i in range(count)])
            columns = [keys, pa.array([MADE_BY] * count), column, pa.array(np.ones(count))]
            yield pa.record_batch(columns, schema=schema)

    begun = time.perf_counter()
    part = path.with_suffix(".part")
    reader = pa.RecordBatchReader.from_batches(schema, batches())
    lance.write_dataset(reader, str(part), data_storage_version=version)
    part.rename(path)
    return time.perf_counter() - begun


def ours(options: argparse.Namespace, store: Path) -> Callable[[], dict[str, Any]]:
    from motive.influence.scores import score_table
    from motive.influence.selection import rank_clips
    from motive.runs.tables import Table

    table = Table(store, pa.schema([]))
    queries = unit_features(options.queries, seed=0)
    clip_ids = [clip_id(i) for i in range(options.clips)]
    score_table(Table(store / "absent", pa.schema([])), MADE_BY, queries).close()
    from motive.influence.scores import influence

    influence(queries, queries)  # loads the kernel, or compiles it

    def work() -> dict[str, Any]:
        begun = time.perf_counter()
        with score_table(
            table, MADE_BY, queries, folder=store.parent, threads=options.threads
        ) as scores:
            scored = time.perf_counter()
            ranking = rank_clips(
                scores.rows(clip_ids),
                clip_ids,
                fraction=0.1,
                percentile=90.0,
                threads=options.threads,
            )
        ranked = time.perf_counter()
        return {
            "read_and_score_seconds": scored - begun,
            "votes_and_ranking_seconds": ranked - scored,
            "best": int(ranking.order[0]),
            "votes_of_best": int(ranking.votes[ranking.order[0]]),
            "selected": int(ranking.selected.sum()),
        }

    return work


def files(options: argparse.Namespace, store: Path) -> Callable[[], dict[str, Any]]:
    """What `motive score` and `motive select` do beyond: `scores.parquet` written, read, ranked."""
    from motive.influence.score_file import ScoreFile, write_score_file
    from motive.influence.scores import score_table
    from motive.influence.selection import rank_clips
    from motive.runs.tables import Table

    queries = unit_features(options.queries, seed=0)
    clip_ids = [clip_id(i) for i in range(options.clips)]
    query_ids = [f"query {i}" for i in range(options.queries)]
    path = store.parent / f"scores-{os.getpid()}.parquet"

    def work() -> dict[str, Any]:
        table = Table(store, pa.schema([]))
        with score_table(
            table, MADE_BY, queries, folder=store.parent, threads=options.threads
        ) as scores:
            begun = time.perf_counter()
            write_score_file(path, scores.rows(clip_ids), query_ids, clip_ids, "{}")
        written = time.perf_counter()
        file = ScoreFile(path)
        rank_clips(
            file.rows(), file.clip_ids, fraction=0.1, percentile=90.0, threads=options.threads
        )
        result = {
            "write_seconds": written - begun,
            "read_and_rank_seconds": time.perf_counter() - written,
            "bytes": path.stat().st_size,
        }
        path.unlink()
        return result

    return work


def in_memory(options: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
    clips_nd = np.empty((options.clips, DIM), np.float32)
    for start, features in blocks(options.clips):
        clips_nd[start : start + len(features)] = features
    return clips_nd, unit_features(options.queries, seed=0)


def numpy_product(options: argparse.Namespace, store: Path) -> Callable[[], dict[str, Any]]:
    clips_nd, queries_qd = in_memory(options)
    scores_qn = np.empty((options.queries, options.clips), np.float32)

    def work() -> dict[str, Any]:
        np.matmul(queries_qd, clips_nd.T, out=scores_qn)
        return {}

    return work


def torch_product(options: argparse.Namespace, store: Path) -> Callable[[], dict[str, Any]]:
    import torch

    torch.set_num_threads(options.threads)
    clips_nd, queries_qd = (torch.from_numpy(features) for features in in_memory(options))
    scores_nq = torch.empty(options.clips, options.queries)

    def work() -> dict[str, Any]:
        torch.mm(clips_nd, queries_qd.T, out=scores_nq)
        return {}

    return work


def faiss_search(options: argparse.Namespace, store: Path) -> Callable[[], dict[str, Any]]:
    import faiss  # type: ignore[import-not-found]

    faiss.omp_set_num_threads(options.threads)
    index, queries_qd = faiss.IndexFlatIP(DIM), unit_features(options.queries, seed=0)
    for _, features in blocks(options.clips):
        index.add(features)

    def work() -> dict[str, Any]:
        index.search(queries_qd, FAISS_TOP)
        return {}

    return work


WORKS = {
    "ours": ours,
    "numpy": numpy_product,
    "torch": torch_product,
    "faiss": faiss_search,
    "files": files,
}


def serve(name: str, options: argparse.Namespace, store: Path, pipe: Connection) -> None:
    """Do the work once to warm up, then as often as asked, answering with what it took."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    work = WORKS[name](options, store)
    work()
    pipe.send("ready")
    while pipe.recv():
        cpu, begun = time.process_time(), time.perf_counter()
        details = work()
        seconds = time.perf_counter() - begun
        pipe.send({"seconds": seconds, "cpu_seconds": time.process_time() - cpu, **details})
    pipe.send({"peak_bytes": peak_memory()})


def peak_memory() -> int:
    """VmHWM, the high-water mark of this process's resident memory."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def measure(options: argparse.Namespace, names: list[str], store: Path) -> dict[str, Any]:
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = str(options.threads)
    context = multiprocessing.get_context("spawn")
    pipes, processes = {}, []
    for name in names:
        pipes[name], theirs = context.Pipe()
        process = context.Process(target=serve, args=(name, options, store, theirs), daemon=True)
        process.start()
        theirs.close()  # so that the end of a process that fails ends the waiting
        processes.append(process)
        pipes[name].recv()  # one after another, so that none warms up against another
    results: dict[str, Any] = {name: {"all": []} for name in names}
    for _ in range(options.repeats):
        for name in names:
            pipes[name].send(True)
            results[name]["all"].append(pipes[name].recv())
    for name in names:
        pipes[name].send(False)
        results[name] |= pipes[name].recv()
        for key, value in results[name]["all"][0].items():
            values = [repeat[key] for repeat in results[name]["all"]]
            results[name][key] = statistics.median(values) if "seconds" in key else value
    for process in processes:
        process.join()
    return results


def print_table(report: dict[str, Any]) -> None:
    print(
        f"{report['clips']:,} clips x {report['queries']} queries x {DIM}, stored as "
        f"{report['storage']}, {report['threads']} threads, medians of {report['repeats']}; "
        f"load {report['load_before']:.1f} before, {report['load_after']:.1f} after"
    )
    made = report["store_seconds"]
    print(f"  store               {'was there' if made is None else f'made in {made:.1f} s'}")
    for name in WORKS:
        result = report[name]
        if isinstance(result, str):
            print(f"  {name:<19} {result}")
            continue
        print(
            f"  {name:<19} {result['seconds']:8.3f} s  {result['cpu_seconds']:8.3f} s of processor"
            f"  {result['peak_bytes'] / 1e6:8.0f} MB peak"
        )
        for part in ("read_and_score", "votes_and_ranking", "write", "read_and_rank"):
            if f"{part}_seconds" in result:
                print(f"    {part.replace('_', ' '):<17} {result[f'{part}_seconds']:8.3f} s")
    print(f"  ratio to matmul     {report['ratio_to_matmul']:8.2f}")
    print(f"  of processor time   {report['cpu_ratio_to_matmul']:8.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=" ".join(__doc__.split("\n\n")[0].split()))
    parser.add_argument("--clips", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=50)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--storage", choices=STORAGE, default="fixed", help="of features; runs write fixed"
    )
    parser.add_argument("--dir", type=Path, help="where the store is made, or was (default: temp)")
    parser.add_argument("--json", type=Path, help="write all figures here")
    options = parser.parse_args()
    names = ["ours", "numpy", "torch"]
    report: dict[str, Any] = {
        name: getattr(options, name)
        for name in ("clips", "queries", "threads", "repeats", "storage")
    }
    if importlib.util.find_spec("faiss"):
        names.append("faiss")
    else:
        report["faiss"] = "missing: pip install faiss-cpu"
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.dir or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        store = folder / f"features-{options.clips}-{options.storage}.lance"
        report["store_seconds"] = make_store(store, options.clips, options.storage)
        report["load_before"] = os.getloadavg()[0]
        report |= measure(options, names, store)
        report["load_after"] = os.getloadavg()[0]
        once = argparse.Namespace(**{**vars(options), "repeats": 1})
        report |= measure(once, ["files"], store)
    for figure, ratio in (("seconds", "ratio_to_matmul"), ("cpu_seconds", "cpu_ratio_to_matmul")):
        fastest = min(report[product][figure] for product in ("numpy", "torch"))
        report[ratio] = report["ours"][figure] / fastest
    print_table(report)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
