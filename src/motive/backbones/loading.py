"""Loading one component of a pipeline: whole, from safetensors, with a user's sentence when it fails."""

import gc
from typing import TYPE_CHECKING, Any

from motive.backbones.source import AGAIN, ModelSource
from motive.errors import UserError

if TYPE_CHECKING:
    import torch


def load_component(
    cls: Any, source: ModelSource, component: str, dtype: "torch.dtype | None"
) -> Any:
    """`from_pretrained` of one component, safetensors only.

    dtype: of the weights; None for a component without weights.

    Raises UserError when the folder, a file or a weight is missing or damaged.
    """
    from safetensors import SafetensorError
    from transformers.utils import logging as transformers_logging

    folder = source.path / component
    if not folder.is_dir():
        raise UserError(f"{source.name} has no folder {component}: {AGAIN}")
    options: dict[str, object] = {}
    if dtype is not None:
        is_diffusers = cls.__module__.startswith("diffusers")
        options = {"use_safetensors": True, "output_loading_info": True}
        options["torch_dtype" if is_diffusers else "dtype"] = dtype
    # Progress is the stage's to show; a second bar for a few weight files only tears it.
    transformers_logging.disable_progress_bar()
    try:
        loaded = cls.from_pretrained(folder, **options)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"the {component} of {source.name} cannot be loaded ({reason}): {AGAIN}"
        ) from None
    if dtype is None:
        return loaded
    model, info = loaded
    # Both libraries would go on with random numbers. A weight that shares a loaded one's memory is there.
    parameters = dict(model.named_parameters(remove_duplicate=False))
    there = {id(p) for name, p in parameters.items() if name not in info["missing_keys"]}
    missing = sorted(n for n in info["missing_keys"] if id(parameters.get(n)) not in there)
    if missing:
        raise UserError(
            f"the {component} of {source.name} lacks {len(missing)} of its weights, "
            f"such as {missing[0]}: {AGAIN}"
        )
    return model


def empty_network(
    cls: Any, source: ModelSource, component: str, dtype: "torch.dtype", kind: str
) -> "torch.nn.Module":
    """A component on the `meta` device, as `from_pretrained` would load it into `dtype`.

    kind: what the model is called in the sentence, as in `Wan`.

    Raises UserError when its configuration makes no model.
    """
    import torch

    try:
        with torch.device("meta"):
            # Moved as well: some layers make their numbers on the CPU whatever is asked for.
            model = cls.from_config(source.config(component)).to("meta")
    except (TypeError, ValueError, RuntimeError, LookupError, ArithmeticError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"the configuration of {source.name}'s {component} makes no {kind} model "
            f"({reason}): {AGAIN}"
        ) from None
    # Some parts stay in float32 whatever the dtype.
    kept = set(model._keep_in_fp32_modules or ())
    for name, parameter in model.named_parameters():
        own = torch.float32 if kept.intersection(name.split(".")) else dtype
        parameter.data = parameter.data.to(own)
    return model.eval()


def free_memory(device: "torch.device") -> None:
    """Give back what nothing refers to any more."""
    import torch

    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
