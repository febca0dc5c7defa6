"""From the scores of single trainings to a table: means, intervals, differences from the reference."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from motive.zoo.check import mean_interval

Seed = int | None  # of a training; None is the base, which is not trained
Scores = Mapping[str, Mapping[Seed, Mapping[str, float]]]  # by arm, seed and dimension


@dataclass(frozen=True)
class Interval:
    """A mean with its 95% interval by Student's t over training seeds.

    low, high: None with fewer than two values: one training says nothing of how trainings differ.
    values: by training seed, in the order of the seeds.
    """

    mean: float
    low: float | None
    high: float | None
    values: dict[str, float]

    @staticmethod
    def of(values: Mapping[Seed, float]) -> "Interval":
        mean, low, high = mean_interval(list(values.values()))
        several = len(values) > 1
        named = {"base" if seed is None else str(seed): v for seed, v in values.items()}
        return Interval(mean, low if several else None, high if several else None, named)


@dataclass(frozen=True)
class Cell:
    """One arm in one dimension.

    difference: from the reference arm, paired by training seed (they share the order of timesteps, the
        noise of training and that of generation); None for the reference itself.
    """

    score: Interval
    difference: Interval | None


def tabulate(scores: Scores, reference: str) -> dict[str, dict[str, Cell]]:
    """Cells by arm and dimension, in the order of the arms and of the dimensions as they come up.

    A cell is there for the seeds that have a score; a difference for those that both arms have. The base
    is one model: it is paired with every seed of another arm.
    """
    dimensions = list(
        dict.fromkeys(d for arm in scores.values() for found in arm.values() for d in found)
    )
    table: dict[str, dict[str, Cell]] = {}
    for arm, by_seed in scores.items():
        row = table.setdefault(arm, {})
        for dimension in dimensions:
            mine = {seed: found[dimension] for seed, found in by_seed.items() if dimension in found}
            if not mine:
                continue
            theirs = {
                seed: found[dimension]
                for seed, found in scores.get(reference, {}).items()
                if dimension in found
            }
            paired = {} if arm == reference else _differences(mine, theirs)
            row[dimension] = Cell(Interval.of(mine), Interval.of(paired) if paired else None)
    return table


def _differences(mine: Mapping[Seed, float], theirs: Mapping[Seed, float]) -> dict[Seed, float]:
    if None in mine and None in theirs:
        return {None: mine[None] - theirs[None]}
    if None in mine:
        return {seed: mine[None] - value for seed, value in theirs.items()}
    if None in theirs:
        return {seed: value - theirs[None] for seed, value in mine.items()}
    return {seed: value - theirs[seed] for seed, value in mine.items() if seed in theirs}


def distinguishable(interval: Interval | None) -> bool:
    """Whether a difference's interval leaves out zero."""
    if interval is None or interval.low is None or interval.high is None:
        return False
    return bool(np.sign(interval.low) == np.sign(interval.high) != 0)
