"""Why a clip has its influence: a heat map over the clip, exact, and its best interval."""

from motive.explanation.explanation import Explanation, explain

__all__ = ["Explanation", "explain"]
