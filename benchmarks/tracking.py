"""How many frames per second the trackers follow, with and without decoding.

    python benchmarks/tracking.py
    python benchmarks/tracking.py --size 480x832 --frames 17 --trackers dis --json tracking.json

A clip of a moving texture is written as H.264 mp4. Measured are: decoding and resizing alone; the
tracker alone, on decoded frames; the camera model and the maps that the run keeps; and the whole track
stage through the local engine over several such clips, where the next clip is decoded in a thread while
one is tracked. AllTracker has random weights unless `--checkpoint` names a file: its time hardly
depends on them. The fastest repetition counts.
"""

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from rich.console import Console
from rich.table import Table as TerminalTable
from safetensors.torch import save_file

from motive.clips.decoding import decode_clip
from motive.clips.ingest import file_key
from motive.clips.sampling import FrameSampler
from motive.motion.alltracker import AllTracker
from motive.motion.alltracker_tracker import AllTrackerTracker
from motive.motion.camera import estimate_camera
from motive.motion.dis import DisTracker
from motive.motion.masks import reduce_field
from motive.motion.statistics import describe_field
from motive.motion.track import TrackStage
from motive.motion.trackers import Tracker
from motive.runs.engine import run_local
from motive.runs.progress import Progress
from motive.runs.store import FAILURE_SCHEMA
from motive.runs.tables import Table
from motive.zoo.render import FPS, write_mp4

STRIDE = 8  # of the latent's grid
TRACKERS = ("dis", "alltracker-tiny", "alltracker-full")


def moving_texture(frames: int, height: int, width: int, content: str) -> np.ndarray:
    """A smooth random texture that moves by three pixels a frame: `(F, H, W, 3)` uint8.

    content: `pan` moves all of it, `object` only the middle third.
    """
    random = np.random.default_rng(1)
    long = width + 3 * frames
    coarse = random.integers(0, 256, (height // 12 + 1, long // 12 + 1, 3)).astype(np.uint8)
    texture = cv2.resize(coarse, (long, height), interpolation=cv2.INTER_LINEAR)
    clip = np.stack([texture[:, 3 * f : 3 * f + width] for f in range(frames)])
    if content == "object":
        middle = np.s_[height // 3 : -(height // 3), width // 3 : -(width // 3)]
        moving = clip[:, *middle].copy()
        clip[:] = clip[0]
        clip[:, *middle] = moving
    return clip


def make(name: str, folder: Path, checkpoint: str | None) -> Tracker:
    if name == "dis":
        return DisTracker()
    if checkpoint:
        return AllTrackerTracker(checkpoint)
    variant = name.removeprefix("alltracker-")
    torch.manual_seed(0)
    path = folder / f"{variant}.safetensors"
    save_file(AllTracker(variant).state_dict(), path)
    return AllTrackerTracker(path)


def fastest(work: Callable[[], object], repeats: int) -> float:
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    height, width = map(int, options.size.split("x"))
    sampler = FrameSampler(max_frames=options.frames, height=height, width=width)
    results = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_mp4(
            folder / "0.mp4", moving_texture(options.frames, height, width, options.content), FPS
        )
        paths = [folder / f"{i}.mp4" for i in range(options.clips)]
        for path in paths[1:]:
            shutil.copy(paths[0], path)
        clip = decode_clip(paths[0], sampler).frames_fhw3
        decoding = fastest(lambda: decode_clip(paths[0], sampler), options.repeats)
        for tracker_name in options.trackers:
            tracker = make(tracker_name, folder, options.checkpoint)
            field = tracker.track(clip)  # loads the network

            def camera_and_maps(field: Any = field) -> None:
                camera = estimate_camera(field)
                reduce_field(field, STRIDE, camera)
                describe_field(field, camera)

            def whole_stage(tracker: Tracker = tracker) -> None:
                stage = TrackStage(tracker, sampler, STRIDE)
                stage.close = lambda: None  # type: ignore[method-assign]  # keep the network
                with tempfile.TemporaryDirectory() as tables:
                    results = Table(Path(tables) / "motion.lance", stage.schema)
                    failures = Table(Path(tables) / "failures.lance", FAILURE_SCHEMA)
                    rows = [{"key": str(p), "file": file_key(p), "path": str(p)} for p in paths]
                    quiet = Progress(quiet=True)
                    report = run_local(stage, rows, len(rows), results, failures, quiet)
                    if report.done != len(rows):
                        raise RuntimeError(f"{report.failed} clips failed")

            tracking = fastest(lambda t=tracker: t.track(clip), options.repeats)  # type: ignore[misc]
            results.append(
                {
                    "tracker": tracker_name,
                    "content": options.content,
                    "size": options.size,
                    "frames": options.frames,
                    "clips": options.clips,
                    "threads": options.threads,
                    "decoding_fps": options.frames / decoding,
                    "tracking_fps": options.frames / tracking,
                    "camera_and_maps_fps": options.frames
                    / fastest(camera_and_maps, options.repeats),
                    "stage_fps": options.frames
                    * options.clips
                    / fastest(whole_stage, options.repeats),
                }
            )
    return results


def show(results: list[dict[str, Any]]) -> None:
    first = results[0]
    table = TerminalTable(
        title=f"frames per second, {first['frames']} frames of {first['size']} ({first['content']}), "
        f"{first['threads']} thread(s)"
    )
    columns = {
        "tracker": "tracker",
        "decoding_fps": "decoding alone",
        "tracking_fps": "tracking alone",
        "camera_and_maps_fps": "camera and maps alone",
        "stage_fps": "whole stage, decoding included",
    }
    for name in columns.values():
        table.add_column(name, justify="left" if name == "tracker" else "right")
    for result in results:
        table.add_row(result["tracker"], *(f"{result[name]:.2f}" for name in list(columns)[1:]))
    Console(highlight=False).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="240x416", metavar="HxW")
    parser.add_argument(
        "--content",
        choices=("pan", "object"),
        default="pan",
        help="what moves: everything, and DIS searches twice, or an object in a still frame",
    )
    parser.add_argument("--frames", type=int, default=16, help="of a clip")
    parser.add_argument("--clips", type=int, default=2, help="that go through the whole stage")
    parser.add_argument("--trackers", nargs="+", choices=TRACKERS, default=list(TRACKERS))
    parser.add_argument("--checkpoint", help="AllTracker's weights; default: random ones")
    parser.add_argument("--threads", type=int, default=1, help="of torch and of OpenCV")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--json", metavar="FILE", help="also write the numbers there")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    results = measure(options)
    show(results)
    if options.json:
        with open(options.json, "w") as file:
            json.dump({"results": results}, file, indent=2)


if __name__ == "__main__":
    main()
