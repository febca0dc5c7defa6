"""Gradients of a batch, each clip's by itself, against one call of autograd for each clip."""

import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import WanTransformer3DModel
from hypothesis import given, settings
from hypothesis import strategies as st

from motive.errors import ClipError
from motive.gradients.per_sample import BatchError, per_sample_gradients
from motive.gradients.streaming import StreamingGradient, choose_parameters

SIZE = 3


def together(
    module: torch.nn.Module, x: torch.Tensor, loss_of: Callable[[torch.Tensor], torch.Tensor]
) -> dict[str, torch.Tensor]:
    parameters = choose_parameters(module, "*")
    found: dict[str, torch.Tensor] = {}

    def take(name: str, gradients: torch.Tensor) -> None:
        assert name not in found
        found[name] = gradients.clone()

    with per_sample_gradients(parameters, len(x), take) as backward:
        backward(loss_of(module(x)))
    for parameter in parameters.values():
        assert parameter.grad is None
        assert not parameter._post_accumulate_grad_hooks
    return found


def squares(y: torch.Tensor) -> torch.Tensor:
    return y.square().flatten(1).sum(1)


def assert_each_is_its_own(
    module: torch.nn.Module,
    x: torch.Tensor,
    loss_of: Callable[[torch.Tensor], torch.Tensor] = squares,
) -> None:
    found = together(module, x, loss_of)
    parameters = dict(module.named_parameters())
    for clip in range(len(x)):
        own = torch.autograd.grad(
            loss_of(module(x[clip : clip + 1])).sum(), list(parameters.values()), allow_unused=True
        )
        for (name, parameter), gradient in zip(parameters.items(), own, strict=True):
            if gradient is None:
                assert name not in found
                continue
            assert found[name].shape == (len(x), *parameter.shape)
            assert torch.allclose(found[name][clip], gradient, rtol=1e-5, atol=1e-6), name


