"""Clips per minute by stage, and how much of each stage's time cannot be avoided.

    python benchmarks/pipeline.py [--clips 60] [--queries 6] [--size 64x64] [--json FILE]

A corpus of MotionZoo clips (33 frames of 64 x 64, or enlarged) goes through `tiny-wan` and DIS, stage by
stage on one thread. Unavoidable is, of the same clips: in `ingest` their decoding by PyAV, in `track` that
and the calls of DIS, in `encode` the decoding, the VAE and the text encoder, in `gradients` a bare forward
and backward pass, one clip after the other. Where the camera moves DIS searches again, which needs the
camera's fit, and there is no object mask without it: of `track` a second number takes those fits for
unavoidable too. Calls within a stage are timed as it runs, bare decoding and bare passes by themselves. All
times are of the processor, that of the processes which decode included, since other programs share the
machine; loading (imports, models, compiled kernels, a decoding process's start) is apart, being no matter
of the number of clips.
"""

import argparse
import functools
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")


@contextmanager
def timed(owner: Any, name: str) -> Iterator[list[float]]:
    """Processor seconds of the calls of a function in its thread, while it is looked up in `owner`."""
    function, seconds = getattr(owner, name), []

    @functools.wraps(function)
    def timing(*args: Any, **kwargs: Any) -> Any:
        start = time.thread_time()
        try:
            return function(*args, **kwargs)
        finally:
            seconds.append(time.thread_time() - start)

    setattr(owner, name, timing)
    try:
        yield seconds
    finally:
        setattr(owner, name, function)


class TimedFlow:
    """DIS, its calls being timed: OpenCV's objects take no new attributes."""

    def __init__(self, flow: Any) -> None:
        self._flow, self.seconds = flow, 0.0

    def calc(self, *args: Any) -> Any:
        start = time.thread_time()
        flow = self._flow.calc(*args)
        self.seconds += time.thread_time() - start
        return flow


def used() -> float:
    """Processor seconds of this process and of those that it started and that have ended."""
    return sum(os.times()[:4])


def decoder_start(path: str, sampler: Any) -> float:
    """Processor seconds of a decoding process that does next to nothing: one clip."""
    from motive.clips.isolation import Decoders, DecodingLimits

    start = used()
    decoders = Decoders(DecodingLimits(processes=1))
    decoders.examine(Path(path), sampler)
    decoders.close()
    return used() - start


def bare_decoding(paths: list[str]) -> float:
    """In one thread, as the stages: with more, a small frame takes several times as long."""
    import av

    start = time.process_time()
    for path in paths:
        with av.open(path) as file:
            file.streams.video[0].codec_context.thread_count = 1
            for frame in file.decode(video=0):
                frame.to_ndarray(format="rgb24", threads=1)
    return time.process_time() - start


def bare_passes(stage: Any, rows: list[dict[str, Any]]) -> float:
    """Forward and backward of each clip, gradients being dropped."""
    parameters = stage._gradient.parameters.values()
    start = time.process_time()
    for row in rows:
        clip = stage._losses.inputs(row)
        # Making the inputs is the stage's own work, as much as projecting.
        inputs = time.process_time()
        draw = next(stage._losses.draws(clip))
        start += time.process_time() - inputs
        draw.loss(draw.predict(stage._denoiser)).backward()
        for parameter in parameters:
            parameter.grad = None
    return time.process_time() - start


def enlarge(corpus: Path, height: int, width: int) -> None:
    """Write the corpus's clips again in that size."""
    import cv2
    import numpy as np

    from motive.clips.decoding import decode_all
    from motive.zoo.render import FPS, write_mp4

    for path in sorted(corpus.glob("clips/*.mp4")):
        frames, _ = decode_all(path)
        write_mp4(path, np.stack([cv2.resize(frame, (width, height)) for frame in frames]), FPS)


