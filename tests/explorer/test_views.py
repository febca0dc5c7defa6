import json

import numpy as np
import pytest

from motive.errors import UserError
from motive.explorer.session import Session
from motive.explorer.views import Filter, parse_filter


def test_every_part_of_a_filter_must_hold(session: Session) -> None:
    table = session.table
    speed, votes = table.number("mean_speed"), table.number("votes")
    low = float(np.median(speed))
    wanted = parse_filter(json.dumps({"ranges": {"mean_speed": [low, None], "votes": [1, 3]}}))
    expected = np.flatnonzero((speed >= low) & (votes >= 1) & (votes <= 3))
    assert 0 < len(expected) < len(table)
    assert session.views.rows(wanted, "rank", False).tolist() == expected.tolist()
    by_speed = session.views.rows(wanted, "mean_speed", True).tolist()
    assert by_speed == sorted(expected.tolist(), key=lambda p: -speed[p])


def test_a_bound_that_was_shown_keeps_its_clip(session: Session) -> None:
    for value in session.table.number("camera_share").tolist():
        wanted = Filter(ranges={"camera_share": (value, value)})
        assert len(session.views.rows(wanted, "rank", False)) >= 1


def test_a_querys_scores_sort_and_filter(session: Session) -> None:
    query = session.scores.query_ids[0]
    scores = session.scores.of(query)
    rows = session.views.rows(Filter(), f"score:{query}", True)
    assert scores[rows].tolist() == sorted(scores.tolist(), reverse=True)
    above = Filter(ranges={f"score:{query}": (float(scores.max()), None)})
    assert session.views.rows(above, "rank", False).tolist() == [int(scores.argmax())]


def test_a_histogram_counts_every_clip_once(session: Session) -> None:
    found = session.views.histogram("mean_speed", Filter(state="chosen"))
    assert sum(found["all"]) == len(session.table)
    assert sum(found["shown"]) == session.choice.chosen.sum()
    assert all(shown <= every for shown, every in zip(found["shown"], found["all"], strict=True))


def test_states_follow_the_decisions(session: Session) -> None:
    ids = session.table.clip_ids.to_pylist()
    session.curation.decide(ids[-2:], "include")
    session.curation.decide(ids[:1], "exclude")
    counts = {
        state: len(session.views.rows(Filter(state=state), "rank", False))
        for state in ("all", "computed", "chosen", "left", "included", "excluded")
    }
    assert counts == {
        "all": 15, "computed": 3, "chosen": 4, "left": 11, "included": 2, "excluded": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "filter is wrong"),
        ('{"state": "nonsense"}', "state"),
        ('{"other": 1}', "other"),
        ('{"ranges": {"mean_speed": [1]}}', "ranges"),
        ('{"ranges": {"caption": [0, 1]}}', "no column of numbers 'caption'"),
        ('{"set": "s99"}', "no longer kept"),
    ],
)
def test_a_wrong_filter_is_one_sentence(session: Session, text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        session.views.mask(parse_filter(text))


def test_an_unknown_column_to_sort_by(session: Session) -> None:
    with pytest.raises(UserError, match="no column 'nothing'"):
        session.views.rows(Filter(), "nothing", False)
