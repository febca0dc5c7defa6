"""Files that end too early, which FFmpeg takes for shorter clips."""

import shutil
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from motive.clips.decoding import decode_clip
from motive.clips.sampling import FrameSampler
from motive.clips.truncation import gif_is_cut
from motive.errors import ClipError

FPS, FRAMES = 20, 40
ALL = FrameSampler(max_frames=10**6, height=32, width=32)
NINE = FrameSampler(max_frames=9, height=32, width=32)
SPREAD = FrameSampler(max_frames=9, height=32, width=32, mode="spread")


def moving_noise(path: Path, codec: str, pix_fmt: str, *, sound_s: float = 0.0) -> Path:
    """Two seconds of video, with silence of `sound_s` seconds beside it."""
    rng = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=FPS)
        video.width = video.height = 32
        video.pix_fmt = pix_fmt
        sound = container.add_stream("libopus", rate=48_000) if sound_s else None
        for i in range(FRAMES):
            image = rng.integers(0, 256, (32, 32, 3), np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=pix_fmt)
            frame.pts, frame.time_base = i, Fraction(1, FPS)
            container.mux(video.encode(frame))
        container.mux(video.encode())
        if sound is not None:
            for start in range(0, round(sound_s * 48_000), 960):
                silence = av.AudioFrame.from_ndarray(
                    np.zeros((1, 960 * 2), np.int16), format="s16", layout="stereo"
                )
                silence.pts, silence.sample_rate = start, 48_000
                container.mux(sound.encode(silence))
            container.mux(sound.encode())
    return path


KINDS = {
    "mkv": ("libx264", "yuv420p"),
    "webm": ("libvpx-vp9", "yuv420p"),
    "avi": ("mpeg4", "yuv420p"),
    "gif": ("gif", "rgb8"),
}


@pytest.fixture(params=KINDS)
def whole(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return moving_noise(tmp_path / f"whole.{request.param}", *KINDS[request.param])


def cut(file: Path, share: float) -> Path:
    content = file.read_bytes()
    path = file.with_name(f"cut{file.suffix}")
    path.write_bytes(content[: round(share * len(content))])
    return path


def test_a_whole_file_is_taken(whole: Path) -> None:
    assert len(decode_clip(whole, ALL).frames_fhw3) == FRAMES


@pytest.mark.parametrize("share", [0.4, 0.6, 0.8])
def test_a_cut_file_is_no_shorter_clip(whole: Path, share: float) -> None:
    path = cut(whole, share)
    for sampler in (ALL, SPREAD):
        with pytest.raises(ClipError, match=r"cut off|Invalid data"):
            decode_clip(path, sampler)
    if path.suffix == ".avi":
        return  # its index lies at its end: without it FFmpeg finds few of the frames that are there
    # What comes before the cut is enough for a short clip.
    assert len(decode_clip(path, NINE).frames_fhw3) == 9


def test_how_much_is_missing_is_said(tmp_path: Path) -> None:
    path = cut(moving_noise(tmp_path / "a.mkv", *KINDS["mkv"]), 0.5)
    with pytest.raises(ClipError, match=r"the file is cut off, (0\.9|1\.[012]) s of its video are"):
        decode_clip(path, ALL)


@pytest.mark.parametrize("sound_s", [1.0, 6.0])
@pytest.mark.parametrize("kind", ["mkv", "webm"])
def test_sound_may_be_longer_or_shorter_than_the_pictures(
    tmp_path: Path, kind: str, sound_s: float
) -> None:
    path = moving_noise(tmp_path / f"a.{kind}", *KINDS[kind], sound_s=sound_s)
    # Without the tags, there is only the duration of the whole.
    untagged = tmp_path / f"untagged.{kind}"
    untagged.write_bytes(path.read_bytes().replace(b"DURATION", b"DURATIOM"))
    for file in (path, untagged):
        assert len(decode_clip(file, ALL).frames_fhw3) == FRAMES
    with pytest.raises(ClipError, match="cut off"):
        decode_clip(cut(untagged, 0.3), ALL)


def test_a_film_that_states_no_duration_is_taken_as_it_is(shared: Path, tmp_path: Path) -> None:
    """As browsers record it: nothing tells that more was to come."""
    path = tmp_path / "whole.webm"
    shutil.copy(shared / "clips/moviepy__no_duration.webm", path)
    assert 9 < len(decode_clip(cut(path, 0.5), ALL).frames_fhw3) < 74


def test_a_gif_is_read_block_by_block(tmp_path: Path) -> None:
    content = moving_noise(tmp_path / "a.gif", *KINDS["gif"]).read_bytes()
    path = tmp_path / "b.gif"

    def is_cut(new: bytes) -> bool:
        path.write_bytes(new)
        return gif_is_cut(path)

    assert not is_cut(content)
    assert not is_cut(content + b"what an editor left behind")
    assert not is_cut(content[:-1] + b"\0\0;")
    for length in range(len(content) - 1, 0, -997):
        # Wherever the cut is, and also where what is left happens to end in the trailer's byte.
        assert is_cut(content[:length])
    inside = content.index(b";", len(content) // 2)
    assert inside < len(content) - 1
    assert is_cut(content[: inside + 1])
