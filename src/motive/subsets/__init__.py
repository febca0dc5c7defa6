"""Subsets of a run's clips by name: Motive's selection, the paper's baselines, a list of one's own.

    subset = choose_subset(run, "random", seed=1)
    subset.clip_ids  # best first

Every method chooses among the same clips, those that the run ranks, and takes as many as the selection
does, so that what is compared is the choice alone.
"""

from motive.subsets.listed import write_subset
from motive.subsets.methods import SUBSETS, choose_subset, without_mask
from motive.subsets.subset import Subset

__all__ = ["SUBSETS", "Subset", "choose_subset", "without_mask", "write_subset"]
