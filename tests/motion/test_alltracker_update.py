"""Convex up-sampling against its definition."""

import torch

from motive.motion.alltracker_update import convex_upsample


def test_upsampling_is_its_definition() -> None:
    random = torch.Generator().manual_seed(0)
    state = torch.randn(2, 3, 4, 4, generator=random)
    logits = 8 * torch.randn(2, 576, 3, 4, generator=random)
    found = convex_upsample(state, logits)
    weights = (logits / 4).view(2, 9, 8, 8, 3, 4).softmax(dim=1)
    expected = torch.zeros(2, 4, 24, 32)
    for i in range(3):
        for j in range(4):
            for k in range(9):
                y, x = i + k // 3 - 1, j + k % 3 - 1
                if 0 <= y < 3 and 0 <= x < 4:
                    expected[:, :, 8 * i : 8 * i + 8, 8 * j : 8 * j + 8] += (
                        8 * weights[:, k, None, :, :, i, j] * state[:, y, x, :, None, None]
                    )
    torch.testing.assert_close(found, expected)


def test_a_constant_stays_constant_inside() -> None:
    state = torch.full((1, 4, 4, 4), 0.5)
    pixels = convex_upsample(state, torch.randn(1, 576, 4, 4))
    torch.testing.assert_close(pixels[..., 8:-8, 8:-8], torch.full((1, 4, 16, 16), 4.0))
    assert (pixels[..., 0, :] < 4.0).all()
