"""Seconds that the CPU projectors of TRAK and dattri take; run by `projection.py` with their Python.

    python benchmarks/projection_peers.py --size 1048576 --dim 512 --threads 2 --repeats 5

Needs torch and what is to be measured of `traker` and `dattri`, and nothing of this project. Prints
one JSON object: for each peer its version and a list of configurations with their median seconds, or
a sentence that says why there are none.
"""

import argparse
import importlib
import importlib.metadata
import json
import statistics
import time
from typing import Any

import torch

PEERS = {"TRAK": ("traker", "trak.projectors"), "dattri": ("dattri", "dattri.func.projection")}


def configurations(dim: int) -> list[dict[str, Any]]:
    """What is measured: the dense matrix kept whole, which is fastest, and the defaults.

    The time of a product with a kept matrix does not depend on how its entries were drawn. With more
    gradients in a batch each entry is read once for all of them, if so many gradients can be held.
    """
    kept = [{"type": "normal", "block": dim, "batch": batch} for batch in (1, 8, 64)]
    return [
        *kept,
        {"type": "normal", "block": 100, "batch": 8},
        {"type": "rademacher", "block": 100, "batch": 8},
    ]


def measure(
    module: Any, size: int, dim: int, configuration: dict[str, Any], repeats: int
) -> dict[str, Any]:
    """Both peers have this interface: BasicProjector(size, dim, seed, type, device, block_size)."""
    projector = module.BasicProjector(
        size,
        dim,
        0,
        module.ProjectionType(configuration["type"]),
        torch.device("cpu"),
        block_size=configuration["block"],
    )
    kept = configuration["block"] >= dim
    gradients = torch.randn(configuration["batch"], size)
    if kept:
        projector.project(gradients, 0)
    times = []
    for _ in range(repeats if kept else 1):  # the others take many seconds and no warming up
        start = time.perf_counter()
        projector.project(gradients, 0)
        times.append(time.perf_counter() - start)
    seconds = statistics.median(times)
    numbers = size * configuration["batch"]
    return {
        **configuration,
        "matrix_kept": kept,
        "seconds": seconds,
        "ns_per_number": 1e9 * seconds / numbers,
        "matrix_bytes": 4 * size * configuration["block"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=2**20, help="numbers in a gradient")
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results: dict[str, Any] = {}
    for peer, (distribution, name) in PEERS.items():
        try:
            module = importlib.import_module(name)
        except Exception as error:  # a package may fail in any way while it is imported
            results[peer] = f"{distribution} cannot be imported: {error}"
            continue
        results[peer] = {
            "version": importlib.metadata.version(distribution),
            "torch": torch.__version__,
            "numbers": options.size,
            "configurations": [
                measure(module, options.size, options.dim, configuration, options.repeats)
                for configuration in configurations(options.dim)
            ],
        }
    print(json.dumps(results))


if __name__ == "__main__":
    main()
