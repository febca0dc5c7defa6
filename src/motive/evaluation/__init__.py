"""How good videos are: VBench's dimensions by its own formulas, and measures that need no weights.

from motive.evaluation import evaluate

evaluate("videos/", ["dynamic_degree_dis", "jerk"]).scores()
"""

from typing import TYPE_CHECKING, Any

from motive.evaluation.networks.choice import Networks

if TYPE_CHECKING:
    from motive.evaluation.result import Evaluation
    from motive.evaluation.run import evaluate

__all__ = ["Evaluation", "Networks", "evaluate"]


def __getattr__(name: str) -> Any:
    # They bring torch and OpenCV with them; the networks' names, which options show, need neither.
    if name == "evaluate":
        from motive.evaluation.run import evaluate

        return evaluate
    if name == "Evaluation":
        from motive.evaluation.result import Evaluation

        return Evaluation
    raise AttributeError(f"module 'motive.evaluation' has no attribute '{name}'")
