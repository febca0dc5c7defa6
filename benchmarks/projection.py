"""The price of the projection: Fastfood over a whole model's gradient, in units of reading it once.

    python benchmarks/projection.py --shapes wan2.1-1.3b [--dim 512] [--threads N] [--json FILE]
                                    [--peers-python PATH]

Every tensor of the model's gradient exists, with its own random float32 numbers (5.7 GB for
Wan2.1-1.3B). In turn, several times over: one `torch.sum` of every tensor, and one projection of
them all. `ratio_to_sum` is the ratio of the two medians. Then all kinds of projection on one tensor
of a size that a dense projection can be had of. Beside it, at that size, the CPU projectors of TRAK
(`traker`) and dattri, by a Python that has them (`--peers-python`: their requirements need not agree
with ours; `python -m venv peers && peers/bin/pip install torch traker dattri`), per number of the
gradient: with the whole matrix kept, which is their fastest, and with their default blocks.
"""

import argparse
import functools
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from motive.gradients.projection import FastfoodProjection, Projection, make_projection

WAN_1_3B_NUMBERS = 1_418_996_800
WAN_1_3B_TENSORS = 825


def wan_1_3b_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the parameters of Wan2.1-T2V-1.3B, from diffusers itself."""
    from diffusers import WanTransformer3DModel

    with torch.device("meta"):
        transformer = WanTransformer3DModel(
            patch_size=(1, 2, 2),
            num_attention_heads=12,
            attention_head_dim=128,
            in_channels=16,
            out_channels=16,
            text_dim=4096,
            freq_dim=256,
            ffn_dim=8960,
            num_layers=30,
            cross_attn_norm=True,
            qk_norm="rms_norm_across_heads",
        )
    shapes = {name: tuple(p.shape) for name, p in transformer.named_parameters()}
    numbers = sum(p.numel() for p in transformer.parameters())
    if (numbers, len(shapes)) != (WAN_1_3B_NUMBERS, WAN_1_3B_TENSORS):
        sys.exit(f"not Wan2.1-1.3B: {numbers:,} numbers in {len(shapes)} tensors")
    return shapes


SHAPES: dict[str, Callable[[], dict[str, tuple[int, ...]]]] = {"wan2.1-1.3b": wan_1_3b_shapes}


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def process_memory(field: str) -> int:
    """A field of /proc/self/status in bytes: VmRSS (resident now), VmHWM (its high-water mark)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise ValueError(field)


def extra_memory(work: Callable[[], object]) -> int | None:
    """Bytes by which `work` raises the resident memory at its peak; None where Linux is not."""
    try:
        Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
    except OSError:
        return None
    before = process_memory("VmRSS")
    work()
    return process_memory("VmHWM") - before


