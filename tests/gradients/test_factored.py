"""Factored projections: against the definition, one clip against a batch, and what they refuse."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.utils.checkpoint import checkpoint

from motive.errors import ClipError, UserError
from motive.gradients.counter import key, signs
from motive.gradients.factored import (
    RANK,
    FactoredGradient,
    FactoredProjection,
    linear_parameters,
)
from motive.gradients.projection import make_projection
from motive.gradients.streaming import StreamingGradient

DIM, SEED = 64, 3


class Block(torch.nn.Module):
    """Like a transformer's: layers long enough to be reduced, one used twice, two tied."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Linear(10, 300)
        self.wide = torch.nn.Linear(300, 320)
        self.norm = torch.nn.LayerNorm(320)
        self.twice = torch.nn.Linear(320, 320, bias=False)
        self.also = torch.nn.Linear(320, 320, bias=False)
        self.also.weight = self.twice.weight
        self.out = torch.nn.Linear(320, 10)
        self.unused = torch.nn.Linear(4, 4)
        self.checkpointing: bool | None = None  # True: reentrant

    def middle(self, h: torch.Tensor) -> torch.Tensor:
        h = self.norm(torch.tanh(self.wide(h)))
        h = h + torch.tanh(self.twice(h))
        h = h + torch.tanh(self.twice(h))
        return h + torch.tanh(self.also(h))

    def forward(self, x_btc: torch.Tensor) -> torch.Tensor:
        h = self.embed(x_btc)
        if self.checkpointing is None:
            h = self.middle(h)
        else:
            h = checkpoint(self.middle, h, use_reentrant=self.checkpointing)
        return self.out(h)


@pytest.fixture
def block() -> Block:
    torch.manual_seed(0)
    return Block()


def clips() -> torch.Tensor:
    scale = torch.tensor([1.0, 0.01, 30.0])[:, None, None]
    return torch.randn(3, 6, 10, generator=torch.Generator().manual_seed(1)) * scale


def losses_on(block: Block, x_btc: torch.Tensor) -> Callable[[], torch.Tensor]:
    return lambda: (block(x_btc) - x_btc).square().mean(dim=(1, 2))


def reference(
    block: Block, x_btc: torch.Tensor, parameters: dict[str, torch.nn.Parameter]
) -> np.ndarray:
    """Clip by clip, from whole gradients."""
    whole = StreamingGradient(parameters, "factored", DIM, SEED)
    return np.stack([whole.feature(lambda x=x: losses_on(block, x[None])().sum()) for x in x_btc])


def assert_same(got: np.ndarray, expected: np.ndarray) -> None:
    assert got.dtype == np.float32
    assert got.shape == expected.shape
    errors = np.linalg.norm(got.astype(float) - expected, axis=1)
    assert (errors < 1e-5 * np.linalg.norm(expected, axis=1)).all()


def test_long_sides_of_matrices_are_multiplied_by_their_own_signs() -> None:
    gradients = {
        "both": torch.randn(300, 400),
        "in": torch.randn(256, 257),
        "neither": torch.randn(256, 20),
        "conv": torch.randn(300, 4, 2),
        "bias": torch.randn(1000),
    }

    def factor(side: str, name: str, size: int) -> torch.Tensor:
        drawn = torch.from_numpy(signs(key(SEED, "factored", side, name), 128 * size))
        return drawn.view(128, size).double() / 128**0.5

    reduced = {name: gradient.double() for name, gradient in gradients.items()}
    left, right = factor("out", "both", 300), factor("in", "both", 400)
    reduced["both"] = left @ reduced["both"] @ right.t()
    reduced["in"] = reduced["in"] @ factor("in", "in", 257).t()
    by_fastfood = make_projection("fastfood", DIM, SEED, {n: g.shape for n, g in reduced.items()})
    factored = make_projection("factored", DIM, SEED, {n: g.shape for n, g in gradients.items()})
    by_fastfood.begin()
    factored.begin()
    for name, gradient in gradients.items():
        by_fastfood.add(name, reduced[name].float())
        factored.add(name, gradient)
    assert_same(factored.finish()[None], by_fastfood.finish()[None])