class Everything(torch.nn.Module):
    """Every use of a parameter that is known."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = torch.nn.Conv2d(2, 8, kernel_size=2, stride=2)
        self.no_bias = torch.nn.Linear(8, 8, bias=False)
        self.layer_norm = torch.nn.LayerNorm(8)
        self.rms_norm = torch.nn.RMSNorm(8)
        self.table = torch.nn.Parameter(torch.randn(1, 2, 8))
        self.scale = torch.nn.Parameter(torch.randn(8))
        self.offset = torch.nn.Parameter(torch.randn(1, 1, 8))
        self.embed = torch.nn.Linear(2, 8)
        self.last = torch.nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.patches(x).flatten(2).mT
        summary = F.silu(self.embed(x.mean((2, 3))))[:, None]
        shift, scale = (self.table.float() + summary).chunk(2, dim=1)
        tokens = self.layer_norm(self.no_bias(tokens)) * (1 + scale) + shift
        tokens = self.rms_norm(tokens) * self.scale - self.offset.to(tokens.device)
        return self.last(self.scale.unsqueeze(0) + tokens)


def test_every_known_use() -> None:
    torch.manual_seed(0)
    assert_each_is_its_own(Everything(), torch.randn(SIZE, 2, 4, 6))


@settings(max_examples=25, deadline=None)
@given(
    size=st.integers(1, 5),
    axes=st.integers(1, 3),
    groups=st.sampled_from((1, 2)),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 2),
    padding=st.integers(0, 1),
    dilation=st.integers(1, 2),
    bias=st.booleans(),
)
def test_convolutions(
    size: int, axes: int, groups: int, kernel: int, stride: int, padding: int, dilation: int,
    bias: bool,
) -> None:  # fmt: skip
    torch.manual_seed(0)
    kind = (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)[axes - 1]
    layer = kind(
        4, 6, kernel, stride=stride, padding=padding, dilation=dilation, groups=groups, bias=bias
    )
    assert_each_is_its_own(layer, torch.randn(size, 4, *[5] * axes))


@settings(max_examples=20, deadline=None)
@given(
    size=st.integers(1, 6),
    middle=st.lists(st.integers(1, 4), max_size=2),
    into=st.integers(1, 9),
    out=st.integers(1, 9),
    bias=st.booleans(),
)
def test_linear_layers(size: int, middle: list[int], into: int, out: int, bias: bool) -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(into, out, bias=bias)
    assert_each_is_its_own(layer, torch.randn(size, *middle, into))


class Tied(torch.nn.Module):
    """A weight of two layers, a bias used twice, a branch that the loss does not reach."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(5, 5), torch.nn.Linear(5, 5)
        self.second.weight = self.first.weight
        self.shift = torch.nn.Parameter(torch.randn(5))
        self.unused = torch.nn.Linear(5, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.tanh(self.first(x)) + self.shift
        self.unused(y)
        self.first(x)  # one more use, and nobody wants the result
        return self.second(torch.tanh(y)) * self.shift


def test_tied_and_reused_parameters_are_counted_once() -> None:
    torch.manual_seed(0)
    module = Tied()
    assert_each_is_its_own(module, torch.randn(SIZE, 4, 5))
    assert "second.weight" not in dict(module.named_parameters())


def test_only_one_parameters_gradients_exist_at_a_time() -> None:
    torch.manual_seed(0)
    module = torch.nn.Sequential(*[torch.nn.Linear(8, 8) for _ in range(4)])
    parameters = choose_parameters(module, "*")
    alive: list[weakref.ref[torch.Tensor]] = []

    def take(name: str, gradients: torch.Tensor) -> None:
        assert not any(ref() is not None for ref in alive), name
        alive.append(weakref.ref(gradients))

    with per_sample_gradients(parameters, SIZE, take) as backward:
        backward(squares(module(torch.randn(SIZE, 2, 8))))
    assert len(alive) == len(parameters)


class Odd(torch.nn.Module):
    """One parameter, used in one way that is not known."""

    def __init__(self, use: Callable[[torch.nn.Parameter, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.weight, self.use = torch.nn.Parameter(torch.randn(5, 5)), use

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.use(self.weight, x)


class Hidden(torch.autograd.Function):
    """Code that torch's functions do not show."""

    @staticmethod
    def forward(ctx, weight, x):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(weight, x)
        return x @ weight

    @staticmethod
    def backward(ctx, gradient):  # type: ignore[no-untyped-def]
        weight, x = ctx.saved_tensors
        return x.flatten(0, 1).mT @ gradient.flatten(0, 1), gradient @ weight.mT


@pytest.mark.parametrize(
    ("use", "said"),
    [
        (lambda w, x: x @ w, "weight is used in"),
        (lambda w, x: torch.einsum("btc,cd->btd", x, w), "weight is used in einsum"),
        (lambda w, x: F.linear(x, w.t()), "weight is used in"),
        (lambda w, x: F.linear(x, w * 2), "weight is used in mul"),
        (lambda w, x: F.linear(x, w + w), "weight is used in add"),
        (lambda w, x: torch.cat([x, w.expand(len(x), 5, 5)], 1), "weight is used in expand"),
        (lambda w, x: x + torch.cat([w, w])[:1], "weight is used in cat"),
        (lambda w, x: x + w[None], "weight is used in"),
        (lambda w, x: F.linear(x.reshape(2, 6, 5), w), "which is not the batch"),
        (lambda w, x: F.linear(x.flatten(0, 1), w), "which is not the batch"),
        (lambda w, x: Hidden.apply(w, x), "cannot be looked into"),
    ],
)
def test_an_unknown_use_is_refused(
    use: Callable[[torch.nn.Parameter, torch.Tensor], torch.Tensor], said: str
) -> None:
    torch.manual_seed(0)
    module = Odd(use)
    with pytest.raises(BatchError, match=said):
        together(module, torch.randn(SIZE, 4, 5), squares)
    assert module.weight.grad is None
    assert not module.weight._post_accumulate_grad_hooks


def test_autocast_is_refused() -> None:
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(BatchError, match="autocast"):
        together(torch.nn.Linear(2, 2), torch.randn(SIZE, 2, 2), squares)


@pytest.fixture(scope="module")
def transformer(small_wan: Path) -> WanTransformer3DModel:
    return WanTransformer3DModel.from_pretrained(small_wan / "transformer").eval()


def wan_losses(
    model: WanTransformer3DModel, first: int, last: int, bad: int = -1
) -> Callable[[], torch.Tensor]:
    """Losses of clips `first` to `last` of a fixed set."""
    draw = torch.Generator().manual_seed(0)
    latents = torch.randn(6, 16, 3, 4, 4, generator=draw)
    text = torch.randn(6, 24, 16, generator=draw)
    if bad >= 0:
        latents[bad, 3, 1, 2, 2] = torch.nan
    part = slice(first, last)

    def losses() -> torch.Tensor:
        timesteps = torch.full((last - first,), 751.0)
        output = model(latents[part], timesteps, text[part], return_dict=False)[0]
        return output.square().flatten(1).mean(1)

    return losses


@pytest.mark.parametrize("projection", ["identity", "fastfood"])
@pytest.mark.parametrize("pattern", ["*", "blocks.1.*", "*.norm2.*,*scale_shift_table"])
def test_features_of_a_batch_are_those_of_the_clips_alone(
    transformer: WanTransformer3DModel, pattern: str, projection: str
) -> None:
    gradient = StreamingGradient(choose_parameters(transformer, pattern), projection, 64, 0)
    single = [wan_losses(transformer, clip, clip + 1) for clip in range(6)]
    alone = [gradient.feature(lambda losses=losses: losses().sum()) for losses in single]  # type: ignore[misc]
    for first, last in ((0, 6), (1, 3), (4, 5)):
        found = gradient.features(wan_losses(transformer, first, last), last - first)
        for own, one in zip(found, alone[first:last], strict=True):
            assert isinstance(own, np.ndarray)
            assert np.linalg.norm(own - one) <= 1e-5 * np.linalg.norm(one)
    assert np.linalg.norm(alone[0] - alone[1]) > 0.1 * np.linalg.norm(alone[0])
    gradient.close()


def test_a_bad_clip_fails_alone(transformer: WanTransformer3DModel) -> None:
    gradient = StreamingGradient(choose_parameters(transformer, "*"), "fastfood", 64, 0)
    good = gradient.features(wan_losses(transformer, 0, 4), 4)
    found = gradient.features(wan_losses(transformer, 0, 4, bad=2), 4)
    assert isinstance(found[2], ClipError)
    assert str(found[2]) == "the loss is nan"
    for clip in (0, 1, 3):
        assert np.array_equal(found[clip], good[clip])
    again = gradient.features(wan_losses(transformer, 0, 4), 4)
    assert all(np.array_equal(a, b) for a, b in zip(again, good, strict=True))
    gradient.close()


def test_a_gradient_that_is_not_finite_fails_its_clip_and_names_the_parameter() -> None:
    torch.manual_seed(0)
    module = torch.nn.Linear(3, 3)
    gradient = StreamingGradient(choose_parameters(module, "*"), "identity", 1, 0)
    x = torch.randn(SIZE, 2, 3)

    def losses() -> torch.Tensor:
        y = module(x)
        # Finite in value, infinite in slope at zero, for the second clip.
        zero = (y * torch.tensor([1.0, 0.0, 1.0])[:, None, None]).abs().sqrt()
        return zero.sum((1, 2))

    found = gradient.features(losses, SIZE)
    assert isinstance(found[1], ClipError)
    assert "parameter" in str(found[1])
    assert "NaN or Inf" in str(found[1])
    assert isinstance(found[0], np.ndarray)
    assert isinstance(found[2], np.ndarray)
