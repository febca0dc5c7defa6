"""Decoding of files made to trip a reader, and how much is decoded and kept."""

import math
import struct
import tracemalloc
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from motive.clips import decoding
from motive.clips.decoding import content_digest, decode_clip
from motive.clips.sampling import FrameSampler
from motive.errors import ClipError

EVERYTHING = 10**6  # more frames than any file has


def plain_frames(path: Path, limit: int = EVERYTHING) -> tuple[list[float], list[np.ndarray]]:
    """Times and RGB frames of the largest video stream, as stored: not upright, not resized."""
    times, frames = [], []
    with av.open(str(path)) as container:
        stream = max(container.streams.video, key=lambda s: s.width * s.height)
        for frame in container.decode(stream):
            assert frame.pts is not None
            assert frame.time_base is not None
            times.append(float(frame.pts * frame.time_base))
            frames.append(frame.to_rgb().to_ndarray())
            if len(frames) == limit:
                break
    return times, frames


def sampler_for(height: int, width: int, **options: object) -> FrameSampler:
    return FrameSampler(**{"max_frames": EVERYTHING, "height": height, "width": width, **options})  # type: ignore[arg-type]


def video(
    path: Path,
    frames: list[np.ndarray],
    *,
    fps: int = 25,
    codec: str = "libx264",
    pix_fmt: str = "yuv444p",
    times_ms: list[int] | None = None,
    **options: str,
) -> Path:
    """Write frames, at given milliseconds or at a constant rate, nearly without loss."""
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=fps)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pix_fmt
        if codec == "libx264":
            # Every other frame is a B-frame, stored after the frame that it is shown before.
            params = "bframes=1:b-adapt=0:scenecut=0:weightp=0"
            stream.options = {"crf": "4", "x264-params": params, "threads": "1"}
        tick = stream.codec_context.time_base = Fraction(1, 1000 if times_ms else fps)
        for i, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = (times_ms or range(len(frames)))[i], tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def numbered(count: int, height: int = 32, width: int = 48) -> list[np.ndarray]:
    """Frames whose grey tells their number."""
    return [np.full((height, width, 3), 10 + 3 * i, np.uint8) for i in range(count)]


def numbers_of(frames_fhw3: np.ndarray) -> list[int]:
    means = frames_fhw3.reshape(len(frames_fhw3), -1).mean(1)
    return [round((m - 10) / 3) for m in means]


def noise_video(path: Path, count: int = 60) -> Path:
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 255, (64, 64, 3), np.uint8) for _ in range(count)]
    return video(path, frames, pix_fmt="yuv420p", movflags="faststart")


# --- files made to trip a reader


def test_variable_frame_rate_uses_true_times(tmp_path: Path) -> None:
    times = [0, 40, 80, 500, 520, 540, 1000]
    path = video(tmp_path / "a.mkv", numbered(7), times_ms=times)
    clip = decode_clip(path, sampler_for(32, 48, fps=10.0))
    assert numbers_of(clip.frames_fhw3) == [0, 2, 2, 2, 2, 3, 5, 5, 5, 5, 6]
    assert clip.source_fps == pytest.approx(6.0)
    own = decode_clip(path, sampler_for(32, 48))
    assert numbers_of(own.frames_fhw3) == list(range(7))


def test_times_that_do_not_begin_at_zero(tmp_path: Path) -> None:
    path = video(tmp_path / "a.mkv", numbered(5), times_ms=[700, 800, 900, 1000, 1100])
    clip = decode_clip(path, sampler_for(32, 48, fps=20.0))
    assert numbers_of(clip.frames_fhw3) == [0, 0, 1, 1, 2, 2, 3, 3, 4]


def test_frames_come_in_presentation_order(tmp_path: Path) -> None:
    path = video(tmp_path / "a.mp4", numbered(30))
    with av.open(str(path)) as container:
        stored = [p.pts for p in container.demux(video=0) if p.pts is not None]
    assert stored != sorted(stored)
    clip = decode_clip(path, sampler_for(32, 48))
    assert numbers_of(clip.frames_fhw3) == list(range(30))