def test_small_models_get_the_papers_projection() -> None:
    gradient = torch.randn(200, 256)
    features = []
    for kind in ("fastfood", "factored"):
        projection = make_projection(kind, DIM, SEED, {"w": (200, 256)})
        projection.begin()
        projection.add("w", gradient)
        features.append(projection.finish())
    assert np.array_equal(features[0], features[1])


@pytest.mark.parametrize("checkpointing", [None, False])
def test_one_clip_has_the_feature_of_its_whole_gradient(
    block: Block, checkpointing: bool | None
) -> None:
    parameters = dict(block.named_parameters())
    expected = reference(block, clips(), parameters)
    block.checkpointing = checkpointing
    gradient = FactoredGradient(block, parameters, DIM, SEED)
    assert gradient.others == ("norm.bias", "norm.weight")
    for x_tc, feature in zip(clips(), expected, strict=True):
        assert_same(gradient.features(losses_on(block, x_tc[None])), feature[None])


@pytest.mark.parametrize("checkpointing", [None, False])
def test_clips_of_a_batch_have_the_features_that_they_have_alone(
    block: Block, checkpointing: bool | None
) -> None:
    parameters = linear_parameters(block, dict(block.named_parameters()))
    expected = reference(block, clips(), parameters)
    block.checkpointing = checkpointing
    gradient = FactoredGradient(block, parameters, DIM, SEED)
    assert gradient.others == ()
    assert_same(gradient.features(losses_on(block, clips())), expected)
    assert_same(gradient.features(losses_on(block, clips().flip(0))), expected[::-1])
    assert_same(gradient.features(losses_on(block, clips()[:2])), expected[:2])


def test_no_weight_gradient_is_formed_and_nothing_is_left_behind(block: Block) -> None:
    parameters = linear_parameters(block, dict(block.named_parameters()))
    block.out.bias.requires_grad_(False)
    asked = {name: p.requires_grad for name, p in block.named_parameters()}
    seen: list[bool] = []

    def losses() -> torch.Tensor:
        seen.extend(p.requires_grad for p in parameters.values())
        return losses_on(block, clips())()

    FactoredGradient(block, parameters, DIM, SEED).features(losses)
    assert not any(seen)
    assert {name: p.requires_grad for name, p in block.named_parameters()} == asked
    assert all(p.grad is None for p in parameters.values())
    assert not any(layer._forward_hooks for layer in block.modules())


def test_half_precision_and_autocast(block: Block) -> None:
    parameters = linear_parameters(block, dict(block.named_parameters()))
    expected = reference(block, clips(), parameters)

    def losses() -> torch.Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            prediction = block(clips())
        return (prediction.float() - clips()).square().mean(dim=(1, 2))

    got = FactoredGradient(block, parameters, DIM, SEED).features(losses)
    cosines = (got * expected).sum(axis=1) / np.linalg.norm(got, axis=1)
    assert (cosines / np.linalg.norm(expected, axis=1) > 0.99).all()  # bfloat16 has 8 bits
    half = block.to(torch.bfloat16)
    parameters = linear_parameters(half, dict(half.named_parameters()))
    got = FactoredGradient(half, parameters, DIM, SEED).features(
        lambda: (half(clips().bfloat16()).float() - clips()).square().mean(dim=(1, 2))
    )
    cosines = (got * expected).sum(axis=1) / np.linalg.norm(got, axis=1)
    assert (cosines / np.linalg.norm(expected, axis=1) > 0.99).all()


