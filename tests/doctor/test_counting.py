"""What a pass costs, against the arithmetic by hand and against a real pass."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from motive.backbones import load_backbone
from motive.backbones.base import Backbone
from motive.backbones.source import find_model
from motive.doctor.counting import count_forward, repeated_blocks

LENGTH = 24


@pytest.fixture
def backbone(small_wan: Path) -> Callable[[str], Backbone]:
    return lambda device: load_backbone(find_model(str(small_wan)), device=device, dtype="float32")


def predicting(
    backbone: Backbone, frames: int, height: int, width: int
) -> Callable[[torch.nn.Module], torch.Tensor]:
    latents, conditions = backbone.example_inputs(frames, height, width, LENGTH)
    return lambda denoiser: backbone.predict(denoiser, latents, 751, conditions, LENGTH)


@pytest.mark.parametrize(("frames", "height", "width"), [(9, 32, 32), (1, 16, 48), (33, 64, 96)])
def test_operations_are_those_of_the_arithmetic(
    backbone: Callable[[str], Backbone], frames: int, height: int, width: int
) -> None:
    meta = backbone("meta")
    cost = count_forward(meta.empty_denoiser(), predicting(meta, frames, height, width))
    tokens = ((frames - 1) // 4 + 1) * (height // 16) * (width // 16)
    assert cost.tokens == tokens
    # tests/conftest.py: width 24 in 2 heads, feed-forward 32, 2 blocks, text of width 16, 16 channels.
    d, inner, layers, text, channels, frequencies = 24, 32, 2, 16, 16, 16
    per_block = (
        4 * tokens * d * d  # queries, keys, values, output
        + 2 * tokens * d * d + 2 * LENGTH * d * d  # the same for the text
        + 2 * tokens * d * inner
    )  # fmt: skip
    outside = (
        tokens * channels * 4 * d  # patches in and out
        + tokens * d * channels * 4
        + frequencies * d + d * d + d * 6 * d  # the timestep
        + LENGTH * (text * d + d * d)
    )  # fmt: skip
    assert cost.linear_flop == 2 * (layers * per_block + outside)
    assert cost.attention_flop == layers * 2 * 2 * tokens * d * (tokens + LENGTH)
    assert cost.flop == cost.linear_flop + cost.attention_flop


def test_what_is_kept_is_what_a_real_pass_keeps(backbone: Callable[[str], Backbone]) -> None:
    meta, cpu = backbone("meta"), backbone("cpu")
    cost = count_forward(meta.empty_denoiser(), predicting(meta, 33, 64, 64))
    denoiser = cpu.load_denoiser()
    own = {p.untyped_storage().data_ptr() for p in denoiser.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = predicting(cpu, 33, 64, 64)(denoiser)
    real = sum(storage.nbytes() for storage in kept.values())
    assert output.requires_grad
    assert cost.kept_bytes == pytest.approx(real, rel=0.05)
    assert cost.largest_bytes == max(storage.nbytes() for storage in kept.values())
    assert len(repeated_blocks(denoiser)) == 2
    assert cost.kept_bytes / 2 < cost.recomputed_bytes < cost.kept_bytes


def test_what_is_kept_grows_with_the_tokens_and_not_with_their_square(
    backbone: Callable[[str], Backbone],
) -> None:
    meta = backbone("meta")
    one = count_forward(meta.empty_denoiser(), predicting(meta, 9, 128, 128))
    four = count_forward(meta.empty_denoiser(), predicting(meta, 9, 256, 256))
    assert four.tokens == 4 * one.tokens
    assert 3.5 < four.kept_bytes / one.kept_bytes < 4.01
    assert four.attention_flop > 12 * one.attention_flop
