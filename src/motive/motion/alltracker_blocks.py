"""The two residual blocks of AllTracker and the product over channels that both are made of.

Feature maps are `(frames, channels, rows, columns)` tensors in `channels_last` memory format: a
view of them with the channels last is contiguous, and goes through linear layers without a copy.

Source: A. W. Harley et al., "AllTracker: Efficient Dense Point Tracking at High Resolution",
ICCV 2025 (arXiv 2506.07310); the spatial block is that of ConvNeXt (arXiv 2201.03545).
"""

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional as F

LAYER_SCALE_INIT = 1e-6
_NORM_EPS = 1e-6
_IMAGES = 16


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`torch.nn.functional.linear(x, weight, bias)`, on a CPU as a 1x1 convolution.

    MKL, behind `linear`, picks narrow vectors on processors that are not Intel's; oneDNN, behind
    convolutions, does not: 48 and 110 GMAC/s on a Zen 5 core. With one thread, torch gives 1x1
    convolutions of fewer than 16 images to MKL as well, hence the rows are dealt to 16 images.

    Args:
        x: `(..., C_in)`.
        weight: `(C_out, C_in)`.
        bias: `(C_out,)`.

    Returns:
        `(..., C_out)`, contiguous.
    """
    rows = x.numel() // x.shape[-1]
    if x.device.type != "cpu" or rows % _IMAGES:
        return F.linear(x, weight, bias)
    images = x.reshape(_IMAGES, rows // _IMAGES, 1, -1).permute(0, 3, 1, 2)
    products = F.conv2d(images, weight[:, :, None, None], bias)
    return products.permute(0, 2, 3, 1).reshape(*x.shape[:-1], -1)


class PointwiseLinear(nn.Linear):
    """`nn.Linear` through `pointwise`."""

    def forward(self, x: Tensor) -> Tensor:
        return pointwise(x, self.weight, self.bias)


class PointwiseConv(nn.Conv2d):
    """A 1x1 `nn.Conv2d` through `pointwise`."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, 1)

    def forward(self, x_fchw: Tensor) -> Tensor:
        out_fhwc = pointwise(x_fchw.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias)
        return out_fhwc.permute(0, 3, 1, 2)


class ChannelsToLast(nn.Module):
    """`(f, c, h, w)` to `(f, h, w, c)`; a view."""

    def forward(self, x_fchw: Tensor) -> Tensor:
        return x_fchw.permute(0, 2, 3, 1)


class ChannelsToFirst(nn.Module):
    """`(f, h, w, c)` to `(f, c, h, w)`; a view."""

    def forward(self, x_fhwc: Tensor) -> Tensor:
        return x_fhwc.permute(0, 3, 1, 2)


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of each pixel of an `(f, c, h, w)` map."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=_NORM_EPS)

    def forward(self, x_fchw: Tensor) -> Tensor:
        return super().forward(x_fchw.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class SpatialBlock(nn.Module):
    """ConvNeXt's block: a 7x7 depthwise convolution, then a per-pixel MLP, scaled and added."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layer_scale = nn.Parameter(torch.full((channels, 1, 1), LAYER_SCALE_INIT))
        self.block = nn.Sequential(
            nn.Conv2d(channels, channels, 7, padding=3, groups=channels),
            ChannelsToLast(),
            nn.LayerNorm(channels, eps=_NORM_EPS),
            PointwiseLinear(channels, 4 * channels),
            nn.GELU(),
            PointwiseLinear(4 * channels, channels),
            ChannelsToFirst(),
        )

    def forward(self, x_fchw: Tensor) -> Tensor:
        return torch.addcmul(x_fchw, self.layer_scale, self.block(x_fchw))


class TimeAttention(nn.Module):
    """Multi-head self-attention over the frames, at each pixel by itself."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = PointwiseLinear(channels, channels)
        self.to_kv = PointwiseLinear(channels, 2 * channels)
        self.to_out = PointwiseLinear(channels, channels)

    def forward(self, x_fpc: Tensor) -> Tensor:
        """`(frames, pixels, channels)` to the same shape."""
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).permute(1, 2, 0, 3)
            for part in (self.to_q(x_fpc), *self.to_kv(x_fpc).chunk(2, dim=-1))
        )
        mixed_pnfc = F.scaled_dot_product_attention(query, key, value)
        return self.to_out(mixed_pnfc.permute(2, 0, 1, 3).flatten(2))


class TimeTransformer(nn.Module):
    """One pre-norm transformer block over the frames, with its own two residuals."""

    def __init__(self, channels: int, heads: int = 8) -> None:
        super().__init__()
        self.attn = TimeAttention(channels, heads)
        self.mlp = nn.Sequential(
            OrderedDict(
                fc1=PointwiseLinear(channels, 4 * channels),
                gelu=nn.GELU(approximate="tanh"),
                fc2=PointwiseLinear(4 * channels, channels),
            )
        )

    def forward(self, x_fpc: Tensor) -> Tensor:
        channels = x_fpc.shape[-1:]
        x_fpc = x_fpc + self.attn(F.layer_norm(x_fpc, channels, eps=_NORM_EPS))
        return x_fpc + self.mlp(F.layer_norm(x_fpc, channels, eps=_NORM_EPS))


class TemporalBlock(nn.Module):
    """A time transformer, scaled and added to its input, although it has residuals of its own."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layer_scale = nn.Parameter(torch.full((channels, 1), LAYER_SCALE_INIT))
        self.block = TimeTransformer(channels)

    def forward(self, x_fpc: Tensor) -> Tensor:
        """`(frames, pixels, channels)` to the same shape; pixels do not see one another."""
        return torch.addcmul(x_fpc, self.layer_scale[:, 0], self.block(x_fpc))
