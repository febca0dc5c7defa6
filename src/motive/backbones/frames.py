"""The latent grid: the frames that a latent frame covers, the cells that a token covers."""

from motive.backbones.source import AGAIN, ModelSource
from motive.clips.sampling import FrameSampler
from motive.errors import UserError


def causal_frame_map(frames: int, stride: int) -> list[range]:
    """Latent frame 0 is pixel frame 0; latent frame k covers the `stride` frames up to k·stride.

    Raises ValueError unless `frames` is 1 + stride·k: a causal VAE would drop or repeat some.
    """
    if frames < 1 or (frames - 1) % stride:
        raise ValueError(f"{frames} frames are not 1 + {stride}k: the VAE would drop some")
    return [range(1)] + [range(k - stride + 1, k + 1) for k in range(stride, frames, stride)]


def recommended_sampler(
    source: ModelSource,
    frames: int,
    height: int,
    width: int,
    *,
    length_step: int = 1,
    length_offset: int = 1,
) -> FrameSampler:
    """Clips as the model was made for, unless its folder's `motive.json` says otherwise.

    length_step, length_offset: the frame counts that the model takes, as of `FrameSampler`.
    """
    advice = {"frames": frames, "height": height, "width": width, **source.recommended()}
    return FrameSampler(
        max_frames=int(str(advice["frames"])),
        height=int(str(advice["height"])),
        width=int(str(advice["width"])),
        length_step=length_step,
        length_offset=length_offset,
    )


def causal_sampler(
    source: ModelSource, frames: int, height: int, width: int, *, stride: int, patch_frames: int = 1
) -> FrameSampler:
    """`recommended_sampler` of clips of 1 + stride·k frames whose 1 + k latent frames the tokens divide.

    patch_frames: latent frames to a token.
    """
    return recommended_sampler(
        source,
        frames,
        height,
        width,
        length_step=stride * patch_frames,
        length_offset=1 + stride * (patch_frames - 1),
    )


def patch_size(source: ModelSource, denoiser: str) -> tuple[int, int, int]:
    """Latent frames, rows and columns to a token, from the denoiser's `patch_size`.

    Raises UserError when the configuration gives no three numbers.
    """
    patch = source.config(denoiser).get("patch_size", (1, 2, 2))
    if not (
        isinstance(patch, list | tuple)
        and len(patch) == 3
        and all(isinstance(p, int) and p > 0 for p in patch)
    ):
        raise UserError(
            f"the {denoiser} of {source.name} has a patch_size of {patch}, "
            f"not three numbers: {AGAIN}"
        )
    return patch[0], patch[1], patch[2]
