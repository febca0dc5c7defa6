"""RAFT (Teed and Deng, ECCV 2020) as a tracker of clips: torchvision's network and its weights.

torchvision is an optional dependency, `pip install motive-attribution[raft]`.
"""

from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from motive.errors import UserError
from motive.motion.field import MotionField
from motive.motion.flow import agreement, in_sight
from motive.motion.weights import first_line, read_state_dict, require_fitting, weights_digest

Variant = Literal["large", "small"]

UPDATES = 12  # of the flow; torchvision's own number
MULTIPLE, MIN_SIDE = 8, 128  # pixels: the encoder's stride, and the smallest correlation pyramid
_WHERE = (
    "torchvision publishes weights as raft_large and raft_small, and `--tracker dis` needs none"
)


class RaftTracker:
    """Frame-to-frame RAFT flow with a confidence from the forward-backward check.

    Convention `from_previous`: the flow from each frame back to the one before, negated. Confidence and
    visibility are those of `motive.motion.flow`. Frames are padded with their edge, on the right and
    below, to multiples of 8 and to at least 128 pixels, which the network needs.

    checkpoint: `raft_large` or `raft_small` for the weights that torchvision publishes, fetched to
        torch's hub folder; or a `.pth` or `.safetensors` file with a state dict of either variant.
    device: where the network runs. It is no part of the fingerprint.

    The network is loaded with the first clip and let go by `close`.
    """

    def __init__(
        self, checkpoint: str | Path = "raft_large", device: str | torch.device = "cpu"
    ) -> None:
        self.checkpoint, self.device = checkpoint, torch.device(device)
        self._network: nn.Module | None = None

    @property
    def device_name(self) -> str:
        """Where the network runs."""
        return str(self.device)

    def fingerprint(self) -> str:
        """Variant, settings and the weights' digest, which is the same in every file format.

        Raises UserError when torchvision cannot be imported, or the weights are not there.
        """
        variant, digest = self._weights
        return (
            f"raft {variant} weights={digest} updates={UPDATES} "
            f"pad=edge,multiple={MULTIPLE},side>={MIN_SIDE}"
        )

    def track(self, frames_fhw3: np.ndarray) -> MotionField:
        """Flow of `(frames, height, width, 3)` RGB uint8.

        Raises UserError when torchvision cannot be imported, or the weights are not there.
        """
        frames, height, width = frames_fhw3.shape[:3]
        displacement = np.zeros((frames, height, width, 2), np.float32)
        visibility = np.ones((frames, height, width), np.float32)
        confidence = np.ones((frames, height, width), np.float32)
        for f in range(1, frames):
            back, forth = self._flows(frames_fhw3[f], frames_fhw3[f - 1])
            displacement[f] = -back
            visibility[f], confidence[f] = in_sight(back), agreement(back, forth)
        return MotionField(displacement, visibility, confidence, "from_previous")

    def close(self) -> None:
        """Let go of the network; the next clip loads it again."""
        self._network = None

    @torch.inference_mode()
    def _flows(self, one_hw3: np.ndarray, other_hw3: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The flow from one frame to the other, and from the other to the one."""
        height, width = one_hw3.shape[:2]
        pair = torch.from_numpy(np.stack([one_hw3, other_hw3])).permute(0, 3, 1, 2)
        images = padded(pair.to(self.device).float() / 127.5 - 1)
        flows = self._loaded()(images, images.flip(0), num_flow_updates=UPDATES)[-1]
        back, forth = flows[:, :, :height, :width].permute(0, 2, 3, 1).cpu().numpy()
        return np.ascontiguousarray(back), np.ascontiguousarray(forth)

    @cached_property
    def _weights(self) -> tuple[Variant, str]:
        variant, weights = self._read()
        return variant, weights_digest(weights)

    def _loaded(self) -> nn.Module:
        if self._network is None:
            variant, weights = self._read()
            if (variant, weights_digest(weights)) != self._weights:
                raise UserError(
                    f"RAFT checkpoint {self.checkpoint} changed while the run was starting: "
                    "run the same command again"
                )
            network = make_network(variant)
            network.load_state_dict(weights)
            self._network = network.eval().requires_grad_(False).to(self.device)
        return self._network

    def _read(self) -> tuple[Variant, dict[str, Tensor]]:
        models = optical_flow()
        path = Path(self.checkpoint).expanduser()
        if not path.is_file():
            return _published(models, str(self.checkpoint))
        weights = read_state_dict(path, "RAFT", _WHERE)
        # Only the large network learns how to enlarge its flow.
        large = any(name.startswith("mask_predictor.") for name in weights)
        variant: Variant = "large" if large else "small"
        with torch.device("meta"):  # the names and shapes alone
            expected = make_network(variant).state_dict()
        require_fitting(weights, expected, path, f"RAFT checkpoint ({variant})", _WHERE)
        return variant, weights


def optical_flow() -> ModuleType:
    """`torchvision.models.optical_flow`.

    Raises UserError when torchvision is not there or does not fit the installed torch.
    """
    try:
        from torchvision.models import optical_flow as models
    # Beside a torch that it was not built for, torchvision fails at registering its operators.
    except (ImportError, RuntimeError) as error:
        raise UserError(
            f"the tracker raft needs torchvision ({first_line(error)}): "
            "pip install 'motive-attribution[raft]', or use --tracker dis"
        ) from error
    return models


def make_network(variant: Variant) -> nn.Module:
    """RAFT without trained weights.

    Raises UserError as `optical_flow` does.
    """
    models = optical_flow()
    make = models.raft_large if variant == "large" else models.raft_small
    return make(weights=None, progress=False)


def padded(images_bchw: Tensor) -> Tensor:
    """Images of a size that RAFT takes: the edge repeated on the right and below."""
    extra = [
        max(MIN_SIDE, -(-side // MULTIPLE) * MULTIPLE) - side for side in images_bchw.shape[2:]
    ]
    return functional.pad(images_bchw, (0, extra[1], 0, extra[0]), mode="replicate")


def _published(models: ModuleType, name: str) -> tuple[Variant, dict[str, Tensor]]:
    known: dict[str, tuple[Variant, str]] = {
        "raft_large": ("large", "Raft_Large_Weights"),
        "raft_small": ("small", "Raft_Small_Weights"),
    }
    if name not in known:
        raise UserError(f"RAFT checkpoint {name} is not a file: {_WHERE}.")
    variant, weights_name = known[name]
    weights = getattr(models, weights_name).DEFAULT
    try:
        return variant, weights.get_state_dict(
            progress=False, check_hash=True, map_location="cpu", weights_only=True
        )
    # Offline, refused, missing (OSError, as URLError is), or not what was published (RuntimeError).
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"RAFT checkpoint {name} cannot be fetched from {weights.url} ({first_line(error)}): "
            "give a file with --tracker-checkpoint, or use --tracker dis"
        ) from error
