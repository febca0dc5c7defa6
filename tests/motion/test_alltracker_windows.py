"""Which window a frame's result comes from, and what windows hand on."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from motive.motion.alltracker_windows import (
    Driver,
    fit_time_embedding,
    next_state,
    schedule_windows,
    time_embedding,
)


@given(
    frames=st.integers(3, 200),
    half=st.integers(1, 10),
    data=st.data(),
    driver=st.sampled_from(["sliding", "overwrite"]),
)
def test_each_frame_has_the_right_window(
    frames: int, half: int, data: st.DataObject, driver: Driver
) -> None:
    window_len = 2 * half
    stride = data.draw(st.integers(1, half if driver == "sliding" else window_len))
    windows = schedule_windows(frames, window_len, stride, driver).windows
    source = [k for k, window in enumerate(windows) for _ in window.outputs]
    assert [t for window in windows for t in window.outputs] == list(range(frames))
    for t, k in enumerate(source):
        holding = [i for i, w in enumerate(windows) if w.start <= t < w.start + window_len]
        assert k == (holding[0] if driver == "sliding" else holding[-1])


@pytest.mark.parametrize(
    ("frames", "starts"), [(3, [0]), (16, [0]), (17, [0, 8]), (24, [0, 8]), (27, [0, 8, 16])]
)
def test_windows_start_where_the_paper_starts_them(frames: int, starts: list[int]) -> None:
    schedule = schedule_windows(frames, 16, 8, "sliding")
    assert [window.start for window in schedule.windows] == starts


@pytest.mark.parametrize(
    ("window_len", "stride", "driver", "expected"),
    [
        (8, 4, "sliding", [4, 5, 6, 7, 7, 7, 7, 7]),
        (8, 4, "overwrite", [4, 5, 6, 7, 7, 7, 7, 7]),
        # What the window predicted beyond half its length is thrown away.
        (8, 2, "sliding", [2, 3, 4, 5, 5, 5, 5, 5]),
        (8, 2, "overwrite", [2, 3, 4, 5, 6, 7, 7, 7]),
        (4, 4, "overwrite", [3, 3, 3, 3]),
    ],
)
def test_state_is_handed_on(
    window_len: int, stride: int, driver: Driver, expected: list[int]
) -> None:
    schedule = schedule_windows(100, window_len, stride, driver)
    state = torch.arange(window_len)[:, None, None].float()
    assert next_state(state, schedule).flatten().tolist() == expected


def test_time_embedding_is_stretched() -> None:
    rows = time_embedding(16, 128)
    assert rows[0].tolist() == [0.0] * 64 + [1.0] * 64
    assert torch.equal(fit_time_embedding(rows, 16), rows)
    assert torch.equal(fit_time_embedding(rows, 1), rows[1:2])
    torch.testing.assert_close(fit_time_embedding(rows, 8), rows.view(8, 2, 128).mean(1))
