"""The motion-weighted loss against the plain one and against its formula."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from motive.gradients.loss import motion_weighted_loss


def pair(shape: tuple[int, ...], seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)


@settings(deadline=None, max_examples=50)
@given(st.tuples(*[st.integers(1, 7)] * 4), st.integers(0, 10**6))
def test_a_mask_of_ones_is_the_plain_loss_bit_for_bit(
    shape: tuple[int, int, int, int], seed: int
) -> None:
    prediction, target = pair(shape, seed)
    loss = motion_weighted_loss(prediction, target, torch.ones(shape[1:]))
    assert loss.item() == torch.nn.functional.mse_loss(prediction, target).item()
    assert loss.dtype == torch.float32
    assert loss.shape == ()


def test_a_mask_of_ones_has_the_plain_gradient_bit_for_bit() -> None:
    prediction, target = pair((16, 3, 4, 4))
    one, other = prediction.clone().requires_grad_(), prediction.clone().requires_grad_()
    motion_weighted_loss(one, target, torch.ones(3, 4, 4)).backward()
    (other - target).square().mean().backward()
    assert one.grad is not None
    assert other.grad is not None
    assert torch.equal(one.grad, other.grad)


@settings(deadline=None, max_examples=30)
@given(st.tuples(*[st.integers(1, 4)] * 4), st.integers(0, 10**6), st.integers(1, 81) | st.none())
def test_the_formula(shape: tuple[int, int, int, int], seed: int, frames: int | None) -> None:
    prediction, target = pair(shape, seed)
    mask = torch.rand(shape[1:], generator=torch.Generator().manual_seed(seed))
    total = 0.0
    for c in range(shape[0]):
        for f in range(shape[1]):
            for y in range(shape[2]):
                for x in range(shape[3]):
                    difference = prediction[c, f, y, x].item() - target[c, f, y, x].item()
                    total += mask[f, y, x].item() * difference**2
    expected = total / (shape[0] * shape[1] * shape[2] * shape[3]) / (frames or 1)
    assert motion_weighted_loss(prediction, target, mask, frames).item() == pytest.approx(
        expected, rel=1e-5, abs=1e-9
    )


def test_the_mask_weighs_the_gradient_and_nothing_else() -> None:
    prediction, target = pair((2, 3, 2, 2))
    mask = torch.zeros(3, 2, 2)
    mask[1, 0, 1], mask[2] = 0.5, 1.0
    prediction.requires_grad_()
    motion_weighted_loss(prediction, target, mask, 9).backward()
    assert prediction.grad is not None
    expected = 2 * mask * (prediction - target).detach() / (2 * 3 * 2 * 2) / 9
    assert torch.allclose(prediction.grad, expected, rtol=1e-5, atol=1e-9)
    assert (prediction.grad[:, 0] == 0).all()


def test_half_precision_is_lifted_before_the_difference() -> None:
    prediction = torch.full((1, 1, 1, 1), 256.0, dtype=torch.bfloat16)
    target = torch.full((1, 1, 1, 1), 256.5)
    loss = motion_weighted_loss(prediction, target, torch.ones(1, 1, 1, dtype=torch.float64))
    assert (loss.item(), loss.dtype) == (0.25, torch.float32)
