"""Decoding the real clips: frame by frame what a plain PyAV loop gives, or a true reason."""

import csv
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from test_decoding import plain_frames, sampler_for

from motive.clips.decoding import decode_clip
from motive.errors import ClipError

UPRIGHT = {"decord__video_90.mov": 3, "moviepy__fire2.mp4": 2}  # quarter turns, counter-clockwise
FAILS = {
    "io__gs-16b-2c-44100hz.mp4": "the file has no video stream",
    "lerobot__clip_4frames.mp4": "not a readable media file: Invalid data found",
    "moviepy__result.webm": "the file is empty",
    "small__AudioVideoInterleave.avi": "no frame can be decoded",
}


def rows(shared: Path) -> list[dict[str, str]]:
    with (shared / "clips/metadata.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_clip_gives_the_frames_of_a_plain_loop_or_a_true_reason(shared: Path) -> None:
    failed = {}
    for row in rows(shared):
        path = shared / "clips" / row["file_name"]
        if row["frames"] == "0":
            with pytest.raises(ClipError) as error:
                decode_clip(path, sampler_for(64, 64))
            failed[row["file_name"]] = str(error.value)
            continue
        height, width = int(row["height"]), int(row["width"])
        turns = UPRIGHT.get(row["file_name"], 0)
        if turns % 2:
            height, width = width, height
        # Of its own size, so that nothing is resized and frames must be equal to the last bit.
        clip = decode_clip(path, sampler_for(height, width, max_frames=5))
        times, frames = plain_frames(path, 5)
        assert clip.frames_fhw3.dtype == np.uint8
        assert np.array_equal(clip.frames_fhw3, [np.rot90(f, turns) for f in frames]), path.name
        assert len(frames) == min(5, int(row["frames"])), path.name
        assert (clip.source_height, clip.source_width) == (height, width), path.name
        assert (clip.codec, row["codec"]) in {("libdav1d", "av1"), (row["codec"],) * 2}, path.name
        rate = (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else 0.0
        assert clip.fps == pytest.approx(rate), path.name
        assert clip.source_fps == pytest.approx(rate), path.name
    assert failed.keys() == FAILS.keys()
    assert all(failed[name].startswith(reason) for name, reason in FAILS.items()), failed


def test_the_awkward_clips_and_what_must_come_out(shared: Path) -> None:
    wanted = {  # frames, upright height and width; a text is the reason of a failure
        "ball-tracking-live-plot__ball3.mp4": (486, 720, 1280),
        "datasets__test_video_66x50.mov": (82, 50, 66),
        "decord__corrupted.mp4": "decoding fails after 28 frames: Invalid data found",
        "decord__unordered.mov": (4, 50, 50),
        "decord__video_90.mov": (3, 568, 320),
        "mmcv__palette.gif": (1, 300, 400),
        "moviepy__bitmap.mp4": (5, 1, 1),
        "moviepy__example_mask.mp4": (300, 200, 200),
        "moviepy__fire2.mp4": (25, 720, 1280),
        "moviepy__no_duration.webm": (74, 720, 1280),
        "torchcodec__h264_10bits.mp4": (30, 200, 200),
        **FAILS,
    }
    awkward = {r["file_name"]: int(r["frames"]) for r in rows(shared) if "awkward" in r["notes"]}
    assert awkward.keys() == wanted.keys()
    for name, result in wanted.items():
        if isinstance(result, str):
            with pytest.raises(ClipError) as error:
                decode_clip(shared / "clips" / name, sampler_for(16, 16))
            assert str(error.value).startswith(result)
        else:
            clip = decode_clip(shared / "clips" / name, sampler_for(16, 16))
            assert (len(clip.frames_fhw3), clip.source_height, clip.source_width) == result, name
            assert len(clip.frames_fhw3) == awkward[name]


def test_a_file_that_breaks_counts_only_where_it_is_needed(shared: Path) -> None:
    path = shared / "clips/decord__corrupted.mp4"
    frames = plain_frames(path, 25)[1]
    clip = decode_clip(path, sampler_for(720, 1280, max_frames=25, length_step=4))
    assert np.array_equal(clip.frames_fhw3, frames)
    # 28 frames are there, but a model of 29 would take one more if it could.
    for options in ({"max_frames": 29, "length_step": 4}, {"max_frames": 5, "mode": "spread"}):
        with pytest.raises(ClipError, match="decoding fails"):
            decode_clip(path, sampler_for(16, 16, **options))


@pytest.mark.parametrize("name", ["decord__video_90.mov", "moviepy__fire2.mp4"])
def test_rotated_clips_stand_as_another_reader_shows_them(shared: Path, name: str) -> None:
    ok, bgr = cv2.VideoCapture(str(shared / "clips" / name)).read()
    assert ok
    clip = decode_clip(shared / "clips" / name, sampler_for(*bgr.shape[:2], max_frames=1))
    difference = np.abs(clip.frames_fhw3[0].astype(int) - bgr[..., ::-1])
    assert difference.mean() < 1
    turned = np.rot90(clip.frames_fhw3[0], 2)
    assert np.abs(turned.astype(int) - bgr[..., ::-1]).mean() > 20


def test_the_largest_of_several_streams_is_taken(shared: Path) -> None:
    path = shared / "clips/torchcodec__nasa_13013.mp4"
    with av.open(str(path)) as container:
        sizes = [(s.height, s.width) for s in container.streams.video]
    assert sorted(sizes) == [(180, 320), (270, 480)]
    clip = decode_clip(path, sampler_for(270, 480, max_frames=2))
    assert (clip.source_height, clip.source_width) == (270, 480)


def test_ten_bits_are_rounded_to_eight(shared: Path) -> None:
    path = shared / "clips/torchcodec__h264_10bits.mp4"
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        deep = frame.to_ndarray(format="rgb48le")
    clip = decode_clip(path, sampler_for(200, 200, max_frames=1))
    assert np.abs(clip.frames_fhw3[0] * 257.0 - deep).max() <= 4 * 257


def shown_at(times: list[float], instant: float) -> int:
    return max(i for i, time in enumerate(times) if time - times[0] <= instant + 1.1e-3)


@pytest.mark.parametrize(
    ("name", "fps", "count"),
    [
        ("cogvideo__1.mp4", 16.0, 33),  # of 8 fps
        ("datasets__test_video_66x50.mov", 16.0, 20),  # of 60 fps
        ("io__small.mp4", 16.0, 33),  # of 30 fps
        ("gymnasium__pendulum.gif", 10.0, 34),  # frames shown from 50 to 500 ms
        ("ball-tracking-live-plot__ball3.mp4", 41.0, 40),  # frames shown from 24 to 43 ms
    ],
)
def test_resampling_shows_what_a_player_shows(
    shared: Path, name: str, fps: float, count: int
) -> None:
    path = shared / "clips" / name
    times, frames = plain_frames(path, 100)
    height, width = frames[0].shape[:2]
    clip = decode_clip(path, sampler_for(height, width, max_frames=count, fps=fps))
    shown = [shown_at(times, k / fps) for k in range(count)]
    assert np.array_equal(clip.frames_fhw3, [frames[i] for i in shown])
    assert clip.fps == fps
    nominal = [round(k / fps * (len(times) - 1) / (times[-1] - times[0])) for k in range(count)]
    if name.startswith(("gymnasium", "ball")):
        assert shown != nominal  # true times matter here


def test_spread_takes_the_whole_file(shared: Path) -> None:
    path = shared / "clips/gymnasium__pendulum.gif"
    times, frames = plain_frames(path)
    instants = np.linspace(0, times[-1] - times[0], 9)
    expected = [frames[shown_at(times, t)] for t in instants]
    sampler = sampler_for(500, 500, max_frames=9, mode="spread")
    clip = decode_clip(path, sampler)
    assert np.array_equal(clip.frames_fhw3, expected)
    assert clip.fps == pytest.approx(8 / (times[-1] - times[0]), rel=0.01)
    # A rate bounds their number; the frames' own rate is what they are shown at.
    with_rate = decode_clip(path, sampler_for(500, 500, max_frames=9, mode="spread", fps=10.0))
    assert np.array_equal(with_rate.frames_fhw3, expected)
    assert with_rate.fps == clip.fps
