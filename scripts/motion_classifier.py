"""The zoo's truth about videos that nobody rendered: which motion is seen, and does the object stay itself.

The motion is told by a small 3D network that was trained on rendered clips and never on a generated one:
frames are blurred and dimmed at random in training, so that it looks at motion and not at sharpness. It
counts only if it is right on more than 90% of rendered clips of another corpus. The object is told by its
light: the zoo's objects are light in dim scenes (`motive.zoo.appearance`).

    python scripts/motion_classifier.py --out FOLDER    # trains it and says how good it is
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import nn
from torch.nn import functional

from motive.runs.provenance import write_atomically
from motive.zoo.motions import KINDS
from motive.zoo.scene import draw_scene, render_frames

FRAMES = 17
TRAIN_SEED, TEST_SEED = 50_000, 60_000  # corpora that no study uses
REQUIRED = 0.90
LIGHT = 0.52  # luminance between the zoo's dim scenes (at most 0.43) and its light objects (at least 0.6)
_SMALLEST = 0.01  # of the frame; less light than this is no object


class MotionNetwork(nn.Module):
    """Grey frames `(N, F, 64, 64)` in 0..1 to logits over `KINDS`."""

    def __init__(self) -> None:
        super().__init__()

        def block(inside: int, outside: int, stride: tuple[int, int, int]) -> nn.Sequential:
            conv = nn.Conv3d(inside, outside, 3, stride, 1, bias=False)
            return nn.Sequential(conv, nn.BatchNorm3d(outside), nn.ReLU())

        self.layers = nn.Sequential(
            block(3, 16, (1, 2, 2)),
            block(16, 32, (2, 2, 2)),
            block(32, 64, (2, 2, 2)),
            block(64, 96, (1, 2, 2)),
        )
        self.head = nn.Linear(96 * 2 * 2, len(KINDS))

    def forward(self, grey_nfhw: torch.Tensor) -> torch.Tensor:
        centred = grey_nfhw - grey_nfhw.mean((1, 2, 3), keepdim=True)
        centred = centred / (centred.std((1, 2, 3), keepdim=True) + 0.02)
        before = functional.pad(centred, (0, 0, 0, 0, 1, 0))[:, :-1]
        change = centred - before
        change[:, 0] = 0
        moving = centred - centred.mean(1, keepdim=True)
        features = self.layers(torch.stack([centred, 2 * change, moving], 1)).mean(2)
        # A coarse grid is kept: a fall ends below, a pendulum hangs from above.
        return self.head(functional.adaptive_avg_pool2d(features, 2).flatten(1))


@dataclass(frozen=True)
class MotionClassifier:
    """A trained network. accuracy: on rendered clips of another corpus."""

    network: MotionNetwork
    accuracy: float

    @property
    def kind_names(self) -> list[str]:
        """What the columns of `probabilities` are."""
        return list(KINDS)

    @torch.inference_mode()
    def probabilities(self, videos: Sequence[np.ndarray]) -> np.ndarray:
        """Of each kind, `(N, kinds)`; videos are `(F, 64, 64, 3)` uint8."""
        grey = torch.from_numpy(np.stack([to_grey(video) for video in videos])).float() / 255
        return functional.softmax(self.network(grey), dim=1).numpy()


def to_grey(frames_fhw3: np.ndarray) -> np.ndarray:
    """Luminance, `(F, H, W)` uint8."""
    return np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames_fhw3])


def object_identity(frames_fhw3: np.ndarray) -> float:
    """How much the object stays itself, 0..1: do its colours, seen in each frame, agree with the clip's?

    The mean over frames of the intersection of the light pixels' histogram of hue and saturation (a*, b*
    of CIELAB in steps of 5, smoothed) with the mean histogram of the other frames. A frame without an
    object counts 0. Shape and place do not count, so any of the ten motions may have 1; an object that
    dissolves, changes its colours or leaves does not. Rendered clips have 0.97 to 0.99, blurred as by a
    small model at least 0.9; frames of ten different objects 0.35.
    """
    histograms = [_colours(frame) for frame in frames_fhw3]
    there = [h for h in histograms if h is not None]
    if len(there) < 2:
        return 0.0
    total = np.sum(there, axis=0)
    agreements = [
        0.0 if h is None else float(np.minimum(h, (total - h) / (len(there) - 1)).sum())
        for h in histograms
    ]
    return float(np.mean(agreements))


def _colours(frame_hw3: np.ndarray) -> np.ndarray | None:
    """The histogram of the light pixels' colours; None where too few are light."""
    light = cv2.cvtColor(frame_hw3, cv2.COLOR_RGB2GRAY) > 255 * LIGHT
    if light.mean() < _SMALLEST:
        return None
    lab = cv2.cvtColor((frame_hw3 / 255.0).astype(np.float32), cv2.COLOR_RGB2LAB)[light]
    counts, _, _ = np.histogram2d(lab[:, 1], lab[:, 2], bins=16, range=[(-40, 40)] * 2)
    smooth = cv2.GaussianBlur(counts, (0, 0), 0.7)
    return smooth / max(smooth.sum(), 1e-9)


