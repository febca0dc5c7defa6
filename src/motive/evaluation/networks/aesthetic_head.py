"""LAION's linear aesthetic head over CLIP ViT-L/14, from a file that the user gives."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from motive.errors import UserError
from motive.evaluation.networks.choice import MissingNetworkError
from motive.motion.weights import read_state_dict, weights_digest

_FILE = "sa_0_4_vit_l_14_linear.pth"
_HOW = (
    f"download {_FILE} from https://github.com/LAION-AI/aesthetic-predictor and give it with "
    "--aesthetic-head"
)


@dataclass(frozen=True)
class AestheticHead:
    """w · f + b, about 0..10, of features `f` of unit length. weight_d: w. bias: b."""

    weight_d: Tensor
    bias: float

    @property
    def identity(self) -> str:
        digest = weights_digest({"weight": self.weight_d, "bias": torch.tensor(self.bias)})
        return f"linear head weights={digest}"

    def __call__(self, features_bd: Tensor) -> Tensor:
        """`(B,)`."""
        if features_bd.shape[1:] != self.weight_d.shape:
            raise UserError(
                f"the aesthetic head takes {len(self.weight_d)} features and not "
                f"{features_bd.shape[1]}: give --clip-large the encoder that it was trained on"
            )
        return features_bd @ self.weight_d + self.bias


def read_head(path: Path | None) -> AestheticHead:
    """The head in a `.pth` or `.safetensors` file.

    Raises MissingNetworkError for None, UserError for a file that holds no such head.
    """
    if path is None:
        raise MissingNetworkError("no aesthetic head was given", _HOW)
    if not path.is_file():
        raise UserError(f"there is no file {path}: {_HOW}")
    weights = read_state_dict(path, "aesthetic head", _HOW)
    sizes = {name: weights[name].numel() for name in weights}
    if sizes.keys() != {"weight", "bias"} or sizes["bias"] != 1:
        raise UserError(f"{path} is no linear head with one output: {_HOW}")
    return AestheticHead(weights["weight"].float().flatten(), float(weights["bias"]))
