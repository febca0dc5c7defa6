"""Trackers by name."""

import pytest

from motive.errors import UserError
from motive.motion.dis import DisTracker
from motive.motion.trackers import make_tracker


def test_dis_by_name() -> None:
    assert isinstance(make_tracker("dis"), DisTracker)


@pytest.mark.parametrize("name", ["farneback", "", "DIS", "dis "])
def test_an_unknown_tracker_is_refused_with_what_to_use(name: str) -> None:
    with pytest.raises(UserError) as error:
        make_tracker(name)
    assert f"'{name}'" in str(error.value)
    known = str(error.value).split(":")[-1]
    assert all(tracker in known for tracker in ("dis", "alltracker", "raft"))
    assert ". " not in str(error.value)


def test_dis_takes_no_weights() -> None:
    with pytest.raises(UserError, match="dis has no weights: leave --tracker-checkpoint out"):
        make_tracker("dis", "weights.pth")
