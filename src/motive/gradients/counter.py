"""Counter-based random numbers: every draw is a pure function of (key, counter).

There is no generator and no state. Number 1,000,000 of a stream costs the same as number 0, a part
of a stream equals that part of the whole, and neither order, batch, thread count nor device enters.
The shared noise and the projections rest on this: they must give a clip the same numbers whichever
clips, batches or machines surround it.

A stream is named by its key, a hash of the seed and of the names of what the stream is for; the
counter says which number of the stream is wanted (Salmon et al., "Parallel random numbers: as easy
as 1, 2, 3", SC 2011). The mixer is SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom
number generators", OOPSLA 2014): it passes BigCrush, needs two multiplications, and a vectorising
compiler, numpy, torch and Triton all do it on 64-bit integers with wrap-around.

Integers and signs are the same on every platform. `normal` goes through `log` and `cos`, which
platforms may round differently in the last bit of float64; after the cast to float32 that bit is
hardly ever seen, but only the integers are promised to be identical across processor families.
"""

import hashlib
import math

import numpy as np
import numpy.typing as npt

GOLDEN_GAMMA = 0x9E3779B97F4A7C15
"""The odd number nearest 2^64 / golden ratio: the step between the states of two counters."""
MIX_MULTIPLIER_1 = 0xBF58476D1CE4E5B9
MIX_MULTIPLIER_2 = 0x94D049BB133111EB
"""Multipliers of the finalizer (Stafford's variant 13 of MurmurHash3's)."""

_MASK_64 = 2**64 - 1

UInt64Array = npt.NDArray[np.uint64]


def key(seed: int, *names: str | int) -> int:
    """The 64-bit key of the stream that `seed` and `names` name.

    BLAKE2b over a tagged, length-prefixed encoding, so that no two different argument lists share
    an encoding: `key(0, "ab")`, `key(0, "a", "b")` and `key(0, 1)`, `key(0, "1")` all differ.
    The value depends on nothing else (not on the machine, nor on Python's hash randomisation).

    Raises:
        TypeError: `seed` is not an integer, or a name is neither a string nor an integer.
    """
    digest = hashlib.blake2b(digest_size=8, person=b"motive-counter")
    for part in (int.__index__(seed), *names):
        if isinstance(part, str):
            tag, encoded = b"s", part.encode("utf-8", "surrogatepass")
        elif isinstance(part, int):
            tag, encoded = b"i", b"%d" % part
        else:
            raise TypeError(f"a stream is named by strings and integers, not {type(part).__name__}")
        digest.update(tag + len(encoded).to_bytes(8, "little") + encoded)
    return int.from_bytes(digest.digest(), "little")


def hash64(key: int, counters: npt.ArrayLike) -> UInt64Array:
    """64 random bits for each counter: SplitMix64's finalizer of key + counter x golden gamma.

    Two keys are two starting points on one cycle of 2^64. Keys made by `key` fall at random on that
    cycle, so two streams of a billion numbers overlap with probability 1e-10.

    Args:
        key: 0 <= key < 2^64.
        counters: unsigned 64-bit integers of any shape.

    Returns:
        uint64 array of the shape of `counters` (a bijection of the counter for each key).
    """
    z = np.array(counters, dtype=np.uint64, ndmin=1)  # a fresh array: the mixing is in place
    z *= np.uint64(GOLDEN_GAMMA)
    z += np.uint64(key)
    z ^= z >> np.uint64(30)
    z *= np.uint64(MIX_MULTIPLIER_1)
    z ^= z >> np.uint64(27)
    z *= np.uint64(MIX_MULTIPLIER_2)
    z ^= z >> np.uint64(31)
    return z.reshape(np.shape(counters))


def uniform(key: int, counters: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Uniform numbers on the open interval (0, 1), one for each counter, 52 bits fine.

    The grid is the mid-points of 2^52 equal cells: neither 0 nor 1 occurs, and the mean is exactly
    1/2.
    """
    return ((hash64(key, counters) >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


def normal(key: int, counters: npt.ArrayLike) -> npt.NDArray[np.float32]:
    """Standard normal numbers in float32, one for each counter (Box-Muller, worked in float64).

    The radius and the angle come from two streams with unrelated keys. Magnitudes reach 8.5.
    """
    # Contiguous operands only: numpy may take another code path, which rounds differently, for
    # strided ones, and a number would then depend on the array that it is drawn in.
    flat = np.ascontiguousarray(counters, dtype=np.uint64).reshape(-1)
    radius = np.sqrt(-2.0 * np.log(uniform(key, flat)))
    angle = (2.0 * math.pi) * uniform(_second_key(key), flat)
    return (radius * np.cos(angle)).astype(np.float32).reshape(np.shape(counters))


def signs(key: int, count: int) -> npt.NDArray[np.int8]:
    """The first `count` fair signs of a stream, int8 of -1 and +1, shape (count,).

    One hash gives the signs of 64 neighbours: sign i is bit i mod 64, least significant first, of
    `hash64(key, i // 64)`; a set bit means -1.
    """
    blocks = np.arange(-(-count // 64), dtype=np.uint64)
    octets = hash64(key, blocks).astype("<u8").view(np.uint8)
    bits = np.unpackbits(octets, count=count, bitorder="little")
    return (1 - 2 * bits.astype(np.int8)).astype(np.int8)


def permutation(key: int, n: int) -> npt.NDArray[np.int64]:
    """A random permutation of 0..n-1: the order of the hashes of 0..n-1, shape (n,).

    For one key the hash is a bijection, so there are no ties.
    """
    return np.argsort(hash64(key, np.arange(n, dtype=np.uint64)), kind="stable")


def _second_key(key: int) -> int:
    """A key unrelated to `key`, so that radius and angle of one number are independent."""
    return int(hash64(key ^ _MASK_64, 0))
