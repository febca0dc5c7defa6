"""Re-encoding of clips for an export, and the tiny videos that all tests of the formats use."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from motive.clips.formats.transcode import constant_fps, reencode_h264
from motive.errors import ClipError

_CODECS = {
    ".mp4": ("libx264", "yuv420p"),
    ".mov": ("libx264", "yuv420p"),
    ".mkv": ("libx264", "yuv420p"),
    ".m4v": ("libx264", "yuv420p"),
    ".webm": ("libvpx", "yuv420p"),
    ".avi": ("mpeg4", "yuv420p"),
    ".mpeg": ("mpeg1video", "yuv420p"),
    ".mpg": ("mpeg1video", "yuv420p"),
    ".gif": ("gif", "rgb8"),
}


def write_video(
    path: Path, *, seed: int = 0, size: tuple[int, int] = (32, 24), times: list[int] | None = None
) -> Path:
    """A real video of smooth random pictures, in the container that the suffix says.

    size: width, height. times: presentation times in 1/25 s; four frames in a row by default.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    codec, pixel_format = _CODECS[path.suffix.lower()]
    draw = np.random.default_rng(seed)
    width, height = size
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        stream.codec_context.time_base = Fraction(1, 25)
        for time in times if times is not None else range(4):
            colours = draw.integers(0, 255, (2, 2, 3), dtype=np.uint8)
            picture = np.kron(colours, np.ones((height // 2 + 1, width // 2 + 1, 1), np.uint8))
            frame = av.VideoFrame.from_ndarray(
                np.ascontiguousarray(picture[:height, :width]), format="rgb24"
            )
            frame = frame.reformat(format=pixel_format)
            frame.pts, frame.time_base = time, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def decode(path: Path) -> tuple[list[Fraction], np.ndarray]:
    """Times in seconds from the first frame, and upright pictures `fhwc` in RGB."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        times = [(frame.pts - frames[0].pts) * stream.time_base for frame in frames]
        pictures = [
            np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90) for frame in frames
        ]
    return times, np.stack(pictures)


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    error = np.mean((one.astype(float) - other.astype(float)) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


@pytest.mark.parametrize("suffix", sorted(_CODECS))
def test_every_container_keeps_times_and_pixels(tmp_path: Path, suffix: str) -> None:
    source = write_video(tmp_path / f"a{suffix}", times=list(range(6)))
    reencode_h264(source, tmp_path / "out.mp4")
    times, pictures = decode(source)
    new_times, new_pictures = decode(tmp_path / "out.mp4")
    assert new_times == times
    assert new_pictures.shape == pictures.shape
    assert psnr(new_pictures, pictures) > 37


def test_a_variable_frame_rate_and_the_last_frames_duration_stay(tmp_path: Path) -> None:
    check_times(write_video(tmp_path / "a.gif", times=[0, 1, 2, 10, 11, 40]), tmp_path)


def test_the_last_frame_of_a_real_gif_lasts_as_long_as_it_did(shared: Path, tmp_path: Path) -> None:
    """Smooth motion, where an encoder would like to reorder frames; the last one lasts 11.75 s."""
    check_times(shared / "clips/gymnasium__pendulum.gif", tmp_path)
    with av.open(str(tmp_path / "out.mp4")) as container:
        times = [packet.pts for packet in container.demux(video=0) if packet.size]
    assert times == sorted(times)


def check_times(source: Path, tmp_path: Path) -> None:
    reencode_h264(source, tmp_path / "out.mp4")
    assert decode(tmp_path / "out.mp4")[0] == decode(source)[0]
    assert constant_fps(tmp_path / "out.mp4") is None
    with av.open(str(tmp_path / "out.mp4")) as out, av.open(str(source)) as gif:
        ends = []
        for container in (gif, out):
            stream = container.streams.video[0]
            last = list(container.decode(stream))[-1]
            ends.append((last.pts + last.duration) * stream.time_base)
    assert ends[0] == ends[1]


def test_an_odd_size_is_neither_padded_nor_cropped(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.gif", size=(33, 25))
    done = reencode_h264(source, tmp_path / "out.mp4")
    assert "yuv444p" in done
    assert psnr(decode(tmp_path / "out.mp4")[1], decode(source)[1]) > 37


def test_rotation_is_applied_to_the_pixels(shared: Path, tmp_path: Path) -> None:
    source = shared / "clips/decord__video_90.mov"
    reencode_h264(source, tmp_path / "out.mp4")
    with av.open(str(tmp_path / "out.mp4")) as container:
        frame = next(container.decode(video=0))
        assert (frame.width, frame.height, frame.rotation) == (320, 568, 0)
    assert psnr(decode(tmp_path / "out.mp4")[1], decode(source)[1]) > 37


def test_the_bytes_do_not_depend_on_the_run(tmp_path: Path) -> None:
    source = write_video(tmp_path / "a.webm")
    reencode_h264(source, tmp_path / "one.mp4")
    reencode_h264(source, tmp_path / "two.mp4")
    assert (tmp_path / "one.mp4").read_bytes() == (tmp_path / "two.mp4").read_bytes()


def test_what_does_not_decode_to_its_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.webm").touch()
    (tmp_path / "noise.gif").write_bytes(b"GIF89a" + bytes(100))
    for source in ("empty.webm", "noise.gif"):
        with pytest.raises(ClipError, match="cannot be re-encoded"):
            reencode_h264(tmp_path / source, tmp_path / "out.mp4")


def test_a_file_that_breaks_off_is_refused(shared: Path, tmp_path: Path) -> None:
    with pytest.raises(ClipError):
        reencode_h264(shared / "clips/decord__corrupted.mp4", tmp_path / "out.mp4")


def test_constant_fps(tmp_path: Path) -> None:
    assert constant_fps(write_video(tmp_path / "a.mp4")) == 25
    assert constant_fps(write_video(tmp_path / "a.webm")) == 25
    assert constant_fps(write_video(tmp_path / "half.mp4", times=[0, 2, 4, 6])) == Fraction(25, 2)
    assert constant_fps(write_video(tmp_path / "gap.mp4", times=[0, 1, 2, 9])) is None
    assert constant_fps(write_video(tmp_path / "one.mp4", times=[0])) is None
    (tmp_path / "no.mp4").write_bytes(b"no video")
    assert constant_fps(tmp_path / "no.mp4") is None
