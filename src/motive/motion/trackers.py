"""Trackers by name. A tracker turns frames into a MotionField; it is made once per worker."""

from typing import Protocol

import numpy as np

from motive.errors import UserError
from motive.motion.field import MotionField


class Tracker(Protocol):
    """Anything that follows motion through a clip."""

    @property
    def device_name(self) -> str:
        """Where a network runs, as `cpu` or `cuda`; empty for a tracker without one."""
        ...

    def fingerprint(self) -> str:
        """Name, settings and weights: equal for trackers that give equal fields."""
        ...

    def track(self, frames_fhw3: np.ndarray) -> MotionField:
        """The motion of RGB uint8 frames. Raises ClipError for a clip that it cannot follow."""
        ...

    def close(self) -> None:
        """Let go of what `track` loaded; the next clip loads it again."""
        ...


def make_tracker(name: str, checkpoint: str | None = None, device: str = "cpu") -> Tracker:
    """The tracker called `name`.

    checkpoint: the weights' file, hub id (`alltracker`) or torchvision's name (`raft`: raft_large or
        raft_small), of a tracker that has weights; None takes the published ones.
    device: where a network runs.

    Raises UserError for a name that is not known, or a checkpoint that the tracker has no use for.
    """
    if name == "alltracker":
        from motive.motion.alltracker_checkpoint import HUB_ID
        from motive.motion.alltracker_tracker import AllTrackerTracker

        return AllTrackerTracker(checkpoint or HUB_ID, device)
    if name == "dis":
        if checkpoint is not None:
            raise UserError("the tracker dis has no weights: leave --tracker-checkpoint out")
        from motive.motion.dis import DisTracker

        return DisTracker()
    if name == "raft":
        from motive.motion.raft import RaftTracker

        return RaftTracker(checkpoint or "raft_large", device)
    raise UserError(f"there is no tracker '{name}': use --tracker dis, alltracker or raft")
