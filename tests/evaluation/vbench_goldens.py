"""VBench's golden vectors, and the stand-ins for networks that they were made with (SPEC.md there)."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from motive.evaluation.video import Video


def numbers(shared: Path, dimension: str) -> dict[str, Any]:
    """What goldens.json says of a dimension."""
    found: dict[str, Any] = json.loads((shared / "vbench" / "goldens.json").read_text())[dimension]
    return found


def arrays(shared: Path, dimension: str) -> dict[str, np.ndarray]:
    with np.load(shared / "vbench" / f"{dimension}.npz", allow_pickle=False) as stored:
        return dict(stored)


def synthetic(frames: int, height: int, width: int, seed: int) -> np.ndarray:
    """The rule for synthetic videos, uint8 `(T, H, W, 3)`."""
    t, y, x, c = np.indices((frames, height, width, 3))
    v = 127.5 + 60 * np.sin(2 * np.pi * (x / width * (1 + c) + t * (0.03 + 0.01 * seed)))
    v = v + 50 * np.cos(2 * np.pi * y / height * (2 + c) - 0.11 * t * (1 + c))
    q = max(4, min(height, width) // 5)
    for i in range(frames):
        x0 = (3 + 2 * i + 5 * seed) % (width - q)
        y0 = (2 + i * (1 + seed % 3)) % (height - q)
        v[i, y0 : y0 + q, x0 : x0 + q] = 230 - 40 * np.arange(3)
    v += np.random.default_rng(1000 + seed).integers(-6, 7, size=v.shape)
    return np.clip(np.rint(v), 0, 255).astype(np.uint8)


def blank(frames: int, height: int = 8, width: int = 8, fps: float = 8.0) -> Video:
    """A video whose pixels carry the frame's number."""
    numbered = np.arange(frames, dtype=np.uint8)[:, None, None, None]
    return Video(np.broadcast_to(numbered, (frames, height, width, 3)).copy(), fps)


@dataclass
class StoredFeatures:
    """The stored feature rows, one a frame, in order."""

    rows_fd: np.ndarray
    identity: str = "stored"
    batches: list[int] = field(default_factory=list)

    def __call__(self, images_b3hw: Tensor) -> Tensor:
        start = sum(self.batches)
        self.batches.append(len(images_b3hw))
        return torch.from_numpy(self.rows_fd[start : start + len(images_b3hw)])


@dataclass
class GridMeans:
    """4 × 4 means of the preprocessed frame, channels first: 48 numbers."""

    identity: str = "grid"
    seen: list[Tensor] = field(default_factory=list)

    def __call__(self, images_b3hw: Tensor) -> Tensor:
        self.seen.append(images_b3hw)
        return functional.adaptive_avg_pool2d(images_b3hw, 4).flatten(1)


@dataclass
class Average:
    """The mean of both inputs."""

    identity: str = "average"
    sizes: list[tuple[int, ...]] = field(default_factory=list)

    def __call__(self, first_13hw: Tensor, second_13hw: Tensor) -> Tensor:
        self.sizes.append(tuple(first_13hw.shape))
        return (first_13hw + second_13hw) / 2


@dataclass
class StoredFlows:
    """The stored flow of each pair, looked up by the frames' numbers in their pixels.

    flows: by pair, `(2, H, W)`, or a number u for the flow (u, 0) everywhere.
    """

    flows: dict[tuple[int, int], Any]
    identity: str = "stored"
    asked: list[tuple[int, int]] = field(default_factory=list)

    def __call__(self, first_13hw: Tensor, second_13hw: Tensor) -> Tensor:
        pair = int(first_13hw[0, 0, 0, 0]), int(second_13hw[0, 0, 0, 0])
        self.asked.append(pair)
        flow = torch.as_tensor(self.flows[pair])
        if flow.ndim:
            assert flow.shape == (2, *first_13hw.shape[2:])
            return flow
        uniform = torch.zeros(2, *first_13hw.shape[2:])
        uniform[0] = flow
        return uniform


def stored_flows(stored: dict[str, np.ndarray], name: str) -> StoredFlows:
    pairs = [(int(i), int(j)) for i, j in stored[f"{name}_pairs"]]
    values = stored.get(f"{name}_flows", stored.get(f"{name}_uniform_u", np.zeros(0)))
    return StoredFlows(dict(zip(pairs, values, strict=True)))


class WeightedMean:
    """0.25 R + 0.5 G + 0.25 B of the preprocessed frame, times 100."""

    identity = "mean"

    def __init__(self) -> None:
        self.seen: list[Tensor] = []

    def __call__(self, image_13hw: Tensor) -> float:
        self.seen.append(image_13hw)
        red, green, blue = image_13hw[0].mean((1, 2))
        return float(100 * (0.25 * red + 0.5 * green + 0.25 * blue))
