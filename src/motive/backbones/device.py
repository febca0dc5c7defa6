"""The device that networks run on."""

from typing import TYPE_CHECKING

from motive.errors import UserError

if TYPE_CHECKING:
    import torch


def find_device(name: str) -> "torch.device":
    """The device called `name`; `auto` is CUDA where there is one, else the CPU.

    Raises UserError when it is not there.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError):
        raise UserError(f"the device {name} is not there: use --device cpu") from None
    return torch.device(name)