def rendered(seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Grey frames `(count, F, 64, 64)` uint8 of rendered clips, and their kinds as numbers."""
    kinds = [i % len(KINDS) for i in range(count)]
    clips = [
        to_grey(render_frames(draw_scene(KINDS[kind], FRAMES, seed=seed, index=i)))
        for i, kind in enumerate(kinds)
    ]
    return np.stack(clips), np.array(kinds)


def train_classifier(
    out: Path,
    *,
    clips: int = 4200,
    test_clips: int = 700,
    epochs: int = 12,
    required: float = REQUIRED,
) -> MotionClassifier:
    """The classifier in `out`, trained there if it is not yet; an interrupted training goes on.

    Raises RuntimeError when it is right on a smaller share of rendered clips than `required`.
    """
    out.mkdir(parents=True, exist_ok=True)
    name = f"classifier-{clips}-{epochs}"
    checkpoint, facts_file = out / f"{name}.pt", out / f"{name}.json"
    network = MotionNetwork()
    if not facts_file.is_file():
        _train(network, checkpoint, *_cached(out, TRAIN_SEED, clips), epochs)
        accuracy, confusion = _test(network, *_cached(out, TEST_SEED, test_clips))
        facts = {"accuracy": accuracy, "test_clips": test_clips, "kinds": KINDS}
        facts["confusion"] = confusion.tolist()
        write_atomically(facts_file, json.dumps(facts) + "\n")
    facts = json.loads(facts_file.read_text())
    network.load_state_dict(torch.load(checkpoint, weights_only=True)["network"])
    network.eval()
    if facts["accuracy"] < required:
        raise RuntimeError(
            f"the classifier is right on {facts['accuracy']:.1%} of rendered clips, "
            f"{required:.0%} are required"
        )
    return MotionClassifier(network, facts["accuracy"])


def _cached(out: Path, seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    file = out / f"rendered-{seed}-{count}.npz"
    if not file.is_file():
        grey, kinds = rendered(seed, count)
        part = file.with_suffix(".part.npz")
        np.savez_compressed(part, grey=grey, kinds=kinds)
        part.replace(file)
    with np.load(file) as stored:
        return stored["grey"], stored["kinds"]


def _train(
    network: MotionNetwork, checkpoint: Path, grey: np.ndarray, kinds: np.ndarray, epochs: int
) -> None:
    torch.manual_seed(0)
    network.load_state_dict(MotionNetwork().state_dict())
    batches = len(kinds) // 32
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=epochs * batches)
    first = 0
    if checkpoint.is_file():
        saved: dict[str, Any] = torch.load(checkpoint, weights_only=True)
        network.load_state_dict(saved["network"])
        optimizer.load_state_dict(saved["optimizer"])
        schedule.load_state_dict(saved["schedule"])
        first = saved["epoch"]
    for epoch in range(first, epochs):
        network.train()
        random = np.random.default_rng([1, epoch])
        order, losses = random.permutation(len(kinds)), []
        for step in range(batches):
            chosen = order[32 * step : 32 * step + 32]
            batch = np.stack([_spoilt(grey[i], random) for i in chosen])
            logits = network(torch.from_numpy(batch))
            loss = functional.cross_entropy(
                logits, torch.from_numpy(kinds[chosen]), label_smoothing=0.05
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
        state = {"network": network.state_dict(), "optimizer": optimizer.state_dict()}
        state |= {"schedule": schedule.state_dict(), "epoch": epoch + 1}
        part = checkpoint.with_suffix(".part")
        torch.save(state, part)
        part.replace(checkpoint)
        print(f"classifier: epoch {epoch + 1}/{epochs}, loss {np.mean(losses):.3f}", flush=True)


def _spoilt(grey_fhw: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The clip as a small model might have made it: blurred, dimmed, grainy; 0..1 float32."""
    clip = grey_fhw.astype(np.float32) / 255
    if (blur := random.uniform(0, 2.0)) > 0.3:
        clip = np.stack([cv2.GaussianBlur(frame, (0, 0), blur) for frame in clip])
    clip = random.uniform(0.6, 1.2) * clip + random.uniform(-0.1, 0.1)
    return clip + random.normal(0, random.uniform(0, 0.03), clip.shape).astype(np.float32)


@torch.inference_mode()
def _test(network: MotionNetwork, grey: np.ndarray, kinds: np.ndarray) -> tuple[float, np.ndarray]:
    network.eval()
    found = [
        network(torch.from_numpy(grey[i : i + 50]).float() / 255).argmax(1)
        for i in range(0, len(kinds), 50)
    ]
    predicted = torch.cat(found).numpy()
    confusion = np.zeros((len(KINDS), len(KINDS)), int)
    np.add.at(confusion, (kinds, predicted), 1)
    return float((predicted == kinds).mean()), confusion


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = train_classifier(arguments.out)
    print(f"right on {found.accuracy:.1%} of rendered clips")


if __name__ == "__main__":
    main()
