"""VBench's leaderboard: dimensions brought to a common scale, and their weighted means."""

from collections.abc import Mapping

# Smallest and largest value of a dimension on the leaderboard, and its weight.
_QUALITY = {
    "subject_consistency": (0.1462, 1.0, 1.0),
    "background_consistency": (0.2615, 1.0, 1.0),
    "temporal_flickering": (0.6293, 1.0, 1.0),
    "motion_smoothness": (0.706, 0.9975, 1.0),
    "dynamic_degree": (0.0, 1.0, 0.5),
    "aesthetic_quality": (0.0, 1.0, 1.0),
    "imaging_quality": (0.0, 1.0, 1.0),
}
_SEMANTIC = {
    "object_class": (0.0, 1.0, 1.0),
    "multiple_objects": (0.0, 1.0, 1.0),
    "human_action": (0.0, 1.0, 1.0),
    "color": (0.0, 1.0, 1.0),
    "spatial_relationship": (0.0, 1.0, 1.0),
    "scene": (0.0, 0.8222, 1.0),
    "appearance_style": (0.0009, 0.2855, 1.0),
    "temporal_style": (0.0, 0.364, 1.0),
    "overall_consistency": (0.0, 0.364, 1.0),
}
_QUALITY_TO_SEMANTIC = 4


def weighted(dimension: str, score: float) -> float:
    """(score − min) / (max − min), times the dimension's weight."""
    smallest, largest, weight = {**_QUALITY, **_SEMANTIC}[dimension]
    return (score - smallest) / (largest - smallest) * weight


def quality_score(scores: Mapping[str, float]) -> float | None:
    """The quality score of the leaderboard; None unless all seven dimensions are there."""
    return _mean(scores, _QUALITY)


def total_score(scores: Mapping[str, float]) -> float | None:
    """The total score: 4 parts quality, 1 part semantics; None unless all sixteen are there."""
    quality, semantic = quality_score(scores), _mean(scores, _SEMANTIC)
    if quality is None or semantic is None:
        return None
    return (_QUALITY_TO_SEMANTIC * quality + semantic) / (_QUALITY_TO_SEMANTIC + 1)


def _mean(
    scores: Mapping[str, float], bounds: Mapping[str, tuple[float, float, float]]
) -> float | None:
    if not bounds.keys() <= scores.keys():
        return None
    total = sum(weight for _, _, weight in bounds.values())
    return sum(weighted(name, scores[name]) for name in bounds) / total
