"""`motive.gradients.counter`'s integers by torch operations, for any device.

torch has no unsigned arithmetic: 64-bit words are int64 tensors with the same bits.
"""

import torch

from motive.gradients.counter import GOLDEN_GAMMA, MIX_MULTIPLIER_1, MIX_MULTIPLIER_2

WORD = 64  # signs in one hash


def hash64(key: int, counters: torch.Tensor) -> torch.Tensor:
    """`counter.hash64` of int64 counters, of any shape: int64 with the hashes' bits."""
    z = counters * _as_signed(GOLDEN_GAMMA) + _as_signed(key)
    z = (z ^ shift_right(z, 30)) * _as_signed(MIX_MULTIPLIER_1)
    z = (z ^ shift_right(z, 27)) * _as_signed(MIX_MULTIPLIER_2)
    return z ^ shift_right(z, 31)


def negative(words: torch.Tensor) -> torch.Tensor:
    """Bits of words (...) as bool (..., 64), least significant first; true means a minus sign."""
    lanes = torch.arange(WORD, dtype=torch.int64, device=words.device)
    return ((words[..., None] >> lanes) & 1).bool()


def signs(key: int, count: int, device: torch.device) -> torch.Tensor:
    """`counter.signs`: the first `count` fair signs of a stream, float32 of -1 and +1, (count,)."""
    blocks = torch.arange(-(-count // WORD), dtype=torch.int64, device=device)
    return 1.0 - 2.0 * negative(hash64(key, blocks)).reshape(-1)[:count].float()


def shift_right(z: torch.Tensor, count: int) -> torch.Tensor:
    """Logical shift by 1 to 63: torch's own brings in copies of the sign bit."""
    return (z >> count) & ((1 << (64 - count)) - 1)


def _as_signed(word: int) -> int:
    """The signed 64-bit integer with the same bits."""
    return word - (1 << 64) if word >> 63 else word
