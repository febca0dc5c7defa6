"""Which frames a sampler takes: against a player written as a plain loop, on invented times."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from motive.clips.sampling import FrameSampler, clip_id

SAMPLER = FrameSampler(max_frames=81, height=64, width=64)


def constant_rate(frames: int, fps: float) -> np.ndarray:
    return np.arange(frames) / fps


def shown_by_a_player(times: np.ndarray, instant: float) -> int:
    """The last frame that has begun, with timestamps that may be a millisecond off."""
    index = 0
    for i, time in enumerate(times):
        if time - times[0] <= instant + 1.1e-3:
            index = i
    return index


ascending_times = st.lists(st.floats(0.002, 1.5, allow_nan=False), min_size=0, max_size=60).map(
    lambda gaps: 0.25 + np.cumsum([0.0, *gaps])
)
samplers = st.builds(
    FrameSampler,
    max_frames=st.integers(1, 90),
    height=st.just(8),
    width=st.just(8),
    fps=st.none() | st.sampled_from([1.0, 8.0, 16.0, 24.0, 29.97, 60.0]),
    mode=st.sampled_from(["first", "spread"]),
    length_step=st.sampled_from([1, 4, 6, 8]),
    length_offset=st.sampled_from([1, 1, 1, 5]),
)


@pytest.mark.parametrize(("source", "step"), [(8.0, 0.5), (30.0, 1.875), (60.0, 3.75)])
def test_16_fps_out_of_other_rates(source: float, step: float) -> None:
    chosen = replace(SAMPLER, fps=16.0).choose(constant_rate(400, source))
    assert chosen.tolist() == [int(k * step) for k in range(81)]


@given(samplers, ascending_times)
def test_the_choice_is_ascending_within_the_file_and_of_a_length_that_the_vae_takes(
    sampler: FrameSampler, times: np.ndarray
) -> None:
    chosen = sampler.choose(times)
    assert len(chosen) <= sampler.max_frames
    assert len(chosen) == 0 or (len(chosen) - sampler.length_offset) % sampler.length_step == 0
    assert (np.diff(chosen) >= 0).all()
    assert ((chosen >= 0) & (chosen < len(times))).all()


@given(ascending_times, st.sampled_from([1.0, 8.0, 16.0, 24.0, 60.0]))
def test_resampling_shows_what_a_player_shows(times: np.ndarray, fps: float) -> None:
    chosen = replace(SAMPLER, fps=fps).choose(times)
    instants = np.arange(len(chosen)) / fps
    assert chosen.tolist() == [shown_by_a_player(times, t) for t in instants]
    # No instant after the last frame's, and none left out before it.
    assert instants[-1] <= times[-1] - times[0] + 1.2e-3
    assert len(chosen) == 81 or (len(chosen) / fps) > times[-1] - times[0]


@given(
    st.integers(1, 200),
    st.sampled_from([8, 10, 12.5, 15, 16, 23.976, 24, 25, 29.97, 30, 50, 60]),
    st.integers(0, 40),
)
def test_a_file_of_the_wanted_rate_is_taken_frame_by_frame(
    frames: int, fps: float, begin: int
) -> None:
    # Also when a container has rounded the times to milliseconds and they do not begin at zero.
    times = np.round(constant_rate(frames + begin, fps)[begin:], 3)
    sampler = replace(SAMPLER, max_frames=500, fps=float(fps))
    assert sampler.choose(times).tolist() == list(range(frames))


@given(samplers, ascending_times)
def test_decoding_may_stop_where_the_sampler_has_enough(
    sampler: FrameSampler, times: np.ndarray
) -> None:
    whole = sampler.choose(times)
    for n in range(1, len(times) + 1):
        if sampler.enough(times[:n].tolist()):
            assert sampler.choose(times[:n]).tolist() == whole.tolist()
            break
    if sampler.mode == "spread":
        assert not sampler.enough(times.tolist())


def test_enough_comes_as_early_as_it_can() -> None:
    times = constant_rate(200, 30.0).tolist()
    stops = {
        fps: next(
            n for n in range(1, 201) if replace(SAMPLER, max_frames=17, fps=fps).enough(times[:n])
        )
        for fps in (None, 16.0)
    }
    # 17 frames, or the 17 / 16 of a second that 17 frames at 16 fps are: 31.9 frames later.
    assert stops == {None: 17, 16.0: 33}


def test_first_takes_the_first_frames_and_spread_the_whole_file() -> None:
    times = constant_rate(100, 25.0)
    assert replace(SAMPLER, max_frames=9).choose(times).tolist() == list(range(9))
    spread = replace(SAMPLER, max_frames=12, mode="spread").choose(times)
    assert spread.tolist() == [9 * i for i in range(12)]
    # Equal distances in time, not in frames: half of these frames lie in the first tenth.
    uneven = np.concatenate([np.arange(50) / 500, 0.1 + np.arange(1, 51) * 0.018])
    chosen = replace(SAMPLER, max_frames=11, mode="spread").choose(uneven)
    assert np.allclose(uneven[chosen], np.arange(11) / 10, atol=0.018)


def test_spread_with_a_rate_takes_no_more_frames_than_the_rate_has() -> None:
    times = constant_rate(60, 30.0)  # 1.97 s
    chosen = replace(SAMPLER, mode="spread", fps=4.0).choose(times)
    assert len(chosen) == 8
    assert (chosen[0], chosen[-1]) == (0, 59)


@pytest.mark.parametrize(
    ("step", "offset", "lengths"),
    [
        (4, 1, {0: 0, 1: 1, 4: 1, 5: 5, 8: 5, 9: 9, 83: 81}),
        (6, 1, {1: 1, 6: 1, 7: 7, 84: 79, 85: 85}),
        (8, 1, {8: 1, 9: 9, 16: 9, 120: 113, 121: 121}),
        (22, 88, {87: 0, 88: 88, 109: 88, 110: 110}),
        (1, 1, {0: 0, 1: 1, 2: 2, 7: 7}),
    ],
)
def test_lengths_are_trimmed_to_what_the_vae_takes(
    step: int, offset: int, lengths: dict[int, int]
) -> None:
    sampler = replace(SAMPLER, length_step=step, length_offset=offset)
    assert {n: sampler.usable_length(n) for n in lengths} == lengths
    chosen = replace(sampler, max_frames=max(lengths)).choose(constant_rate(max(lengths), 24.0))
    assert len(chosen) == lengths[max(lengths)]


def test_one_frame_is_a_clip_in_every_mode() -> None:
    for sampler in (
        SAMPLER,
        replace(SAMPLER, mode="spread"),
        replace(SAMPLER, fps=16.0),
        replace(SAMPLER, fps=16.0, mode="spread", length_step=4),
    ):
        assert sampler.choose(np.array([7.5])).tolist() == [0]


def test_the_fingerprint_tells_samplers_apart_and_only_samplers() -> None:
    changes: dict[str, object] = {
        "max_frames": 80, "height": 65, "width": 65, "fps": 16.0, "mode": "spread",
        "fit": "stretch", "length_step": 4, "length_offset": 2,
    }  # fmt: skip
    assert changes.keys() == json.loads(SAMPLER.fingerprint()).keys()
    prints = {replace(SAMPLER, **{name: value}).fingerprint() for name, value in changes.items()}
    assert len(prints | {SAMPLER.fingerprint()}) == len(changes) + 1
    whole, real = replace(SAMPLER, fps=16), replace(SAMPLER, fps=16.0)
    assert whole == real
    assert whole.fingerprint() == real.fingerprint()


def test_a_clip_id_is_content_and_sampler() -> None:
    other = replace(SAMPLER, fps=16.0)
    ids = [clip_id(digest, sampler) for digest in ("aa", "ab") for sampler in (SAMPLER, other)]
    assert len(set(ids)) == 4
    assert all(len(i) == 20 and int(i, 16) >= 0 for i in ids)
    assert clip_id("aa", FrameSampler(max_frames=81, height=64, width=64)) == ids[0]


def test_a_sampler_in_words() -> None:
    wan = FrameSampler(max_frames=81, height=480, width=832, length_step=4)
    assert wan.in_words() == (
        "the first 81 frames at most (4k + 1), at the file's own rate, cropped to 480 × 832"
    )
    spread = FrameSampler(max_frames=16, height=64, width=32, fps=7.5, mode="spread", fit="stretch")
    assert spread.in_words() == (
        "over the whole file, 16 frames at most, at 7.5 per second, stretched to 64 × 32"
    )
