import io

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from motive.web.preview import Preview, encode_preview, preview_size
from thread_count import threads_of


def moving_square(frames: int, height: int, width: int) -> np.ndarray:
    frames_fhw3 = np.full((frames, height, width, 3), (20, 160, 220), np.uint8)
    for frame in range(frames):
        left = frame * (width // 2) // frames
        frames_fhw3[frame, height // 4 : height // 2, left : left + width // 4] = (220, 60, 40)
    return frames_fhw3


def decode(mp4: bytes) -> tuple[av.video.codeccontext.VideoCodecContext, list[av.VideoFrame]]:
    with av.open(io.BytesIO(mp4)) as container:
        frames = list(container.decode(video=0))
        return container.streams.video[0].codec_context, frames


@pytest.mark.parametrize(
    ("shape", "shown"),
    [
        ((9, 64, 64), (64, 64)),
        ((5, 480, 832), (92, 160)),
        ((5, 832, 480), (160, 92)),
        ((3, 37, 53), (36, 52)),
        ((1, 1, 1), (2, 2)),
    ],
)
def test_every_frame_arrives_small_and_playable(
    shape: tuple[int, int, int], shown: tuple[int, int]
) -> None:
    context, frames = decode(encode_preview(moving_square(*shape), 16.0))
    assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
    assert [(frame.height, frame.width) for frame in frames] == [shown] * shape[0]


@pytest.mark.parametrize("fps", [8.0, 16.0, 24000 / 1001, 29.97])
def test_frame_k_is_shown_from_k_over_fps_on(fps: float) -> None:
    _, frames = decode(encode_preview(moving_square(14, 32, 48), fps))
    times = [frame.time for frame in frames]
    np.testing.assert_allclose(times, np.arange(14) / fps, atol=1e-4)


def test_a_key_frame_at_least_every_twelve() -> None:
    _, frames = decode(encode_preview(moving_square(40, 32, 32), 16.0))
    keys = [index for index, frame in enumerate(frames) if frame.key_frame]
    assert keys[0] == 0
    assert max(np.diff([*keys, len(frames)])) <= 12


def test_colours_survive() -> None:
    frames_fhw3 = np.full((4, 64, 64, 3), (20, 160, 220), np.uint8)
    context, frames = decode(encode_preview(frames_fhw3, 16.0))
    assert (context.colorspace, context.color_primaries, context.color_trc) == (1, 1, 1)
    seen_hw3 = frames[-1].to_ndarray(format="rgb24").astype(int)
    assert abs(seen_hw3 - (20, 160, 220)).max() <= 6


def test_the_same_frames_give_the_same_bytes() -> None:
    frames_fhw3 = moving_square(17, 64, 96)
    assert encode_preview(frames_fhw3, 16.0) == encode_preview(frames_fhw3.copy(), 16.0)


def test_views_of_other_memory_are_encoded_as_they_look() -> None:
    frames_fhw3 = moving_square(6, 32, 48)
    view = frames_fhw3[:, ::-1, ::-1]
    assert encode_preview(view, 16.0) == encode_preview(np.ascontiguousarray(view), 16.0)


@given(st.integers(1, 4000), st.integers(1, 4000), st.integers(2, 400))
def test_size_is_even_bounded_and_never_enlarged(height: int, width: int, longer: int) -> None:
    shown = preview_size(height, width, longer)
    assert all(side >= 2 and side % 2 == 0 for side in shown)
    # One pixel is what rounding to an even number may add.
    assert max(shown) <= max(2, min(longer, max(height, width)) + 1)


@pytest.mark.parametrize(
    ("frames_fhw3", "fps", "longer_side", "message"),
    [
        (np.zeros((2, 8, 8, 3), np.float32), 16.0, 160, "uint8"),
        (np.zeros((8, 8, 3), np.uint8), 16.0, 160, "shape"),
        (np.zeros((0, 8, 8, 3), np.uint8), 16.0, 160, "shape"),
        (np.zeros((2, 8, 8, 4), np.uint8), 16.0, 160, "shape"),
        (np.zeros((2, 8, 8, 3), np.uint8), 0.0, 160, "fps"),
        (np.zeros((2, 8, 8, 3), np.uint8), float("nan"), 160, "fps"),
        (np.zeros((2, 8, 8, 3), np.uint8), 16.0, 1, "longer_side"),
    ],
)
def test_what_cannot_be_encoded_is_refused(
    frames_fhw3: np.ndarray, fps: float, longer_side: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        encode_preview(frames_fhw3, fps, longer_side)


@pytest.mark.parametrize(
    ("mask_fhw", "fps", "message"),
    [
        (np.full((2, 4, 4), 1.5, np.float32), 16.0, "outside"),
        (np.full((2, 4, 4), -0.1, np.float32), 16.0, "outside"),
        (np.full((2, 4, 4), np.nan, np.float32), 16.0, "outside"),
        (np.zeros((2, 4, 4), np.uint8), 16.0, "floats"),
        (np.zeros((4, 4), np.float32), 16.0, "shape"),
        (np.zeros((2, 0, 4), np.float32), 16.0, "shape"),
        (np.zeros((2, 4, 4), np.float32), float("inf"), "fps"),
    ],
)
def test_what_is_no_preview_is_refused(mask_fhw: np.ndarray, fps: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Preview(b"", fps, mask_fhw)


def test_frames_are_converted_in_one_thread_to_the_bytes_of_several() -> None:
    frames_fhw3 = moving_square(40, 480, 832)
    threads, mp4 = threads_of(lambda: encode_preview(frames_fhw3, 16.0))
    assert threads == 1
    assert mp4 == encode_preview(frames_fhw3, 16.0)
    rgb = av.VideoFrame.from_ndarray(frames_fhw3[3], format="rgb24")
    for wanted in ({"width": 160, "height": 92, "format": "yuv420p"}, {"format": "yuv420p"}):
        one, two, many = (
            rgb.reformat(**wanted, interpolation="AREA", threads=n).to_ndarray(threads=1)
            for n in (1, 2, 7)
        )
        np.testing.assert_array_equal(one, two)
        np.testing.assert_array_equal(one, many)
