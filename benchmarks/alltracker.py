"""What a frame costs AllTracker: seconds by stage, peak memory, and what bfloat16 costs in accuracy.

    python benchmarks/alltracker.py
    python benchmarks/alltracker.py --variant tiny --dtype bfloat16 --json alltracker.json

Each size runs in a process of its own. Without `--checkpoint` the weights are random, of a size that
gives flows of some pixels; how far flows reach changes the cost of the lookup a little.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import psutil
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from motive.motion import alltracker
from motive.motion.alltracker import AllTracker
from motive.motion.alltracker_correlation import CorrelationLookup

# The original network's full variant on one thread, as reported to us. NOT measured by this script, nor
# at the same time as anything that it measures.
ORIGINAL_SECONDS_PER_FRAME = {"128x160": 0.42, "384x512": 4.5}
ORIGINAL_PEAK = "2.4 GB at 384x512"
STAGES = ("encoder", "correlation and lookup", "update block", "heads and upsampling", "other")


class StageClock:
    """Exclusive seconds per stage: a stage inside another one is not counted for the outer."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._stack: list[str] = []
        self._since = 0.0

    def enter(self, stage: str) -> None:
        now = time.perf_counter()
        if self._stack:
            self.seconds[self._stack[-1]] += now - self._since
        self._stack.append(stage)
        self._since = now

    def leave(self) -> None:
        now = time.perf_counter()
        self.seconds[self._stack.pop()] += now - self._since
        self._since = now

    def timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            self.enter(stage)
            try:
                return function(*args, **kwargs)
            finally:
                self.leave()

        return run

    def watch(self, model: AllTracker) -> None:
        """Counts the stages of this model from now on."""
        for owner, name, stage in (
            (model, "_encode", "encoder"),
            (CorrelationLookup, "__call__", "correlation and lookup"),
            (model.update_block, "forward", "update block"),
            (model.flow_head, "forward", "heads and upsampling"),
            (model.visconf_head, "forward", "heads and upsampling"),
            (model.upsample_weight, "forward", "heads and upsampling"),
            (alltracker, "convex_upsample", "heads and upsampling"),
        ):
            setattr(owner, name, self.timed(stage, getattr(owner, name)))


def random_weights(model: nn.Module) -> None:
    """Uniform weights that keep the variance of what passes through them."""
    random = torch.Generator().manual_seed(0)
    gains = {
        "flow_head.2.weight": 0.25,
        "visconf_head.2.weight": 0.125,
        "upsample_weight.2.weight": 4.0,
        "update_block.final_conv.weight": 0.5,
    }
    for name, weight in model.named_parameters():
        unit = (2 * torch.rand(weight.shape, generator=random) - 1) * 3**0.5
        if name.endswith("layer_scale"):
            weight.data = 0.25 + 0.05 * unit
        elif name.endswith(".bias"):
            weight.data = 0.05 * unit
        elif weight.ndim == 1:
            weight.data = 1 + 0.1 * unit
        else:
            weight.data = unit * gains.get(name, 1.0) / weight[0].numel() ** 0.5