def test_lora_factors_are_linear_layers_and_attention_is_not() -> None:
    class Adapted(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.base = torch.nn.Linear(8, 8)
            self.lora_A = torch.nn.Linear(8, 2, bias=False)
            self.lora_B = torch.nn.Linear(2, 8, bias=False)
            self.attention = torch.nn.MultiheadAttention(8, 2)
            self.tokens = torch.nn.Embedding(8, 8)
            self.head = torch.nn.Linear(8, 8, bias=False)
            self.head.weight = self.tokens.weight

    module = Adapted()
    named = dict(module.named_parameters())
    expected = {"base.weight", "base.bias", "lora_A.weight", "lora_B.weight"}
    assert set(linear_parameters(module, named)) == expected
    chosen = {name: named[name] for name in ("lora_A.weight", "tokens.weight")}
    assert set(linear_parameters(module, chosen)) == {"lora_A.weight"}


def test_what_cannot_be_told_apart_is_refused(block: Block) -> None:
    everything = FactoredGradient(block, dict(block.named_parameters()), DIM, SEED)
    with pytest.raises(UserError, match=r"2 of the chosen .*'norm\.bias'.*one by one"):
        everything.features(losses_on(block, clips()))
    parameters = linear_parameters(block, dict(block.named_parameters()))
    gradient = FactoredGradient(block, parameters, DIM, SEED)

    def shared() -> torch.Tensor:
        return losses_on(block, clips())() * block.embed(torch.ones(1, 10)).sum()

    with pytest.raises(ValueError, match=r"'embed\.\w+' was called with 1 .* 3 clips"):
        gradient.features(shared)
    with pytest.raises(ValueError, match="one for each clip"):
        gradient.features(lambda: losses_on(block, clips())().sum())
    block.checkpointing = True
    with pytest.raises(ValueError, match="non-reentrant"):
        gradient.features(losses_on(block, clips().requires_grad_()))
    block.checkpointing = None
    # Nothing of the failures stays.
    assert_same(gradient.features(losses_on(block, clips())), reference(block, clips(), parameters))


def test_what_is_not_finite_fails(block: Block) -> None:
    parameters = linear_parameters(block, dict(block.named_parameters()))
    gradient = FactoredGradient(block, parameters, DIM, SEED)
    with pytest.raises(ClipError, match="loss of clip 2 of 3 is nan"):
        gradient.features(lambda: losses_on(block, clips())() * torch.tensor([1, float("nan"), 1]))

    def steep() -> torch.Tensor:
        return (block.out(torch.zeros(2, 320)) - block.out.bias.detach()).abs().sqrt().sum(dim=1)

    with pytest.raises(ClipError, match=r"out\.(weight|bias)"):
        gradient.features(steep)


def test_variance_is_that_of_two_independent_projections() -> None:
    # A gradient of rank one in one layer is the worst case; dim is as large as L G R^T, so that what
    # is seen is mostly the factors' own error.
    u, v = (torch.randn(n, generator=torch.Generator().manual_seed(n)) for n in (400, 500))
    gradient = torch.outer(u / u.norm(), v / v.norm())
    dim = 16_384
    squares = np.empty(500)
    for seed in range(squares.size):
        projection = FactoredProjection(dim, seed, {"w": (400, 500)})
        projection.begin()
        projection.add("w", gradient)
        squares[seed] = np.sum(projection.finish().astype(np.float64) ** 2)
    left, right = (2 * (1 - float((w / w.norm()).pow(4).sum())) / RANK for w in (u, v))
    expected = (1 + left) * (1 + right) - 1 + 2 / dim
    assert abs(squares.mean() - 1) < 4 * (expected / squares.size) ** 0.5
    assert abs(squares.var() / expected - 1) < 0.25  # four standard errors of a variance


def test_errors_of_layers_do_not_add_up() -> None:
    # The same gradient in 30 layers: with L and R shared between layers the variance of |Px|^2 would
    # stay that of one layer, 0.031.
    layers, dim = 30, 4096
    gradient = torch.outer(torch.ones(300), torch.ones(257)) / (300 * 257 * layers) ** 0.5
    shapes = {f"layer.{i}.weight": (300, 257) for i in range(layers)}
    squares = np.empty(150)
    for seed in range(squares.size):
        projection = FactoredProjection(dim, seed, shapes)
        projection.begin()
        for name in shapes:
            projection.add(name, gradient)
        squares[seed] = np.sum(projection.finish().astype(np.float64) ** 2)
    expected = 0.0315 / layers + 2 / dim + 2 / 65_521
    assert abs(squares.mean() - 1) < 4 * (expected / squares.size) ** 0.5
    assert squares.var() < 1.5 * expected