def with_matrix(path: Path, a: float, b: float, c: float, d: float) -> Path:
    """Write a display matrix into the mp4's track header: (x, y) goes to (ax + cy, bx + dy)."""
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 4 + 4 + 20 + 8 + 8
    a, b, c, d = (round(v * (1 << 16)) for v in (a, b, c, d))
    content[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path


# What a phone or an editor writes, and what numpy does for it.
ORIENTATIONS: dict[str, tuple[tuple[int, int, int, int], Callable[[np.ndarray], np.ndarray]]] = {
    "upright": ((1, 0, 0, 1), lambda image: image),
    "90 clockwise": ((0, 1, -1, 0), lambda image: np.rot90(image, 3)),
    "180": ((-1, 0, 0, -1), lambda image: np.rot90(image, 2)),
    "270 clockwise": ((0, -1, 1, 0), lambda image: np.rot90(image, 1)),
    "left for right": ((-1, 0, 0, 1), lambda image: image[:, ::-1]),
    "upside down": ((1, 0, 0, -1), lambda image: image[::-1]),
    "rows for columns": ((0, 1, 1, 0), lambda image: image.transpose(1, 0, 2)),
    "both": ((0, -1, -1, 0), lambda image: image.transpose(1, 0, 2)[::-1, ::-1]),
}


def cornered(path: Path) -> Path:
    image = np.zeros((32, 48, 3), np.uint8)
    image[:16, :24], image[16:, :24] = (255, 0, 0), (0, 0, 255)
    return video(path, [image] * 3)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_rotation_and_mirroring_metadata_are_honoured(tmp_path: Path, orientation: str) -> None:
    matrix, shown = ORIENTATIONS[orientation]
    path = with_matrix(cornered(tmp_path / "a.mp4"), *matrix)
    expected = shown(plain_frames(path)[1][0])
    height, width = expected.shape[:2]
    clip = decode_clip(path, sampler_for(height, width))
    assert np.array_equal(clip.frames_fhw3[0], expected)
    assert (clip.source_height, clip.source_width) == (height, width)


def test_a_rotation_by_something_else_is_refused(tmp_path: Path) -> None:
    path = with_matrix(cornered(tmp_path / "a.mp4"), 0.7071, 0.7071, -0.7071, 0.7071)
    with pytest.raises(ClipError, match="not by quarter turns"):
        decode_clip(path, sampler_for(32, 48))


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_truncated_file_is_said_to_be_broken(tmp_path: Path, share: float) -> None:
    content = noise_video(tmp_path / "whole.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    path = tmp_path / "cut.mp4"
    path.write_bytes(content[: int(share * len(content))])
    for options in ({"mode": "spread", "max_frames": 9}, {}):
        with pytest.raises(ClipError, match="decoding fails"):
            decode_clip(path, sampler_for(64, 64, **options))
    # What comes before the break is enough for a short clip.
    assert len(decode_clip(path, sampler_for(64, 64, max_frames=9)).frames_fhw3) == 9


def test_a_codec_that_nobody_knows(tmp_path: Path) -> None:
    path = video(tmp_path / "a.mp4", numbered(5))
    content = path.read_bytes()
    assert content.count(b"avc1") >= 1
    path.write_bytes(content.replace(b"avc1", b"zzzz"))
    with pytest.raises(ClipError, match="an unknown codec or a damaged header"):
        decode_clip(path, sampler_for(16, 16))


def test_a_file_without_its_index_is_no_media_file(tmp_path: Path) -> None:
    path = video(tmp_path / "a.mp4", numbered(20))
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"moov")])  # it comes last here
    with pytest.raises(ClipError, match="not a readable media file"):
        decode_clip(path, sampler_for(16, 16))


def text_file(folder: Path) -> Path:
    path = folder / "a.mp4"
    path.write_text("version https://git-lfs.github.com/spec/v1\n" * 20)
    return path


