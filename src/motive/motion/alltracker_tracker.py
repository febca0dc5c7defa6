"""AllTracker as a tracker of clips: the network's weights, their digest, and small frames."""

from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import torch

from motive.errors import ClipError, UserError
from motive.motion import alltracker_checkpoint as checkpoint
from motive.motion.alltracker import MIN_SIDE, WINDOW_LEN, AllTracker
from motive.motion.field import MotionField
from motive.motion.weights import weights_digest

ITERATIONS = 4
MAX_PIXELS = 2**24  # of an enlarged frame: 4096 × 4096


class AllTrackerTracker:
    """Point tracks of every pixel of frame 0, by the convention `from_first` (Harley et al., 2025).

    Visibility and confidence are the network's own probabilities. Displacement is 0, visibility and
    confidence 1 in frame 0 by definition; what the network says of it is its own noise.

    Frames with a side under 65 pixels, which the network cannot take, are enlarged bilinearly by the
    smallest whole factor that makes the shorter side 65 pixels or more; the displacement is divided by
    the factor, and all maps are averaged over the pixels that one pixel became.

    path_or_hub_id: a `.pth` or `.safetensors` file, or the hub id `aharley/alltracker`. A file may hold
        either variant; of the hub's files it is the full one.
    device: where the network runs. It is no part of the fingerprint.

    The network is loaded with the first clip and let go by `close`. Only the digest of its weights is
    needed before, and no network is made for it.
    """

    def __init__(
        self, path_or_hub_id: str | Path = checkpoint.HUB_ID, device: str | torch.device = "cpu"
    ) -> None:
        self.path_or_hub_id, self.device = path_or_hub_id, torch.device(device)
        self._network: AllTracker | None = None

    @property
    def device_name(self) -> str:
        """Where the network runs."""
        return str(self.device)

    def fingerprint(self) -> str:
        """Variant, settings and the weights' digest, which is the same in every file format.

        Raises UserError when the weights are not there, saying where they are published.
        """
        variant, digest = self._weights
        return (
            f"alltracker {variant} weights={digest} driver=sliding iterations={ITERATIONS} "
            f"window={WINDOW_LEN} frame0=zero enlarge=bilinear,side>={MIN_SIDE}"
        )

    def track(self, frames_fhw3: np.ndarray) -> MotionField:
        """Tracks through `(frames, height, width, 3)` RGB uint8.

        Raises ClipError when enlarging a narrow frame would make it too large.
        """
        frames, height, width = frames_fhw3.shape[:3]
        factor = enlargement(height, width)
        if factor**2 * height * width > MAX_PIXELS:
            raise ClipError(f"frames of {width}×{height} pixels are too narrow for AllTracker")
        if frames == 1:
            ones = np.ones((1, height, width), np.float32)
            return MotionField(
                np.zeros((1, height, width, 2), np.float32), ones, ones, "from_first"
            )
        if factor > 1:
            size = (width * factor, height * factor)
            frames_fhw3 = np.stack(
                [cv2.resize(f, size, interpolation=cv2.INTER_LINEAR) for f in frames_fhw3]
            )
        video_btchw = torch.from_numpy(frames_fhw3).permute(0, 3, 1, 2)[None]
        tracks = self._loaded()(video_btchw, driver="sliding", iters=ITERATIONS)
        flow_f2hw = _average_blocks(tracks.flow[0].numpy(), factor) / factor
        visconf_f2hw = _average_blocks(tracks.visconf[0].numpy(), factor)
        flow_f2hw[0], visconf_f2hw[0] = 0, 1
        return MotionField(
            np.ascontiguousarray(flow_f2hw.transpose(0, 2, 3, 1)),
            visconf_f2hw[:, 0],
            visconf_f2hw[:, 1],
            "from_first",
        )

    def close(self) -> None:
        """Let go of the network; the next clip loads it again."""
        self._network = None

    @cached_property
    def _weights(self) -> tuple[checkpoint.Variant, str]:
        path = checkpoint.find_checkpoint(self.path_or_hub_id, None)
        weights = checkpoint.read_state_dict(path)
        variant = checkpoint.infer_variant(weights) or "full"
        with torch.device("meta"):  # the names and shapes alone
            expected = AllTracker(variant).state_dict()
        checkpoint.check_state_dict(weights, expected, variant, path)
        return variant, weights_digest(weights)

    def _loaded(self) -> AllTracker:
        if self._network is None:
            variant, digest = self._weights
            network = AllTracker.from_checkpoint(self.path_or_hub_id)
            if (network.variant, weights_digest(network.state_dict())) != (variant, digest):
                raise UserError(
                    f"AllTracker checkpoint {self.path_or_hub_id} changed while the run was starting: "
                    "run the same command again"
                )
            self._network = network.to(self.device)
        return self._network


def enlargement(height: int, width: int) -> int:
    """The whole factor by which a frame is enlarged so that the network takes it; mostly 1."""
    return -(-MIN_SIDE // min(height, width))


def _average_blocks(maps_fchw: np.ndarray, factor: int) -> np.ndarray:
    """The mean over blocks of `factor` × `factor` pixels; a copy also when `factor` is 1."""
    if factor == 1:
        return maps_fchw.copy()
    frames, channels, height, width = maps_fchw.shape
    blocks = maps_fchw.reshape(frames, channels, height // factor, factor, width // factor, factor)
    return blocks.mean((3, 5), dtype=np.float32)
