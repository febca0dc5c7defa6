"""Gradient features of many clips, and what may be compared with what."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from motive.gradients.objective import Objective, require_same
from motive.influence.scores import influence
from motive.runs.members import Member


@dataclass(frozen=True)
class Features:
    """Features of one objective.

    members: whose they are.
    features_nd: unit vectors, float32; zero for a clip whose gradient is zero.
    norms: of the projected gradients before normalisation, `(N,)`.
    static: whether the clip shows no motion, so that its masked gradient is zero, `(N,)`.
    """

    objective: Objective
    members: list[Member]
    features_nd: np.ndarray
    norms: np.ndarray
    static: np.ndarray

    def influence_of(self, clips: "Features") -> np.ndarray:
        """Scores `(Q, N)` float32 of the clips with these queries.

        Raises UserError, naming the field, when the objectives differ.
        """
        require_same(clips.objective, self.objective, mine_is="the clips", other_is="the queries")
        return influence(self.features_nd, clips.features_nd)

    def take(self, indices: Sequence[int] | np.ndarray) -> "Features":
        """The features at `indices`, in that order."""
        return replace(
            self,
            members=[self.members[i] for i in indices],
            features_nd=self.features_nd[indices],
            norms=self.norms[indices],
            static=self.static[indices],
        )