def empty_file(folder: Path) -> Path:
    (folder / "a.mp4").touch()
    return folder / "a.mp4"


def missing_file(folder: Path) -> Path:
    return folder / "a.mp4"


def folder_of_that_name(folder: Path) -> Path:
    (folder / "a.mp4").mkdir()
    return folder / "a.mp4"


def sound_only(folder: Path) -> Path:
    path = folder / "a.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 2048), np.float32), "fltp", "mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (text_file, "not a readable media file: Invalid data found"),
        (empty_file, "the file is empty"),
        (missing_file, "cannot be read: No such file or directory"),
        (folder_of_that_name, "not a readable media file"),
        (sound_only, "the file has no video stream"),
    ],
)
@pytest.mark.parametrize("mode", ["first", "spread"])
def test_what_is_no_clip_gives_its_reason(
    tmp_path: Path, make: Callable[[Path], Path], reason: str, mode: str
) -> None:
    with pytest.raises(ClipError) as error:
        decode_clip(make(tmp_path), sampler_for(16, 16, mode=mode))
    assert str(error.value).startswith(reason)
    assert str(tmp_path) not in str(error.value)


def test_too_few_frames_for_the_model(tmp_path: Path) -> None:
    path = video(tmp_path / "a.mp4", numbered(7))
    with pytest.raises(ClipError, match="only 7 frames, the model needs 8"):
        decode_clip(path, sampler_for(16, 16, length_step=4, length_offset=8))


def test_frames_too_large_to_be_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = video(tmp_path / "a.mp4", numbered(2, 32, 48))
    monkeypatch.setattr(decoding, "MAX_PIXELS", 32 * 48 - 1)
    with pytest.raises(ClipError, match="48×32 pixels are too large"):
        decode_clip(path, sampler_for(16, 16))


def test_a_strip_is_refused_before_it_is_blown_up(tmp_path: Path) -> None:
    # To fill 832 pixels of width, 2 × 2048 would become 832 × 851,968 before the middle is cut out.
    path = video(tmp_path / "a.mkv", [np.zeros((2048, 2, 3), np.uint8)] * 2, codec="ffv1",
                 pix_fmt="bgr0")  # fmt: skip
    with pytest.raises(ClipError, match="2×2048 pixels are too narrow"):
        decode_clip(path, sampler_for(480, 832))
    assert decode_clip(path, sampler_for(480, 832, fit="stretch")).frames_fhw3.shape[1:3] == (
        480,
        832,
    )


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 7), (33, 51), (231, 540), (2, 2)])
@pytest.mark.parametrize("fit", ["crop", "stretch"])
def test_odd_sizes_are_brought_to_the_wanted_one(
    tmp_path: Path, height: int, width: int, fit: str
) -> None:
    frames = [np.full((height, width, 3), 90 * i, np.uint8) for i in range(3)]
    path = video(tmp_path / "a.mkv", frames, codec="ffv1", pix_fmt="bgr0")
    clip = decode_clip(path, sampler_for(32, 48, fit=fit))
    assert clip.frames_fhw3.shape == (3, 32, 48, 3)
    assert (clip.source_height, clip.source_width) == (height, width)
    for i, frame in enumerate(clip.frames_fhw3):
        assert (frame == 90 * i).all()


