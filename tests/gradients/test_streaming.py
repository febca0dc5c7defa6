"""Streamed gradients against one call of autograd, on networks with every difficulty."""

import gc
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.utils.checkpoint
from diffusers import WanTransformer3DModel

from motive.errors import ClipError, UserError
from motive.gradients.projection import make_projection
from motive.gradients.streaming import StreamingGradient, choose_parameters


class Network(torch.nn.Module):
    """A weight under two names, one used twice, one that no loss reaches, and a frozen buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(5, 5)
        self.again = torch.nn.Linear(5, 5, bias=False)
        self.again.weight = self.first.weight
        self.scale = torch.nn.Parameter(torch.randn(5))
        self.unused = torch.nn.Linear(3, 2)
        self.last = torch.nn.Linear(5, 1)
        self.register_buffer("shift", torch.randn(5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.tanh(self.first(x)) * self.scale + self.shift
        return self.last(self.again(hidden) * self.scale)


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    return Network()


def loss_of(network: Network, seed: int = 0) -> Callable[[], torch.Tensor]:
    x = torch.randn(7, 5, generator=torch.Generator().manual_seed(seed))
    return lambda: network(x).square().mean()


def plain_gradient(network: Network, names: list[str], seed: int = 0) -> np.ndarray:
    """One call of autograd, concatenated in the order of the sorted names."""
    parameters = dict(network.named_parameters())
    chosen = [parameters[name] for name in sorted(names)]
    found = torch.autograd.grad(loss_of(network, seed)(), chosen, allow_unused=True)
    return np.concatenate(
        [
            (torch.zeros_like(p) if g is None else g).flatten().numpy()
            for p, g in zip(chosen, found, strict=True)
        ]
    )


ALL = [
    "first.bias",
    "first.weight",
    "last.bias",
    "last.weight",
    "scale",
    "unused.bias",
    "unused.weight",
]


def test_the_feature_is_autograds_gradient(network: Network) -> None:
    gradient = StreamingGradient(choose_parameters(network, "*"), "identity", 1, 0)
    for seed in (0, 1, 0):
        feature = gradient.feature(loss_of(network, seed))
        assert feature.dtype == np.float32
        assert np.allclose(feature, plain_gradient(network, ALL, seed), rtol=1e-6, atol=1e-8)
    assert np.abs(feature).max() > 1e-3


def test_a_shared_weight_counts_once_under_its_first_name(network: Network) -> None:
    chosen = choose_parameters(network, "*")
    assert sorted(chosen) == ALL
    gradient = StreamingGradient(chosen, "identity", 1, 0)
    assert len(gradient.feature(loss_of(network))) == 25 + 5 + 5 + 1 + 5 + 2 + 6
    with pytest.raises(UserError, match=r"no parameter is called like 'again\.\*'"):
        choose_parameters(network, "again.*")


def test_a_parameter_that_no_loss_reaches_is_zero(network: Network) -> None:
    gradient = StreamingGradient(choose_parameters(network, "*"), "identity", 1, 0)
    feature = gradient.feature(loss_of(network))
    assert not feature[-8:].any()
    assert feature[:-8].any()


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.weight", ["first.weight", "last.weight", "unused.weight"]),
        ("last.*, scale", ["last.bias", "last.weight", "scale"]),
        ("*.bias,last.*", ["first.bias", "last.bias", "last.weight", "unused.bias"]),
        ("s?ale", ["scale"]),
    ],
)
def test_a_subset_by_pattern(network: Network, pattern: str, names: list[str]) -> None:
    chosen = choose_parameters(network, pattern)
    assert sorted(chosen) == names
    assert {n for n, p in network.named_parameters() if p.requires_grad} == set(names)
    expected = plain_gradient(network, names)
    feature = StreamingGradient(chosen, "identity", 1, 0).feature(loss_of(network))
    assert np.allclose(feature, expected, rtol=1e-6, atol=1e-8)


def test_a_frozen_parameter_can_be_chosen_again(network: Network) -> None:
    choose_parameters(network, "scale")
    assert not network.last.weight.requires_grad
    assert sorted(choose_parameters(network, "*")) == ALL


@pytest.mark.parametrize("pattern", ["nothing", "", "Scale", "first"])
def test_a_pattern_that_fits_nothing_is_refused_with_an_example(
    network: Network, pattern: str
) -> None:
    with pytest.raises(UserError) as error:
        choose_parameters(network, pattern)
    assert f"'{pattern}'" in str(error.value)
    assert "'scale'" in str(error.value)


def test_fastfood_is_fed_the_same_gradient(network: Network) -> None:
    chosen = choose_parameters(network, "*")
    shapes = {name: tuple(p.shape) for name, p in chosen.items()}
    projection = make_projection("fastfood", 16, 3, shapes)
    projection.begin()
    found = torch.autograd.grad(loss_of(network)(), list(chosen.values()), allow_unused=True)
    for (name, p), g in zip(chosen.items(), found, strict=True):
        projection.add(name, torch.zeros_like(p) if g is None else g)
    feature = StreamingGradient(chosen, "fastfood", 16, 3).feature(loss_of(network))
    assert np.allclose(feature, projection.finish(), rtol=1e-5, atol=1e-7)


def assert_clean(network: Network) -> None:
    assert all(parameter.grad is None for parameter in network.parameters())


def test_nothing_is_left_behind(network: Network) -> None:
    gradient = StreamingGradient(choose_parameters(network, "*"), "identity", 1, 0)
    before = gradient.feature(loss_of(network))
    assert_clean(network)
    # Afterwards the network trains as if nothing had been, and its gradients are in no feature.
    loss_of(network)().backward()
    assert network.last.weight.grad is not None
    assert np.array_equal(gradient.feature(loss_of(network)), before)


@pytest.mark.parametrize("how", ["closed", "forgotten"])
def test_the_hooks_go(network: Network, how: str) -> None:
    gradient = StreamingGradient(choose_parameters(network, "*"), "identity", 1, 0)
    assert all(p._post_accumulate_grad_hooks for p in gradient.parameters.values())
    if how == "closed":
        gradient.close()
    else:
        del gradient
        gc.collect()
    assert not any(p._post_accumulate_grad_hooks for p in network.parameters())


def test_one_gradient_at_a_time(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    gradient = StreamingGradient(choose_parameters(network, "*"), "identity", 1, 0)
    held: list[int] = []
    given: list[weakref.ref[torch.Tensor]] = []
    add = gradient.projection.add

    def watching(name: str, tensor: torch.Tensor) -> None:
        others = sum(p.grad is not None for p in network.parameters())
        held.append(others + sum(ref() is not None for ref in given))
        given.append(weakref.ref(tensor))
        add(name, tensor)

    monkeypatch.setattr(gradient.projection, "add", watching)
    gradient.feature(loss_of(network))
    assert held == [0] * 7


def test_a_loss_that_is_not_finite_is_the_clips_fault(network: Network) -> None:
    gradient = StreamingGradient(choose_parameters(network, "*"), "identity", 1, 0)
    before = gradient.feature(loss_of(network))
    for number, text in ((float("nan"), "nan"), (float("inf"), "inf")):
        with pytest.raises(ClipError, match=f"the loss is {text}"):
            gradient.feature(lambda number=number: loss_of(network)() * number)  # type: ignore[misc]
        assert_clean(network)
    assert np.array_equal(gradient.feature(loss_of(network)), before)


def test_a_gradient_that_is_not_finite_names_its_parameter(network: Network) -> None:
    def loss() -> torch.Tensor:
        # Finite in value, infinite in slope at zero.
        return loss_of(network)() + (network.scale * 0).abs().sqrt().sum()

    gradient = StreamingGradient(choose_parameters(network, "*"), "identity", 1, 0)
    before = gradient.feature(loss_of(network))
    assert torch.isfinite(loss())
    with pytest.raises(ClipError, match="parameter scale holds NaN or Inf"):
        gradient.feature(loss)
    assert_clean(network)
    assert np.array_equal(gradient.feature(loss_of(network)), before)


def test_an_error_in_the_model_leaves_no_hooks(network: Network) -> None:
    gradient = StreamingGradient(choose_parameters(network, "*"), "identity", 1, 0)

    def broken() -> torch.Tensor:
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        gradient.feature(broken)
    assert_clean(network)
    expected = plain_gradient(network, ALL)
    assert np.allclose(gradient.feature(loss_of(network)), expected, rtol=1e-6, atol=1e-8)


def test_two_clips_do_not_mix(network: Network) -> None:
    chosen = choose_parameters(network, "*")
    gradient = StreamingGradient(chosen, "identity", 1, 0)
    alone = StreamingGradient(chosen, "identity", 1, 0).feature(loss_of(network, 2))
    for seed in (0, 1):
        gradient.feature(loss_of(network, seed))
    assert np.array_equal(gradient.feature(loss_of(network, 2)), alone)


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def test_autocast_with_a_float32_loss(network: Network) -> None:
    chosen = choose_parameters(network, "*")

    def loss() -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            x = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
            output = network(x)
        assert output.dtype == torch.bfloat16
        return output.float().square().mean()

    found = torch.autograd.grad(loss(), list(chosen.values()), allow_unused=True)
    by_name = dict(zip(chosen, found, strict=True))
    expected = np.concatenate(
        [np.zeros(p.numel()) if g is None else g.flatten().numpy()
         for name, p in sorted(chosen.items()) for g in [by_name[name]]]
    )  # fmt: skip
    feature = StreamingGradient(chosen, "identity", 1, 0).feature(loss)
    assert feature.dtype == np.float32
    assert np.array_equal(feature, expected.astype(np.float32))
    assert 1e-4 < relative_error(feature, plain_gradient(network, ALL)) < 0.1


def test_a_compiled_model(network: Network) -> None:
    # The backend is the part that needs a C++ compiler, which a user's machine may not have;
    # hooks and names meet everything else.
    compiled = torch.compile(network, backend="aot_eager")
    chosen = choose_parameters(compiled, "*")
    assert sorted(chosen) == ALL
    expected = plain_gradient(network, ALL)
    gradient = StreamingGradient(chosen, "identity", 1, 0)
    for _ in range(2):
        feature = gradient.feature(loss_of(compiled))
        assert relative_error(feature, expected) < 1e-6
    torch._dynamo.reset()


@pytest.mark.parametrize("reentrant", [False, True])
def test_recomputed_activations(network: Network, reentrant: bool) -> None:
    x = torch.randn(7, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()

    def loss() -> torch.Tensor:
        output = torch.utils.checkpoint.checkpoint(network, x, use_reentrant=reentrant)
        return output.square().mean()

    feature = StreamingGradient(choose_parameters(network, "*"), "identity", 1, 0).feature(loss)
    assert np.array_equal(feature, plain_gradient(network, ALL))


def test_every_other_block(small_wan: Path) -> None:
    model = WanTransformer3DModel.from_pretrained(small_wan / "transformer")
    chosen = choose_parameters(model, "blocks.[02468].*")
    assert {name.split(".")[1] for name in chosen} == {"0"}
    both = choose_parameters(model, "blocks.[02468].*,blocks.[13579].*")
    assert {name.split(".")[1] for name in both} == {"0", "1"}
    assert len(both) == 2 * len(chosen)


@pytest.mark.parametrize("wrapped_by", ["diffusers", "peft"])
def test_lora_factors_only(small_wan: Path, wrapped_by: str) -> None:
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    model = WanTransformer3DModel.from_pretrained(small_wan / "transformer").eval()
    config = peft.LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False)
    if wrapped_by == "diffusers":
        model.add_adapter(config)
    else:
        model = peft.get_peft_model(model, config).eval()
    chosen = choose_parameters(model, "*.lora_?.*")
    # 2 blocks x 2 attentions x 2 layers x 2 factors, under the same names however they were put in
    assert len(chosen) == 16
    assert "blocks.0.attn1.to_q.lora_A.default.weight" in chosen
    assert {n for n, p in model.named_parameters() if p.requires_grad} == {
        n for n, _ in model.named_parameters() if "lora_" in n
    }
    inputs = torch.randn(1, 16, 3, 4, 4), torch.tensor([751.0]), torch.randn(1, 24, 16)

    def loss() -> torch.Tensor:
        return model(*inputs, return_dict=False)[0].square().mean()

    expected = torch.autograd.grad(loss(), [chosen[name] for name in sorted(chosen)])
    feature = StreamingGradient(chosen, "identity", 1, 0).feature(loss)
    assert np.array_equal(feature, torch.cat([g.flatten() for g in expected]).numpy())
    assert feature.any()
    # A batch keeps the clips' factors apart too.
    pair = [torch.cat([t, t + 1]) if t.dim() > 1 else t.repeat(2) for t in inputs]
    found = StreamingGradient(chosen, "identity", 1, 0).features(
        lambda: model(*pair, return_dict=False)[0].square().flatten(1).mean(1), 2
    )
    assert isinstance(found[0], np.ndarray)
    assert relative_error(found[0], feature) < 1e-5
