"""Small playable clips for web pages: a few kilobytes of H.264, and the motion mask beside them."""

import io
import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

# A key frame at least this often keeps scrubbing immediate; at this size the extra bytes are few.
_KEYFRAME_INTERVAL = 12
_TIME_BASE_LIMIT = 65535


@dataclass(frozen=True)
class Preview:
    """A small playable clip and its motion mask.

    mp4: H.264 in yuv420p, at most about 160 pixels on the longer side (`encode_preview`).
    fps: frames per second of `mp4`.
    mask_fhw: motion mask W̃ in [0, 1], shape (frames, h, w): one latent grid per pixel frame of
        `mp4`, so that it can be laid over the frame that is being shown.

    Raises ValueError if the mask is not such an array, or fps is not a positive number.
    """

    mp4: bytes
    fps: float
    mask_fhw: np.ndarray

    def __post_init__(self) -> None:
        mask = self.mask_fhw
        if mask.ndim != 3 or 0 in mask.shape or not np.issubdtype(mask.dtype, np.floating):
            raise ValueError(
                f"mask_fhw must be floats of shape (frames, h, w), got {mask.dtype} {mask.shape}"
            )
        # Written so that NaN fails too.
        if not (mask.min() >= 0 and mask.max() <= 1):
            raise ValueError("mask_fhw has values outside [0, 1]")
        if not (math.isfinite(self.fps) and self.fps > 0):
            raise ValueError(f"fps must be a positive number, got {self.fps}")


def preview_size(height: int, width: int, longer_side: int = 160) -> tuple[int, int]:
    """The even (height, width) of a preview: aspect ratio kept, never enlarged.

    yuv420p stores one chroma sample for 2×2 pixels, hence even numbers, and at least 2.
    """
    scale = min(1.0, longer_side / max(height, width))

    def even(length: int) -> int:
        return max(2, 2 * round(length * scale / 2))

    return even(height), even(width)


def encode_preview(frames_fhw3: npt.NDArray[np.uint8], fps: float, longer_side: int = 160) -> bytes:
    """Encode frames as a small mp4 that every browser plays.

    frames_fhw3: RGB, uint8, shape (frames, height, width, 3).
    fps: frames per second, taken to the nearest fraction with a denominator up to 65535.
    longer_side: greatest length in pixels; smaller clips keep their size, and each side is rounded
        to an even number.

    Returns the bytes of an mp4: H.264, yuv420p, BT.709, no B-frames (so frame k is shown from
    exactly k/fps on), a key frame at least every 12 frames. The same input gives the same bytes
    with the same PyAV.

    Raises ValueError if the array is not of this kind, or fps or longer_side is out of range.
    """
    import av
    from av.video.reformatter import ColorRange, Colorspace, Interpolation

    frames = np.asarray(frames_fhw3)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
        raise ValueError(
            f"frames must be uint8 of shape (frames, height, width, 3), "
            f"got {frames.dtype} {frames.shape}"
        )
    if not (math.isfinite(fps) and fps >= 1 / _TIME_BASE_LIMIT):
        raise ValueError(f"fps must be a positive number, got {fps}")
    if longer_side < 2:
        raise ValueError(f"longer_side must be at least 2, got {longer_side}")

    rate = Fraction(fps).limit_denominator(_TIME_BASE_LIMIT)
    height, width = preview_size(frames.shape[1], frames.shape[2], longer_side)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = 1 / rate
        stream.thread_count = 1  # x264's output depends on its number of threads
        context = stream.codec_context
        context.max_b_frames = 0
        context.gop_size = _KEYFRAME_INTERVAL
        # Untagged video is guessed to be BT.601 by some browsers and BT.709 by others.
        context.colorspace = context.color_primaries = context.color_trc = 1
        context.color_range = ColorRange.MPEG
        context.options = {"preset": "medium", "crf": "24", "flags": "+bitexact"}
        for index, frame_hw3 in enumerate(frames):
            rgb = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame_hw3), format="rgb24")
            yuv = rgb.reformat(
                width=width,
                height=height,
                format="yuv420p",
                interpolation=Interpolation.AREA,
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
                threads=1,  # else as many as there are processors, for each of many workers
            )
            yuv.pts, yuv.time_base = index, 1 / rate
            container.mux(stream.encode(yuv))
        container.mux(stream.encode(None))
    return buffer.getvalue()