def moving_texture(frames: int, height: int, width: int) -> torch.Tensor:
    """A smooth random texture that moves by three pixels a frame: `(1, T, 3, H, W)` float."""
    random = torch.Generator().manual_seed(1)
    whole = (height, width + 3 * frames)
    coarse = torch.randint(0, 256, (1, 3, whole[0] // 12, whole[1] // 12), generator=random)
    texture = nn.functional.interpolate(coarse.float(), size=whole, mode="bilinear")[0].round()
    return torch.stack([texture[:, :, 3 * t : 3 * t + width] for t in range(frames)])[None]


def peak_bytes() -> int:
    """The most memory that this process has held so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def measure(options: argparse.Namespace, size: str) -> dict[str, Any]:
    """One size, in this process, which has to be a fresh one for its memory to mean anything."""
    torch.set_num_threads(options.threads)
    height, width = map(int, size.split("x"))
    if options.checkpoint:
        model = AllTracker.from_checkpoint(options.checkpoint, options.variant)
    else:
        model = AllTracker(options.variant).eval()
        random_weights(model)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    model.to(getattr(torch, options.dtype))
    video = moving_texture(options.frames, height, width)
    loaded = psutil.Process().memory_info().rss

    tracks = model(video)
    peak = peak_bytes() - loaded
    clock = StageClock()
    clock.watch(model)
    runs, processor_runs = [], []
    for _ in range(options.repeats):
        clock.seconds.clear()
        started = time.process_time()
        clock.timed("other", model)(video)
        processor_runs.append((time.process_time() - started) / options.frames)
        runs.append({stage: clock.seconds[stage] / options.frames for stage in STAGES})
    best = min(runs, key=lambda run: sum(run.values()))
    result = {
        "variant": options.variant,
        "dtype": options.dtype,
        "size": size,
        "frames": options.frames,
        "threads": options.threads,
        "seconds_per_frame": sum(best.values()),
        "stages": best,
        "processor_seconds_per_frame": min(processor_runs),
        "all_seconds_per_frame": [sum(run.values()) for run in runs],
        "peak_bytes_above_weights": peak,
        "flow_rms": tracks.flow.square().mean().sqrt().item(),
    }
    if options.dtype != "float32":
        model.float().load_state_dict(weights)
        exact = model(video)
        flow_error = (tracks.flow - exact.flow).square().sum(dim=2).sqrt()
        result["flow_error_mean"] = flow_error.mean().item()
        result["flow_error_max"] = flow_error.max().item()
        result["visconf_error_max"] = (tracks.visconf - exact.visconf).abs().max().item()
    return result


def run_all(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Each size in a fresh process of this script."""
    results = []
    for size in options.sizes:
        command = [sys.executable, __file__, *sys.argv[1:], "--in-this-process", size]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
        results.append(json.loads(done.stdout))
    return results


def show(results: list[dict[str, Any]]) -> None:
    first = results[0]
    table = Table(
        title=f"AllTracker {first['variant']}, {first['dtype']}, {first['frames']} frames, "
        f"{first['threads']} thread(s): milliseconds per frame"
    )
    table.add_column("")
    rows: dict[str, list[str]] = defaultdict(list)
    for result in results:
        table.add_column(result["size"], justify="right")
        for stage, seconds in result["stages"].items():
            rows[stage].append(f"{1000 * seconds:.1f}")
        rows["all"].append(f"[bold]{1000 * result['seconds_per_frame']:.1f}[/bold]")
        # All threads together; on a busy machine with one thread, the more telling number.
        rows["processor time"].append(f"{1000 * result['processor_seconds_per_frame']:.1f}")
        rows["peak memory above weights, MB"].append(
            f"{result['peak_bytes_above_weights'] / 1e6:.0f}"
        )
        rows["flow, root mean square, px"].append(f"{result['flow_rms']:.1f}")
        if "flow_error_max" in result:
            mean, most = result["flow_error_mean"], result["flow_error_max"]
            rows["flow error to float32, mean / max, px"].append(f"{mean:.3f} / {most:.2f}")
            rows["visconf error to float32, max"].append(f"{result['visconf_error_max']:.4f}")
    for name, cells in rows.items():
        table.add_row(name, *cells)
    console = Console(highlight=False)
    console.print(table)
    seen = ", ".join(f"{1000 * s:.0f} at {size}" for size, s in ORIGINAL_SECONDS_PER_FRAME.items())
    console.print(
        f"For reference, not measured in this run: the original (full variant, one thread) was seen "
        f"at {seen}; its peak memory was {ORIGINAL_PEAK}.",
        soft_wrap=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variant", choices=("full", "tiny"), default="full")
    parser.add_argument("--checkpoint", help="a checkpoint file or hub id; default: random weights")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--sizes", nargs="+", default=["128x160", "384x512"], metavar="HxW")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3, help="the fastest run counts")
    parser.add_argument("--json", metavar="FILE", help="also write the numbers there")
    parser.add_argument("--in-this-process", metavar="HxW", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.in_this_process:
        json.dump(measure(options, options.in_this_process), sys.stdout)
        return
    results = run_all(options)
    show(results)
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"results": results}, file, indent=2)


if __name__ == "__main__":
    main()
