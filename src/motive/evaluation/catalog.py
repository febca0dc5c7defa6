"""The dimensions by name: the six that the paper reports, temporal flickering, and three that need no
weights.
"""

from collections.abc import Callable
from importlib import import_module

from motive.errors import UserError
from motive.evaluation.dimension import Dimension, Measure
from motive.evaluation.networks.choice import Networks


def _in(module: str, name: str) -> Callable[[Networks], Measure]:
    """The function of a module, imported when it is called: networks bring their libraries."""

    def open_measure(networks: Networks) -> Measure:
        measure: Measure = getattr(import_module(f"motive.evaluation.{module}"), name)(networks)
        return measure

    return open_measure


_FRACTION = "fraction, 0..1"

_ALL = (
    Dimension(
        "subject_consistency",
        _FRACTION,
        _FRACTION,
        "the subject stays itself: DINO features of the frames are alike",
        _in("consistency", "subject_consistency"),
    ),
    Dimension(
        "background_consistency",
        _FRACTION,
        _FRACTION,
        "the scene stays itself: CLIP features of the frames are alike",
        _in("consistency", "background_consistency"),
    ),
    Dimension(
        "temporal_flickering",
        _FRACTION,
        _FRACTION,
        "neighbouring frames differ little; for static videos",
        _in("temporal_flickering", "temporal_flickering"),
    ),
    Dimension(
        "motion_smoothness",
        _FRACTION,
        _FRACTION,
        "frames are what an interpolation network foretells from their neighbours",
        _in("motion_smoothness", "motion_smoothness"),
    ),
    Dimension(
        "dynamic_degree",
        "share of videos, 0..1",
        "1 is dynamic, 0 is not",
        "RAFT sees enough motion in enough pairs of frames",
        _in("dynamic_degree", "dynamic_degree"),
    ),
    Dimension(
        "aesthetic_quality",
        _FRACTION,
        _FRACTION,
        "LAION's aesthetic head likes the frames",
        _in("aesthetic_quality", "aesthetic_quality"),
    ),
    Dimension(
        "imaging_quality",
        _FRACTION,
        "score, 0..100",
        "MUSIQ sees no noise, blur or wrong exposure in the frames",
        _in("imaging_quality", "imaging_quality"),
        scale=0.01,
    ),
    Dimension(
        "dynamic_degree_dis",
        "share of videos, 0..1",
        "1 is dynamic, 0 is not",
        "dynamic_degree's rule with DIS flow; no number of VBench's",
        _in("dis_flow", "dynamic_degree_dis"),
        official=False,
    ),
    Dimension(
        "motion_smoothness_dis",
        _FRACTION,
        _FRACTION,
        "motion_smoothness's rule with frames interpolated along DIS flow; no number of VBench's",
        _in("dis_flow", "motion_smoothness_dis"),
        official=False,
    ),
    Dimension(
        "jerk",
        "pixels per frame³",
        "pixels per frame³",
        "how unevenly things move, by DIS flow; no number of VBench's",
        _in("dis_flow", "jerk"),
        higher_is_better=False,
        official=False,
    ),
)

DIMENSIONS = {dimension.name: dimension for dimension in _ALL}
OFFICIAL = tuple(dimension.name for dimension in _ALL if dimension.official)
WITH_NETWORK = tuple(name for name in OFFICIAL if name != "temporal_flickering")


def find_dimensions(names: list[str] | None) -> list[Dimension]:
    """The dimensions called so, each once; None is all.

    Raises UserError for a name that is not known.
    """
    for name in names or ():
        if name not in DIMENSIONS:
            raise UserError(f"there is no dimension '{name}': use {', '.join(DIMENSIONS)}")
    return [DIMENSIONS[name] for name in dict.fromkeys(names if names is not None else DIMENSIONS)]