def measure_ours(shapes: dict[str, tuple[int, ...]], dim: int, repeats: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    gradients = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    projection = FastfoodProjection(dim, seed=0, shapes=shapes, fold=65_536)
    some = dict(list(shapes.items())[:20])
    warm = FastfoodProjection(dim, seed=0, shapes=some, fold=65_536)

    def project(projection: FastfoodProjection, names: dict[str, tuple[int, ...]]) -> None:
        projection.begin()
        for name in names:
            projection.add(name, gradients[name])
        projection.finish()

    def read() -> None:
        for gradient in gradients.values():
            gradient.sum()

    project(warm, some)  # compiles
    read()
    extra_bytes = extra_memory(lambda: project(projection, shapes))
    sums, projections = [], []
    for _ in range(repeats):
        sums.append(seconds(read))
        projections.append(seconds(lambda: project(projection, shapes)))
    numbers = sum(gradient.numel() for gradient in gradients.values())
    sum_seconds, projection_seconds = statistics.median(sums), statistics.median(projections)
    return {
        "tensors": len(shapes),
        "numbers": numbers,
        "sum_seconds": sum_seconds,
        "sum_seconds_all": sums,
        "projection_seconds": projection_seconds,
        "projection_seconds_all": projections,
        "ratio_to_sum": projection_seconds / sum_seconds,
        # On a busy machine the shortest times are the ones that were disturbed least.
        "ratio_to_sum_of_shortest": min(projections) / min(sums),
        "projection_ns_per_number": 1e9 * projection_seconds / numbers,
        "gigabytes_per_second": 4e-9 * numbers / projection_seconds,
        "extra_bytes": extra_bytes,
        "state_bytes": projection.nbytes,
    }


def measure_kinds(size: int, dim: int, repeats: int) -> dict[str, Any]:
    """Every kind on one square gradient of about `size` numbers."""
    side = round(size**0.5)
    gradient = torch.randn(side, side)

    def project(projection: Projection) -> None:
        projection.begin()
        projection.add("w", gradient)
        projection.finish()

    results = {}
    projection: Any  # of its own kind: the state's size is not part of the interface
    for kind in ("fastfood", "countsketch", "rademacher", "factored"):
        projection = make_projection(kind, dim, 0, {"w": (side, side)})
        project(projection)  # compiles
        run = functools.partial(project, projection)
        median = statistics.median(seconds(run) for _ in range(repeats))
        results[kind] = {
            "numbers": gradient.numel(),
            "seconds": median,
            "ns_per_number": 1e9 * median / gradient.numel(),
            "state_bytes": projection.nbytes,
        }
    return results


PEERS = ("TRAK", "dattri")


def measure_peers(
    python: Path | None, size: int, dim: int, threads: int, repeats: int, our_ns: float
) -> dict[str, Any]:
    """What `projection_peers.py` measures, as multiples of ours; a sentence for a missing peer."""
    if python is None:
        missing = "not measured: give the Python of an environment that has it by --peers-python"
        return dict.fromkeys(PEERS, missing)
    script = Path(__file__).with_name("projection_peers.py")
    sizes = {"size": size, "dim": dim, "threads": threads, "repeats": repeats}
    arguments = [text for name, value in sizes.items() for text in (f"--{name}", str(value))]
    done = subprocess.run(
        [str(python), str(script), *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return dict.fromkeys(PEERS, f"not measured: {python} ended with {last}")
    results: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    for result in results.values():
        if isinstance(result, dict):
            for configuration in result["configurations"]:
                configuration["times_ours"] = configuration["ns_per_number"] / our_ns
    return results


def print_table(report: dict[str, Any]) -> None:
    print(
        f"{report['shapes']}: {report['numbers']:,} numbers in {report['tensors']} tensors to "
        f"{report['dim']}, {report['threads']} threads, load {report['load_before']:.1f} before"
    )
    print(f"  one torch.sum          {report['sum_seconds']:8.3f} s")
    print(
        f"  fold + Fastfood        {report['projection_seconds']:8.3f} s"
        f"   {report['gigabytes_per_second']:.1f} GB/s"
    )
    print(
        f"  ratio                  {report['ratio_to_sum']:8.2f}"
        f"     of the shortest times: {report['ratio_to_sum_of_shortest']:.2f}"
    )
    extra = report["extra_bytes"]
    print(
        f"  extra memory           {'not measured' if extra is None else f'{extra / 1e6:8.2f} MB'}"
    )
    print(f"  state                  {report['state_bytes'] / 1e6:8.2f} MB")
    print("one gradient of a million numbers, by kind")
    for kind, result in report["kinds"].items():
        print(
            f"  {kind:<12} {1e3 * result['seconds']:8.2f} ms  {result['ns_per_number']:7.2f} "
            f"ns per number  state {result['state_bytes'] / 1e6:.2f} MB"
        )
    print(f"peers, per number; ours {report['projection_ns_per_number']:.3f} ns")
    for peer, result in report["peers"].items():
        if isinstance(result, str):
            print(f"  {peer}: {result}")
            continue
        for c in result["configurations"]:
            how = "matrix kept" if c["matrix_kept"] else f"blocks of {c['block']}"
            print(
                f"  {peer} {result['version']}, {c['type']}, {how} "
                f"({c['matrix_bytes'] / 1e9:.1f} GB), batch {c['batch']}: "
                f"{c['ns_per_number']:.1f} ns, {c['times_ours']:.0f} x ours"
            )
    if report["least_times_ours"] is not None:
        print(f"  the fastest of these takes {report['least_times_ours']:.0f} x ours")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", choices=SHAPES, default="wan2.1-1.3b")
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--peer-size", type=int, default=2**20, help="numbers given to the peers")
    parser.add_argument("--peers-python", type=Path, help="an interpreter that has the peers")
    parser.add_argument("--json", type=Path, help="write all figures here")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    report: dict[str, Any] = {
        "shapes": options.shapes,
        "dim": options.dim,
        "threads": options.threads,
    }
    report["load_before"] = os.getloadavg()[0]
    report |= measure_ours(SHAPES[options.shapes](), options.dim, options.repeats)
    report["kinds"] = measure_kinds(options.peer_size, options.dim, options.repeats)
    report["peers"] = measure_peers(
        options.peers_python,
        options.peer_size,
        options.dim,
        options.threads,
        options.repeats,
        report["projection_ns_per_number"],
    )
    times = [
        configuration["times_ours"]
        for result in report["peers"].values()
        if isinstance(result, dict)
        for configuration in result["configurations"]
    ]
    report["least_times_ours"] = min(times, default=None)
    print_table(report)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
