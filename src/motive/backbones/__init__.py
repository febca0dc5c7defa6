"""Video models by family. `load_backbone` finds the family from the model's own files."""

from typing import TYPE_CHECKING

from motive.backbones.source import ModelSource
from motive.errors import UserError

if TYPE_CHECKING:
    from motive.backbones.base import Backbone

_FAMILIES = {"WanPipeline": "motive.backbones.wan:WanBackbone"}


def load_backbone(source: ModelSource, *, dtype: str = "auto", device: str = "auto") -> "Backbone":
    """The adapter for `source`; no weights are loaded yet.

    dtype: `float32`, `bfloat16`, `float16`, or `auto`: bfloat16 on CUDA, float32 elsewhere.
    device: `cpu`, `cuda`, `cuda:1`, `mps`, or `auto`: CUDA where there is one, else the CPU.

    Raises UserError for a pipeline class that no adapter covers, or a dtype or device that is not there.
    """
    where = _FAMILIES.get(source.pipeline_class)
    if where is None:
        known = ", ".join(sorted(_FAMILIES))
        raise UserError(
            f"{source.name} is a {source.pipeline_class or 'nameless'} pipeline, "
            f"which has no adapter yet: use one of {known}"
        )
    from importlib import import_module

    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise UserError(f"the device {device} is not there: use --device cpu") from None
    if dtype == "auto":
        dtype = "bfloat16" if device.startswith("cuda") else "float32"
    if dtype not in ("float32", "bfloat16", "float16"):
        raise UserError(f"there is no dtype '{dtype}': use float32, bfloat16, float16 or auto")
    module, _, name = where.partition(":")
    adapter = getattr(import_module(module), name)
    return adapter(source, getattr(torch, dtype), torch.device(device))
