"""AllTracker's two image encoders: pictures to feature maps at an eighth of their resolution.

Source: A. W. Harley et al., "AllTracker: Efficient Dense Point Tracking at High Resolution",
ICCV 2025 (arXiv 2506.07310). The full encoder is ConvNeXt-Tiny (arXiv 2201.03545) cut after its
third stage and kept at stride 8; the tiny one is a residual network in the manner of RAFT
(arXiv 2003.12039) and PIPs (arXiv 2204.04153). Module names are the published checkpoints'.
"""

from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from motive.motion.alltracker_blocks import ChannelNorm, PointwiseConv, SpatialBlock

STRIDE = 8
_PAD_TO = 64
_IMAGE_NORM_EPS = 1e-5
_IMAGE_MEAN = (0.485, 0.456, 0.406)
_IMAGE_STD = (0.229, 0.224, 0.225)


def normalize_images(images_fchw: Tensor) -> Tensor:
    """RGB in 0..255 to the mean and variance that ImageNet's encoders expect, float32."""
    mean, std = (
        torch.tensor(values, device=images_fchw.device)[:, None, None]
        for values in (_IMAGE_MEAN, _IMAGE_STD)
    )
    return (images_fchw.float() / 255 - mean) / std


class Padding(NamedTuple):
    """An image's size, and the pixels to put around it to make its sides multiples of 64."""

    height: int
    width: int
    top: int
    bottom: int
    left: int
    right: int

    @classmethod
    def of(cls, height: int, width: int) -> Self:
        """Half of the missing rows above and half below, the odd one below; columns likewise."""
        rows, columns = -height % _PAD_TO, -width % _PAD_TO
        top, left = rows // 2, columns // 2
        return cls(height, width, top, rows - top, left, columns - left)

    @property
    def area(self) -> int:
        """Pixels after padding."""
        return (self.height + self.top + self.bottom) * (self.width + self.left + self.right)

    def pad(self, images_fchw: Tensor) -> Tensor:
        """Repeats the images' borders outwards."""
        sides = (self.left, self.right, self.top, self.bottom)
        return F.pad(images_fchw, sides, mode="replicate")

    def crop(self, maps_fchw: Tensor) -> Tensor:
        """Undoes `pad` for maps of the padded size; a view."""
        rows = slice(self.top, self.top + self.height)
        return maps_fchw[:, :, rows, self.left : self.left + self.width]


class ConvNeXtTrunk(nn.Module):
    """The first three stages of ConvNeXt-Tiny, the last one dilated instead of down-sampled.

    `(f, 3, h, w)` normalised images to `(f, 384, h/8, w/8)`; h and w are multiples of 8.
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Sequential(nn.Conv2d(3, 96, 4, stride=4), ChannelNorm(96)),
            nn.Sequential(*(SpatialBlock(96) for _ in range(3))),
            nn.Sequential(ChannelNorm(96), nn.Conv2d(96, 192, 2, stride=2)),
            nn.Sequential(*(SpatialBlock(192) for _ in range(3))),
            nn.Sequential(ChannelNorm(192), nn.Conv2d(192, 384, 3, padding=2, dilation=2)),
            nn.Sequential(*(SpatialBlock(384) for _ in range(9))),
        )

    def forward(self, images_fchw: Tensor) -> Tensor:
        features: Tensor = self.features(images_fchw)
        return features


class ImageNorm(nn.Module):
    """Instance normalisation: each channel of each image to zero mean and unit variance."""

    def forward(self, x_fchw: Tensor) -> Tensor:
        # In channels_last memory this is 4 times as fast as `F.instance_norm`, and 30 times as
        # exact as `F.batch_norm`, which sums up the pixels one after the other.
        centred = x_fchw - x_fchw.mean(dim=(2, 3), keepdim=True)
        variance = centred.square().mean(dim=(2, 3), keepdim=True)
        return centred.mul_((variance + _IMAGE_NORM_EPS).rsqrt())


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, each with norm and ReLU, and the input added before a last ReLU."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride=stride, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = ImageNorm()
        self.downsample = (
            nn.Sequential(nn.Conv2d(channels_in, channels, 1, stride=stride), ImageNorm())
            if stride > 1
            else nn.Identity()
        )

    def forward(self, x_fchw: Tensor) -> Tensor:
        y = self.norm(self.conv1(x_fchw)).relu_()
        y = self.norm(self.conv2(y)).relu_()
        return y.add_(self.downsample(x_fchw)).relu_()


class ResidualEncoder(nn.Module):
    """The tiny variant's encoder: four residual stages, brought to one resolution and mixed.

    `(f, 3, h, w)` normalised images to `(f, 128, h/8, w/8)`; h and w are multiples of 8.
    """

    def __init__(self) -> None:
        super().__init__()
        self.norm = ImageNorm()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3)
        self.layer1 = nn.Sequential(ResidualBlock(64, 64, 1), ResidualBlock(64, 64, 1))
        self.layer2 = nn.Sequential(ResidualBlock(64, 96, 2), ResidualBlock(96, 96, 1))
        self.layer3 = nn.Sequential(ResidualBlock(96, 128, 2), ResidualBlock(128, 128, 1))
        self.layer4 = nn.Sequential(ResidualBlock(128, 128, 2), ResidualBlock(128, 128, 1))
        self.conv2 = nn.Conv2d(64 + 96 + 128 + 128, 256, 3, padding=1)
        self.conv3 = PointwiseConv(256, 128)

    def forward(self, images_fchw: Tensor) -> Tensor:
        size = (images_fchw.shape[2] // STRIDE, images_fchw.shape[3] // STRIDE)
        x = self.norm(self.conv1(images_fchw)).relu_()
        stages = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            stages.append(F.interpolate(x, size, mode="bilinear", align_corners=True))
        x = self.norm(self.conv2(torch.cat(stages, dim=1))).relu_()
        features: Tensor = self.conv3(x)
        return features
