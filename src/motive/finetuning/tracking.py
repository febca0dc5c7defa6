"""Processes and trackers of a training, by accelerate."""

import importlib.util
from pathlib import Path
from typing import Any

from motive.errors import UserError

PROJECT = "motive-finetune"


def make_accelerator(tracker: str, folder: Path, *, cpu: bool) -> Any:
    """accelerate's `Accelerator`, which knows the processes that `accelerate launch` started.

    tracker: `none`, or whose package must be installed. folder: where a tracker may write.

    Raises UserError when the tracker is not installed.
    """
    from accelerate import Accelerator

    if tracker != "none" and importlib.util.find_spec(tracker) is None:
        raise UserError(f"the tracker {tracker} is not installed: run pip install {tracker}")
    return Accelerator(
        cpu=cpu,
        mixed_precision="no",  # the loop's own autocast, so that weights stay float32
        log_with=None if tracker == "none" else tracker,
        project_dir=str(folder),
    )


def begin_tracking(accelerator: Any, tracker: str, settings: dict[str, Any]) -> None:
    """Tell the tracker the settings: numbers and words, since tensorboard takes nothing else."""
    if tracker != "none":
        flat = {k: v if isinstance(v, int | float | str) else str(v) for k, v in settings.items()}
        accelerator.init_trackers(PROJECT, config=flat)
