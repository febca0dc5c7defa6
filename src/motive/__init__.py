"""Which of my clips teach a video model to move, and which spoil it?

from motive import Run

run = Run.create("runs/mine", clips="clips/", queries="queries/", model="tiny-wan")
run.curate()
"""

from typing import TYPE_CHECKING, Any

from motive.errors import ClipError, UserError

if TYPE_CHECKING:
    from motive.pipeline import Run

__version__ = "0.1.0"
__all__ = ["ClipError", "Run", "UserError", "__version__"]


def __getattr__(name: str) -> Any:
    # The pipeline brings torch and Arrow with it; `motive --help` needs neither.
    if name == "Run":
        from motive.pipeline import Run

        return Run
    raise AttributeError(f"module 'motive' has no attribute '{name}'")
