"""The price of the projection: Fastfood over a whole model's gradient, in units of reading it once.

    python benchmarks/projection.py --shapes wan2.1-1.3b [--dim 512] [--threads N] [--json FILE]

Every tensor of the model's gradient exists, with its own random float32 numbers (5.7 GB for
Wan2.1-1.3B). In turn, several times over: one `torch.sum` of every tensor, and one projection of
them all. `ratio_to_sum` is the ratio of the two medians. Beside it, the CPU projectors of TRAK
(`traker`) and dattri, where installed, at a size whose dense matrix fits, per number of the
gradient: with the matrix cached, which is their best, and with their default blocks.
"""

import argparse
import importlib
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from motive.gradients.projection import FastfoodProjection

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
        "projection_ns_per_number": 1e9 * projection_seconds / numbers,
        "gigabytes_per_second": 4e-9 * numbers / projection_seconds,
        "extra_bytes": extra_bytes,
        "state_bytes": projection.nbytes,
    }


def measure_peer(module: str, size: int, dim: int, block: int, repeats: int) -> float | None:
    """Seconds in which the peer's CPU projector takes one gradient; None if not installed.

    The two share their interface: BasicProjector(size, dim, seed, type, device, block_size) and
    project(batch, id). With one block of all `dim` columns the matrix is made once and kept.
    """
    try:
        peer = importlib.import_module(module)
    except ImportError:
        return None
    projector = peer.BasicProjector(
        size, dim, 0, peer.ProjectionType.normal, torch.device("cpu"), block_size=block
    )
    gradient = torch.randn(1, size)
    projector.project(gradient, 0)
    return statistics.median(
        seconds(lambda: projector.project(gradient, 0)) for _ in range(repeats)
    )


PEERS = {"TRAK": ("trak.projectors", "traker"), "dattri": ("dattri.func.projection", "dattri")}


def measure_peers(size: int, dim: int, repeats: int, our_ns: float) -> dict[str, Any]:
    results: dict[str, Any] = {}
    for peer, (module, distribution) in PEERS.items():
        for label, block in (("matrix cached", dim), ("default blocks of 100", 100)):
            peer_seconds = measure_peer(module, size, dim, block, repeats)
            if peer_seconds is None:
                results[peer] = f"not measured: {distribution} is not installed"
                break
            ns = 1e9 * peer_seconds / size
            results[f"{peer}, {label}"] = {
                "numbers": size,
                "seconds": peer_seconds,
                "ns_per_number": ns,
                "times_ours": ns / our_ns,
            }
    return results


def print_table(report: dict[str, Any]) -> None:
    print(
        f"{report['shapes']}: {report['numbers']:,} numbers in {report['tensors']} tensors to "
        f"{report['dim']}, {report['threads']} threads"
    )
    print(f"  one torch.sum          {report['sum_seconds']:8.3f} s")
    print(
        f"  fold + Fastfood        {report['projection_seconds']:8.3f} s"
        f"   {report['gigabytes_per_second']:.1f} GB/s"
    )
    print(f"  ratio                  {report['ratio_to_sum']:8.2f}")
    extra = report["extra_bytes"]
    print(
        f"  extra memory           {'not measured' if extra is None else f'{extra / 1e6:8.2f} MB'}"
    )
    print(f"  state                  {report['state_bytes'] / 1e6:8.2f} MB")
    for peer, result in report["peers"].items():
        if isinstance(result, str):
            print(f"  {peer}: {result}")
        else:
            print(
                f"  {peer}: {result['seconds']:.4f} s for {result['numbers']:,} numbers, "
                f"{result['times_ours']:.0f} x ours per number"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", choices=SHAPES, default="wan2.1-1.3b")
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--peer-size", type=int, default=2**20, help="numbers given to the peers")
    parser.add_argument("--json", type=Path, help="write all figures here")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    report = {"shapes": options.shapes, "dim": options.dim, "threads": options.threads}
    report |= measure_ours(SHAPES[options.shapes](), options.dim, options.repeats)
    our_ns = report["projection_ns_per_number"]
    report["peers"] = measure_peers(options.peer_size, options.dim, options.repeats, our_ns)
    print_table(report)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