def measure(folder: Path, clips: int, queries: int, size: tuple[int, int]) -> dict[str, Any]:
    """Every stage's processor seconds, what of them is loading, and what cannot be avoided.

    size: height and width of the clips.
    """
    import cv2
    import torch
    from diffusers import AutoencoderKLWan
    from transformers import UMT5EncoderModel

    from motive.backbones.encode import EncodeTextStage, EncodeVideoStage
    from motive.gradients.stage import GradientStage
    from motive.motion import dis, track
    from motive.pipeline import Run
    from motive.rows import gradient_rows, ready_for_gradients
    from motive.zoo.render import render_corpus

    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    for name, count, seed in (("clips", clips, 0), ("queries", queries, 100), ("warm", 4, 200)):
        render_corpus(folder / name, count, seed=seed, lengths=(33,))
        if size != (64, 64):
            enlarge(folder / name, *size)
    sampling = dict(zip(("sampling__height", "sampling__width"), size, strict=True))

    def run_of(clips: str, queries: str) -> Run:
        data = {
            r: str(folder / n / "metadata.csv") for r, n in (("clips", clips), ("queries", queries))
        }
        settings = {"model": "tiny-wan", "compute__threads": 1, **sampling, **data}
        return Run.create(folder / f"run-{clips}", **settings)

    run_of("warm", "queries").curate()  # imports, and kernels compiled or loaded
    run = run_of("clips", "queries")
    seconds: dict[str, float] = {}

    def take(stage: str) -> None:
        start = used()
        getattr(run, stage)()
        seconds[stage] = used() - start

    with (
        timed(EncodeVideoStage, "open") as vae_opened,
        timed(EncodeTextStage, "open") as text_opened,
        timed(GradientStage, "open") as denoiser_opened,
        timed(AutoencoderKLWan, "encode") as vae,
        timed(UMT5EncoderModel, "forward") as text,
    ):
        take("ingest")
        tracker: Any = run.plan.track_stage.tracker
        flow = tracker._flow = TimedFlow(tracker._flow)
        with timed(dis, "fit_pair") as fits, timed(track, "estimate_camera") as cameras:
            take("track")
        take("encode")
        take("gradients")
    for stage in ("score", "select", "report"):
        take(stage)
    decoding = bare_decoding([member.path for member in run.members])
    stage = GradientStage(run.plan.backbone, run.objective)
    stage.open()
    ready = ready_for_gradients(run.members, run.plan, run.store)
    rows = list(gradient_rows(ready.sorted_by("feature_key"), run.plan, run.store))
    bare_passes(stage, rows[:2])
    passes = bare_passes(stage, rows)
    stage.close()
    floor = {
        "ingest": decoding,
        "track": decoding + flow.seconds,
        "encode": decoding + sum(vae) + sum(text),
        "gradients": passes,
    }
    loading = {
        "ingest": decoder_start(run.members[0].path, run.sampler),
        "encode": sum(vae_opened + text_opened),
        "gradients": sum(denoiser_opened),
    }
    assert all((flow.seconds, cameras, vae, text)), "a part that was to be timed was never called"
    found: dict[str, Any] = {}
    for name, whole in seconds.items():
        work = whole - loading.get(name, 0.0)
        row = {"seconds": work, "clips_per_minute": 60 * len(rows) / work}
        if name in loading:
            row["loading_seconds"] = loading[name]
        if name in floor:
            row |= {"unavoidable_seconds": floor[name], "avoidable": 1 - floor[name] / work}
        if name == "track":
            row["with_cameras_seconds"] = floor[name] + sum(fits) + sum(cameras)
            row["avoidable_with_cameras"] = 1 - row["with_cameras_seconds"] / work
        found[name] = row
    return {"clips": len(rows), "stages": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--clips", type=int, default=60)
    parser.add_argument("--queries", type=int, default=6)
    parser.add_argument("--size", default="64x64", metavar="HxW", help="of the clips")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        size = tuple(map(int, args.size.split("x")))
        found = measure(Path(folder), args.clips, args.queries, size)
    found["size"] = args.size
    found["load"] = [load, os.getloadavg()[0]]
    total = sum(row["seconds"] for row in found["stages"].values())
    for name, row in found["stages"].items():
        print(
            f"{name:10} {row['seconds']:7.2f} s of processor ({row['seconds'] / total:4.0%} of the run)"
            f" {row['clips_per_minute']:9,.0f} clips a minute",
            end="",
        )
        if "avoidable" in row:
            print(
                f"   unavoidable {row['unavoidable_seconds']:6.2f} s, avoidable {row['avoidable']:+.0%}",
                end="",
            )
        if "avoidable_with_cameras" in row:
            print(f" ({row['avoidable_with_cameras']:+.0%} beside the cameras' fits)", end="")
        print()
    found["clips_per_minute"] = 60 * found["clips"] / total
    print(
        f"in all {found['clips_per_minute']:.0f} clips a minute of processor; load {found['load']}"
    )
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
