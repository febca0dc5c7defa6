"""RAFT (Teed and Deng, ECCV 2020) by torchvision, as VBench asks it."""

from pathlib import Path

import torch
from torch import Tensor

from motive.backbones.device import find_device
from motive.errors import ClipError, UserError
from motive.evaluation.networks.choice import RAFT, MissingNetworkError
from motive.motion.raft import MIN_SIDE, make_network, optical_flow
from motive.motion.weights import first_line, read_state_dict, require_fitting, weights_digest

UPDATES = 20
_INSTALL = "pip install 'motive-attribution[raft]'"
_WHERE = f"give --raft the weights of torchvision's raft_large, or leave it out for {RAFT}"


class Raft:
    """The up-sampled flow after 20 updates.

    checkpoint: `C_T_V1`, RAFT's own weights after FlyingThings (raft-things.pth) as torchvision has
        them, or a file of the same network's weights.

    Raises MissingNetworkError when torchvision or its weights are not there, UserError for a file that
    is not the network's.
    """

    def __init__(self, checkpoint: str = RAFT, device: str = "auto") -> None:
        self._device = find_device(device)
        try:
            optical_flow()
        except UserError as error:
            raise MissingNetworkError("torchvision cannot be imported", _INSTALL) from error
        network = make_network("large")
        weights = _weights(checkpoint, network.state_dict())
        network.load_state_dict(weights)
        self.identity = f"raft_large weights={weights_digest(weights)} updates={UPDATES}"
        self._network = network.eval().requires_grad_(False).to(self._device)

    @torch.inference_mode()
    def __call__(self, first_13hw: Tensor, second_13hw: Tensor) -> Tensor:
        """`(2, H, W)` of images in 0..255. Raises ClipError below 128 pixels."""
        if min(first_13hw.shape[2:]) < MIN_SIDE:
            raise ClipError(f"frames are smaller than the {MIN_SIDE} pixels that RAFT needs")
        images = (image.to(self._device) / 127.5 - 1 for image in (first_13hw, second_13hw))
        return self._network(*images, num_flow_updates=UPDATES)[-1][0].cpu()


def _weights(checkpoint: str, expected: dict[str, Tensor]) -> dict[str, Tensor]:
    path = Path(checkpoint).expanduser()
    if checkpoint != RAFT:
        if not path.is_file():
            raise UserError(f"there is no file {checkpoint}: {_WHERE}")
        weights = read_state_dict(path, "RAFT", _WHERE)
        require_fitting(weights, expected, path, "RAFT checkpoint (large)", _WHERE)
        return weights
    published = optical_flow().Raft_Large_Weights.C_T_V1
    try:
        return published.get_state_dict(
            progress=False, check_hash=True, map_location="cpu", weights_only=True
        )
    # Offline, refused, missing (OSError, as URLError is), or not what was published (RuntimeError).
    except (OSError, RuntimeError, ValueError) as error:
        raise MissingNetworkError(
            f"RAFT's weights cannot be fetched ({first_line(error)})",
            f"fetch {published.url} and give it with --raft",
        ) from error