def test_crop_keeps_the_aspect_and_the_middle_and_stretch_keeps_the_edges(tmp_path: Path) -> None:
    # A wide picture with a disc in its middle and bright margins.
    y, x = np.mgrid[:60, :120]
    image = np.zeros((60, 120, 3), np.uint8)
    image[(x - 59.5) ** 2 + (y - 29.5) ** 2 < 400] = (0, 255, 0)
    image[:, :20] = image[:, 100:] = 255
    path = video(tmp_path / "a.mkv", [image], codec="ffv1", pix_fmt="bgr0")

    def box(mask: np.ndarray) -> tuple[int, int]:
        rows, columns = np.nonzero(mask)
        return int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1

    cropped = decode_clip(path, sampler_for(30, 30)).frames_fhw3[0]
    assert box(cropped[..., 1] > 128) == (20, 20)
    assert (cropped[..., 0] < 60).all()  # the margins are cut off on both sides
    stretched = decode_clip(path, sampler_for(30, 30, fit="stretch")).frames_fhw3[0]
    assert box((stretched[..., 1] > 128) & (stretched[..., 0] < 60)) == (20, 10)
    assert (stretched[:, [0, -1]] == 255).all()
    # The picture's middle stays in the middle.
    for image in (cropped, stretched):
        assert np.abs(image.astype(int) - image[:, ::-1]).max() <= 2


def test_shrinking_averages_and_does_not_alias(tmp_path: Path) -> None:
    checks = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, 2)
    path = video(tmp_path / "a.mkv", [checks], codec="ffv1", pix_fmt="bgr0")
    small = decode_clip(path, sampler_for(16, 16)).frames_fhw3
    assert np.abs(small.astype(int) - 127).max() <= 1


def test_a_gif_is_composed_from_its_patches(tmp_path: Path) -> None:
    frames = []
    for i in range(6):  # a small square walks; a gif stores only what changed
        image = np.zeros((40, 40, 3), np.uint8)
        image[10:20, 5 * i : 5 * i + 10] = 255
        frames.append(image)
    path = video(tmp_path / "a.gif", frames, codec="gif", pix_fmt="rgb8", fps=10)
    clip = decode_clip(path, sampler_for(40, 40))
    assert np.array_equal(clip.frames_fhw3 > 128, np.array(frames) > 128)
    assert (clip.codec, clip.fps) == ("gif", pytest.approx(10.0))


def test_the_digest_is_of_the_bytes(tmp_path: Path) -> None:
    for name, content in (("a.mp4", b"x"), ("b.mov", b"x"), ("c.mp4", b"y")):
        (tmp_path / name).write_bytes(content)
    a, b, c = (content_digest(tmp_path / name) for name in ("a.mp4", "b.mov", "c.mp4"))
    assert a == b != c
    assert len(a) == 32
    with pytest.raises(ClipError, match="cannot be read: No such file"):
        content_digest(tmp_path / "d.mp4")
    with pytest.raises(ClipError, match="cannot be read: Is a directory"):
        content_digest(tmp_path)


def test_two_decodings_are_equal(tmp_path: Path) -> None:
    path = noise_video(tmp_path / "a.mp4", 20)
    one, two = (decode_clip(path, sampler_for(24, 24)) for _ in range(2))
    assert np.array_equal(one.frames_fhw3, two.frames_fhw3)
    assert math.isclose(one.fps, 25.0)


# --- how much is decoded and kept


def test_spread_keeps_only_the_chosen_frames_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = video(tmp_path / "a.mp4", numbered(80, 360, 640))
    converted: list[int] = []
    real = decoding._upright

    def counting(frame: av.VideoFrame) -> np.ndarray:
        converted.append(1)
        return real(frame)

    monkeypatch.setattr(decoding, "_upright", counting)
    tracemalloc.start()
    try:
        clip = decode_clip(path, sampler_for(180, 320, max_frames=5, mode="spread"))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert numbers_of(clip.frames_fhw3) == [0, 19, 39, 59, 79]
    assert len(converted) == 5
    # Five kept, five stacked, and what one conversion needs; 80 frames would be 80.
    assert peak < 40 * 180 * 320 * 3


def test_decoding_stops_when_the_sampler_has_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = video(tmp_path / "a.mp4", numbered(60))
    seen: list[float] = []
    real = decoding._frames

    def counting(path: Path):  # type: ignore[no-untyped-def]
        for time, name, frame in real(path):
            seen.append(time)
            yield time, name, frame

    monkeypatch.setattr(decoding, "_frames", counting)
    decode_clip(path, sampler_for(32, 48, max_frames=9))
    assert len(seen) == 9
