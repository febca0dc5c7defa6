"""Fine-tuning of a model's denoiser on chosen clips of a run.

from motive.finetuning import FinetuneSettings, finetune

finetune(run, "selection", "tiny-wan", "tuned", FinetuneSettings(steps=200, batch=8))
"""

from typing import Any

from motive.finetuning.settings import FinetuneSettings

__all__ = ["FinetuneSettings", "finetune"]


def __getattr__(name: str) -> Any:
    # torch comes with it, which `motive --help` does not wait for.
    if name == "finetune":
        from motive.finetuning.tune import finetune

        return finetune
    raise AttributeError(f"module 'motive.finetuning' has no attribute '{name}'")
