"""What `motive backbones` lists: the families, what was tested of them, and how large they are."""

from importlib import import_module
from typing import Any

from motive.backbones import FAMILIES, private
from motive.backbones.base import Backbone

# The same for every family of the package; what a family adds stands in its `tested`.
HOW_TESTED = (
    "a small pipeline of the family's real classes with random weights, saved and loaded as a published "
    "one, is run on real clips; its loss equals one written out from the published training objective, "
    "and mutants of the adapter do not pass; every parameter that is trained has a gradient; the mask "
    "lies on the latents of what moves; noise is a prefix of a larger clip's; the published sizes' "
    "configurations have the listed numbers of parameters. No published weights were run."
)
_BYTES = {"bfloat16": 2, "float32": 4}


def catalog() -> list[dict[str, Any]]:
    """One entry for each family, by name: plain values, ready for JSON.

    parameters: of the network whose gradients are taken; weight_bytes: their memory by dtype.
    """
    classes: dict[type[Backbone], list[str]] = {}
    for pipeline_class in known_pipelines():
        classes.setdefault(adapter_class(pipeline_class), []).append(pipeline_class)
    entries = [_entry(adapter, names) for adapter, names in classes.items()]
    return sorted(entries, key=lambda entry: entry["family"])


def known_pipelines() -> list[str]:
    """The pipeline classes that have an adapter, the user's own among them, sorted."""
    return sorted({*FAMILIES, *private.named})


def adapter_class(pipeline_class: str) -> type[Backbone]:
    """The adapter for a pipeline class that is known, the user's own before the package's."""
    if pipeline_class in private.named:
        return private.named[pipeline_class]
    module, _, name = FAMILIES[pipeline_class].partition(":")
    adapter: type[Backbone] = getattr(import_module(module), name)
    return adapter


def _entry(adapter: type[Backbone], pipeline_classes: list[str]) -> dict[str, Any]:
    own = adapter in private.named.values()
    return {
        "family": adapter.family,
        "pipeline_classes": pipeline_classes,
        "adapter": f"{adapter.__module__}:{adapter.__name__}",
        "tested": adapter.tested or ("by its author" if own else HOW_TESTED),
        "models": [
            {
                "model": model,
                "parameters": parameters,
                "weight_bytes": {dtype: parameters * size for dtype, size in _BYTES.items()},
            }
            for model, parameters in adapter.published.items()
        ],
    }
