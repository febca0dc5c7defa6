"""Projections of several clips' gradients, which a backward pass hands over one parameter at a time."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch

from motive.errors import ClipError
from motive.gradients.fold import SignFolds
from motive.gradients.projection import FastfoodProjection, Projection


class ProjectionBatch:
    """Each clip's projection is what it is alone; a clip's bad gradient is no other clip's business.

    make: makes one clip's projection. As many are kept as the largest batch had clips.
    """

    def __init__(self, make: Callable[[], Projection]) -> None:
        self._make = make
        self._kept: list[Projection] = []

    def begin(self, size: int) -> None:
        """Start new gradients of `size` clips; anything unfinished is forgotten."""
        while len(self._kept) < size:
            self._kept.append(self._make())
        self._projections = self._kept[:size]
        self._errors: list[ClipError | None] = [None] * size
        for projection in self._projections:
            projection.begin()
        self._folding: list[FastfoodProjection] = []
        folds = []
        for projection in self._projections:
            if isinstance(projection, FastfoodProjection) and projection.fold is not None:
                self._folding.append(projection)
                folds.append(projection.fold)
        self._folds = SignFolds(folds) if len(folds) == size else None

    def fail(self, clip: int, error: ClipError) -> None:
        """`finish` gives the error in the clip's place; of several the first."""
        self._errors[clip] = self._errors[clip] or error

    def add(self, name: str, gradients: torch.Tensor) -> None:
        """Take in one parameter's gradients, axis 0 the clips, each as by `Projection.add`.

        A clip whose gradient is not finite fails; the others do not.
        """
        if self._folds is not None:
            one = gradients[0]
            for folding in self._folding:
                folding.expect(name, one)
            for clip, error in enumerate(self._folds.add(name, gradients)):
                if error is not None:
                    self.fail(clip, error)
            return
        for clip, projection in enumerate(self._projections):
            if self._errors[clip] is None:
                try:
                    projection.add(name, gradients[clip])
                except ClipError as error:
                    self.fail(clip, error)

    def finish(self) -> list[npt.NDArray[np.float32] | ClipError]:
        """Each clip's projected gradient, or why there is none."""
        results: list[npt.NDArray[np.float32] | ClipError] = []
        for projection, failed in zip(self._projections, self._errors, strict=True):
            try:
                results.append(failed or projection.finish())
            except ClipError as error:  # of gradients on another device it is known only now
                results.append(error)
        return results
