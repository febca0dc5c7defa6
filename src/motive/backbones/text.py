"""Captions as token ids, and embeddings with the padding that the tables leave out."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def tokenised(tokenizer: Any, caption: str, length: int) -> Any:
    """Ids and mask of one caption, `(1, length)`, cut or padded by the tokenizer's own padding."""
    return tokenizer(
        [caption], padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    )


def without_padding(
    text_ld: "torch.Tensor", mask_l: "torch.Tensor"
) -> "tuple[torch.Tensor, torch.Tensor]":
    """Embeddings and mask up to the last token that counts, float32."""
    counted = mask_l.nonzero()
    length = int(counted.max()) + 1 if len(counted) else 0
    return text_ld[:length].float(), mask_l[:length].float()


def padded(values_l: "torch.Tensor", length: int) -> "torch.Tensor":
    """Tokens `(L, …)` with zeros behind them, `(length, …)`."""
    import torch

    behind = (0, 0) * (values_l.dim() - 1)
    return torch.nn.functional.pad(values_l, (*behind, 0, length - len(values_l)))
