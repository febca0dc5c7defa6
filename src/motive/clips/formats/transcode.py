"""Re-encoding of clips for trainers that cannot read their container, and their true frame rate."""

import errno
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

from motive.clips.containers import open_media
from motive.errors import ClipError

#: x264's scale of constant quality: 0 is lossless, 18 already looks so; 10 leaves some room.
CRF = 10

#: Seconds. The tick of Matroska, whose 60 frames per second are 16 or 17 ms apart.
_JITTER = Fraction(1, 1000)

# transpose and flips turn planes as they are, without a conversion to RGB. The angle is
# counterclockwise, as in FFmpeg's av_display_rotation_get.
_UPRIGHT = {
    90: [("transpose", "cclock")],
    -90: [("transpose", "clock")],
    180: [("hflip", ""), ("vflip", "")],
}


def reencode_h264(source: Path, target: Path) -> str:
    """Writes the video of `source` as H.264 mp4, without sound, and says what it did.

    Every frame keeps its own presentation time (from zero), so a variable frame rate stays one. The
    rotation of the metadata is applied to the pixels. 4:2:0 material of even size stays 4:2:0;
    everything else (RGB as in gif, odd sizes, finer chroma) becomes 4:4:4, which keeps each pixel
    and is not padded. Depths above 8 bits become 8. One thread, so that the bytes do not depend on
    the machine's cores.

    Raises ClipError when the source does not decode to its end, or changes its size, or has frames
    without increasing times.
    """
    import av

    try:
        with open_media(source) as reader, av.open(str(target), "w", format="mp4") as writer:
            pixel_format = _copy_frames(reader, writer)
    except av.FFmpegError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise OSError(error.errno, error.strerror) from error  # the disk's fault
        raise ClipError(f"cannot be re-encoded: {error.strerror}") from error
    return f"H.264 mp4, crf {CRF}, {pixel_format}, without sound"


def constant_fps(path: Path) -> Fraction | None:
    """Frames per second if all frames are equally far apart to within 1 ms, else None.

    Looks at the packets' times and decodes nothing. None also for a file that cannot be read.
    """
    import av

    try:
        with open_media(path) as reader:
            stream = reader.streams.best("video")
            if stream is None:
                return None
            times = sorted(packet.pts for packet in reader.demux(stream) if packet.pts is not None)
            tick = stream.time_base
    except av.FFmpegError:
        return None
    if len(times) < 2 or tick is None or times[-1] <= times[0]:
        return None
    step = Fraction(times[-1] - times[0], len(times) - 1)
    gaps = pairwise(times)
    if any(abs(later - earlier - step) * tick >= _JITTER for earlier, later in gaps):
        return None
    declared = stream.average_rate
    if declared and abs((len(times) - 1) / declared - (times[-1] - times[0]) * tick) < _JITTER:
        return Fraction(declared)  # free of the rounding of the ticks
    return 1 / (step * tick)


def _copy_frames(reader: Any, writer: Any) -> str:
    import av

    stream = reader.streams.best("video")
    if stream is None:
        raise ClipError("cannot be re-encoded: it has no video stream")
    output: Any = None
    durations: dict[int, int] = {}
    first = last = 0
    size = upright = None
    for frame in reader.decode(stream):
        if frame.pts is None or (output is not None and frame.pts - first <= last):
            raise ClipError("cannot be re-encoded: its frames have no increasing times")
        if output is None:
            first, size = frame.pts, (frame.width, frame.height)
            upright = _upright_graph(frame, stream.time_base)
        elif (frame.width, frame.height) != size:
            raise ClipError("cannot be re-encoded: its frame size changes")
        last, duration = frame.pts - first, frame.duration
        if upright is not None:
            upright.push(frame)
            frame = upright.pull()
        if output is None:
            output = _open_output(writer, stream, frame)
        frame = _convert(frame, output.pix_fmt)
        frame.pts, frame.time_base = last, stream.time_base
        frame.pict_type = av.video.frame.PictureType.NONE  # the encoder chooses its own
        durations[last] = duration
        _mux(writer, output, frame, durations)
    if output is None:
        raise ClipError("cannot be re-encoded: it has no frames")
    _mux(writer, output, None, durations)
    return str(output.pix_fmt)


def _mux(writer: Any, output: Any, frame: Any, durations: dict[int, int]) -> None:
    for packet in output.encode(frame):
        # Without it the last frame would last as long as the one before it.
        packet.duration = durations.pop(packet.pts, 0)
        writer.mux(packet)


def _open_output(writer: Any, stream: Any, frame: Any) -> Any:
    """An H.264 stream of the frame's size, in the source's time base and colours."""
    pixel_format = _pixel_format(frame)
    # Without B-frames the last packet is the last frame, whose duration mp4 then keeps.
    options = {"crf": str(CRF), "preset": "fast", "bf": "0"}
    if pixel_format == "yuv444p":
        # x264 saves on chroma that is not subsampled; this takes the saving back.
        options["x264-params"] = "chroma-qp-offset=-6"
    rate = stream.average_rate or stream.guessed_rate or 25
    output = writer.add_stream("libx264", rate=rate, options=options)
    context = output.codec_context
    output.width, output.height = frame.width, frame.height
    output.pix_fmt = pixel_format
    context.time_base = output.time_base = stream.time_base
    context.thread_count = 1
    ratio = stream.sample_aspect_ratio
    if ratio:
        turned = (frame.width, frame.height) != (stream.width, stream.height)
        context.sample_aspect_ratio = 1 / ratio if turned else ratio
    if frame.format.is_rgb:
        # What a reader assumes that does not look at the tags.
        context.colorspace, context.color_range = 6, 1
    else:
        context.colorspace, context.color_range = frame.colorspace, frame.color_range
        context.color_primaries, context.color_trc = frame.color_primaries, frame.color_trc
    return output


def _pixel_format(frame: Any) -> str:
    kind = frame.format
    even = frame.width % 2 == 0 and frame.height % 2 == 0
    grey = len(kind.components) == 1 and not kind.is_rgb and not kind.has_palette
    halved = not kind.is_rgb and kind.chroma_width(2) == 1 and kind.chroma_height(2) == 1
    return "yuv420p" if even and (grey or halved) else "yuv444p"


def _convert(frame: Any, pixel_format: str) -> Any:
    if frame.format.name == pixel_format:
        return frame
    if frame.format.is_rgb:
        return frame.reformat(format=pixel_format, dst_colorspace="ITU601", dst_color_range="MPEG")
    return frame.reformat(format=pixel_format)


def _upright_graph(frame: Any, time_base: Fraction) -> Any:
    """A filter graph that applies the frame's rotation, or None when it has none."""
    if frame.rotation in (0, 360, -360):
        return None
    import av.filter

    angle = 180 if frame.rotation == -180 else frame.rotation
    if angle not in _UPRIGHT:
        raise ClipError(f"cannot be re-encoded: it is rotated by {angle} degrees")
    graph = av.filter.Graph()
    nodes = [
        graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=time_base
        ),
        *(graph.add(name, arguments) for name, arguments in _UPRIGHT[angle]),
        graph.add("buffersink"),
    ]
    graph.link_nodes(*nodes).configure()
    return graph
