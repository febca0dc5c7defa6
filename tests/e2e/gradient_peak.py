"""Measures the memory of one clip's gradient; run in a fresh process by `test_peak_memory.py`.

python gradient_peak.py MODEL prints, as JSON, resident memory in MB:
    model_and_activations  peak of a forward pass whose graph is kept
    streamed               peak of the gradient stage on one clip, in several passes
    kept                   peak when autograd returns all gradients together
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch

from motive.backbones import load_backbone
from motive.backbones.base import Backbone
from motive.backbones.encode import as_row
from motive.backbones.source import find_model
from motive.clips.decoding import DecodedClip
from motive.gradients.objective import Objective
from motive.gradients.stage import GradientStage
from motive.gradients.streaming import StreamingGradient
from motive.motion.track import TrackStage
from motive.motion.trackers import make_tracker

FRAMES, GRID, TOKENS, TEXT = 9, 8, 5, 16
PASSES = 3


def peak_since(reset: bool = False) -> float:
    """Largest resident memory in MB since the last reset; `reset` begins anew."""
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    return peak / 1024


def objective() -> Objective:
    return Objective(
        model="wide",
        sampler="",
        tracker="",
        mask="paper",
        mask_trusted=False,
        static_below=0.1,
        timesteps=(751,),
        noise_seed=0,
        prompt_length=24,
        parameters="*",
        length_factor=True,
        projection="fastfood",
        dim=512,
        projection_seed=0,
        dtype="float32",
    )


def clip(backbone: Backbone) -> dict[str, object]:
    """A row of the gradient stage, as the stages before make it."""
    draw = np.random.default_rng(0)
    side = GRID * backbone.spatial_stride()
    frames = draw.integers(0, 255, (FRAMES, side, side, 3), np.uint8)
    decoded = DecodedClip(frames, 16.0, 16.0, side, side, "noise")
    sampler = backbone.default_sampler()
    track = TrackStage(make_tracker("dis"), sampler, backbone.spatial_stride())

    def normal(shape: tuple[int, ...]) -> torch.Tensor:
        return torch.from_numpy(draw.standard_normal(shape).astype(np.float32))

    latent_shape = (16, len(backbone.frame_map(FRAMES)), GRID, GRID)
    return {
        "key": "clip",
        "clip_id": "clip",
        "caption_id": "caption",
        "frames": FRAMES,
        "motion": track.process({"decoded": decoded}),
        "video": as_row({"latents": normal(latent_shape)}),
        "text": as_row({"text": normal((TOKENS, TEXT))}),
    }


def main(model: str) -> None:
    torch.set_num_threads(1)
    # What is compiled at first use is no part of the question.
    layer = torch.nn.Linear(300, 300)
    warm = StreamingGradient(dict(layer.named_parameters()), "fastfood", 512, 0)
    warm.feature(lambda: layer(torch.ones(1, 300)).sum())

    backbone = load_backbone(find_model(model))
    row = clip(backbone)
    stage = GradientStage(backbone, objective())
    stage.open()
    # The stage does not show its network; a second handle on the same weights would be a second copy.
    denoiser = stage._denoiser
    shape = tuple(row["video"]["shapes"][0])  # type: ignore[index]
    latents, text = torch.randn(shape), torch.randn(TOKENS, TEXT)

    def loss() -> torch.Tensor:
        return backbone.predict(denoiser, latents, 751, {"text": text}, 24).square().mean()

    graph = None
    for _ in range(PASSES):
        del graph  # before the next one is made
        graph = loss()
    peaks = {"model_and_activations": peak_since(reset=True)}
    del graph
    for _ in range(PASSES):
        stage.process(row)
    peaks["streamed"] = peak_since(reset=True)
    gradients = torch.autograd.grad(loss(), list(denoiser.parameters()))
    peaks["kept"] = peak_since()
    assert all(torch.isfinite(g).all() for g in gradients)
    print(json.dumps(peaks))


if __name__ == "__main__":
    main(sys.argv[1])
