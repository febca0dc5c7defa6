"""Attention block by block against torch's own, and its derivative against finite differences."""

import pytest
import torch
from torch.func import jvp
from torch.nn.functional import scaled_dot_product_attention

from motive.explanation import attention as module
from motive.explanation.attention import BlockwiseAttention, attention


def tensors(*shapes: tuple[int, ...], seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(s, generator=generator, dtype=torch.float64) for s in shapes]


@pytest.mark.parametrize("numbers", [1, 40, 2**25])
@pytest.mark.parametrize("kind", ["plain", "bool", "float", "row", "causal", "scale", "grouped"])
def test_it_is_torchs(kind: str, numbers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK_NUMBERS", numbers)
    heads = 2 if kind == "grouped" else 4
    query, key, value = tensors((2, 4, 7, 6), (2, heads, 7, 6), (2, heads, 7, 5))
    options = {
        "plain": {},
        "bool": {"attn_mask": torch.ones(7, 7, dtype=torch.bool).tril(2)},
        "float": {"attn_mask": tensors((2, 1, 7, 7), seed=1)[0]},
        "row": {"attn_mask": torch.tensor([True] * 5 + [False] * 2).view(1, 1, 1, 7)},
        "causal": {"is_causal": True},
        "scale": {"scale": 0.3},
        "grouped": {"enable_gqa": True},
    }[kind]
    expected = scaled_dot_product_attention(query, key, value, **options)
    torch.testing.assert_close(attention(query, key, value, **options), expected)
    with BlockwiseAttention():
        torch.testing.assert_close(
            scaled_dot_product_attention(query, key, value, **options), expected
        )


def test_a_derivative_passes_through() -> None:
    query, key, value = tensors((1, 2, 5, 4), (1, 2, 6, 4), (1, 2, 6, 4))
    along = tuple(tensors((1, 2, 5, 4), (1, 2, 6, 4), (1, 2, 6, 4), seed=3))
    with BlockwiseAttention():
        _, found = jvp(scaled_dot_product_attention, (query, key, value), along)
    step = 1e-5
    there, back = (
        scaled_dot_product_attention(
            *(x + sign * step * d for x, d in zip((query, key, value), along, strict=True))
        )
        for sign in (1, -1)
    )
    torch.testing.assert_close(found, (there - back) / (2 * step), rtol=1e-7, atol=1e-8)


def test_dropout_is_refused() -> None:
    query, key, value = tensors((1, 1, 2, 2), (1, 1, 2, 2), (1, 1, 2, 2))
    with pytest.raises(NotImplementedError, match="dropout"):
        attention(query, key, value, dropout_p=0.1)
