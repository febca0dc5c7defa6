"""Counter-based random numbers: fixed values, the laws they follow, and what they do not depend on."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from motive.gradients.counter import hash64, key, normal, permutation, signs, uniform

KEYS = [0, 1, 2**64 - 1, key(0, "a"), key(1, "a")]
# Neighbours on the four axes of a latent whose coordinates are packed 16 bits each.
STEPS = [1, 2**16, 2**32, 2**48]
COUNT = 2**16


def counters(step: int) -> np.ndarray:
    return np.arange(COUNT, dtype=np.uint64) * np.uint64(step)


def bits(hashes: np.ndarray) -> np.ndarray:
    """(N,) uint64 to (N, 64) of 0.0 and 1.0."""
    return np.unpackbits(hashes.view(np.uint8).reshape(-1, 8), axis=1).astype(np.float64)


def kolmogorov(sample: np.ndarray, cdf: np.ndarray) -> float:
    """sqrt(N) times the largest gap between the sample's distribution and `cdf(sorted sample)`."""
    n = sample.size
    above, below = np.arange(1, n + 1) / n - cdf, cdf - np.arange(n) / n
    return math.sqrt(n) * max(above.max(), below.max())


def test_hash_is_splitmix64() -> None:
    # The published first outputs of SplitMix64 seeded with 0 and with 1234567.
    assert [int(h) for h in hash64(0, [1, 2, 3])] == [
        0xE220A8397B1DCDAF,
        0x6E789E6AA1B965F4,
        0x06C45D188009454F,
    ]
    assert [int(h) for h in hash64(1234567, [1, 2, 3, 4, 5])] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


def test_hash_keeps_shape_and_argument() -> None:
    grid = np.arange(12, dtype=np.uint64).reshape(3, 4)
    hashes = hash64(7, grid)
    assert hashes.shape == (3, 4)
    assert hashes.dtype == np.uint64
    assert grid[2, 3] == 11
    assert hash64(7, np.uint64(11)).shape == ()
    assert hash64(7, 11) == hashes[2, 3]
    assert np.array_equal(hash64(7, grid[:, ::2]), hashes[:, ::2])


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("k", KEYS)
def test_bits_are_balanced_and_uncorrelated(k: int, step: int) -> None:
    values = 2 * bits(hash64(k, counters(step))) - 1
    assert np.abs(values.mean(axis=0)).max() * math.sqrt(COUNT) < 5
    correlations = values.T @ values / COUNT - np.eye(64)
    assert np.abs(correlations).max() * math.sqrt(COUNT) < 6  # the largest of 2,016


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("k", KEYS)
def test_neighbouring_counters_share_nothing(k: int, step: int) -> None:
    values = 2 * bits(hash64(k, counters(step))) - 1
    same_bit = (values[1:] * values[:-1]).mean(axis=0)
    assert np.abs(same_bit).max() * math.sqrt(COUNT) < 5
    any_bit = values[1:].T @ values[:-1] / COUNT
    assert np.abs(any_bit).max() * math.sqrt(COUNT) < 6


@pytest.mark.parametrize("flipped", range(64))
def test_every_counter_bit_moves_every_hash_bit(flipped: int) -> None:
    some = hash64(3, np.arange(4096, dtype=np.uint64))
    changed = bits(hash64(5, some) ^ hash64(5, some ^ np.uint64(1 << flipped)))
    assert np.abs(changed.mean(axis=0) - 0.5).max() < 5 * 0.5 / math.sqrt(4096)


def test_streams_of_related_names_are_uncorrelated() -> None:
    streams = [
        normal(key(seed, "layer", layer), np.arange(COUNT, dtype=np.uint64)).astype(np.float64)
        for seed in range(3)
        for layer in range(3)
    ]
    correlations = np.corrcoef(streams) - np.eye(9)
    assert np.abs(correlations).max() * math.sqrt(COUNT) < 5


names = st.lists(st.one_of(st.text(max_size=4), st.integers()), max_size=3)


@given(st.integers(), names, st.integers(), names)
def test_key_tells_every_list_of_names_apart(
    seed: int, one: list[str | int], other_seed: int, other: list[str | int]
) -> None:
    def typed(seed: int, names: list[str | int]) -> list[tuple[type, str | int]]:
        return [(type(part), part) for part in (seed, *names)]

    same = typed(seed, one) == typed(other_seed, other)
    assert (key(seed, *one) == key(other_seed, *other)) == same


def test_key_encodes_without_ambiguity() -> None:
    keys = {
        key(0, "ab"),
        key(0, "a", "b"),
        key(0, "a", "", "b"),
        key(0, 1),
        key(0, "1"),
        key(0, 11),
        key(0, 1, 1),
        key(1),
        key(-1),
        key(0),
    }
    assert len(keys) == 10


def test_key_never_changes() -> None:
    # Features in users' stores were made with these.
    assert key(0, "fold", "blocks.0.attn1.to_q.weight") == 0xFB92E4CBE64A0C9E
    assert key(7, "shared noise", 0) == 0x49A3468A6C2A1FC1


def test_key_refuses_other_types() -> None:
    with pytest.raises(TypeError):
        key(0, 1.5)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        key("0")  # type: ignore[arg-type]


def test_uniform_is_uniform_on_the_open_interval() -> None:
    sample = np.sort(uniform(11, counters(1)))
    assert sample[0] > 0
    assert sample[-1] < 1
    assert kolmogorov(sample, sample) < 1.95  # exceeded by chance once in 1,000


def test_uniform_stays_inside_for_extreme_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    extremes = np.array([0, 2**64 - 1], dtype=np.uint64)
    monkeypatch.setattr("motive.gradients.counter.hash64", lambda key, counters: extremes)
    low, high = uniform(0, [0, 1])
    assert 0 < low < 1e-15
    assert 1 - 1e-15 < high < 1


@pytest.mark.parametrize("step", STEPS)
def test_normal_is_normal(step: int) -> None:
    sample = np.sort(normal(13, counters(step)).astype(np.float64))
    cdf = np.array([0.5 * math.erfc(-x / math.sqrt(2)) for x in sample])
    assert kolmogorov(sample, cdf) < 1.95
    assert abs(np.mean(sample)) * math.sqrt(COUNT) < 4
    assert abs(np.mean(sample**2) - 1) * math.sqrt(COUNT / 2) < 4
    assert abs(np.mean(sample**4) - 3) * math.sqrt(COUNT / 96) < 4


@given(st.integers(0, 2**64 - 1), st.integers(0, 300), st.integers(1, 300), st.integers(1, 5))
def test_a_part_of_a_stream_is_that_part_of_the_whole(
    k: int, start: int, length: int, stride: int
) -> None:
    whole = np.arange(600, dtype=np.uint64)
    part = slice(start, start + length, stride)
    for draw in (hash64, uniform, normal):
        assert np.array_equal(draw(k, whole[part]), draw(k, whole)[part])
    assert np.array_equal(signs(k, length), signs(k, 600)[:length])


def test_signs_are_the_bits_of_the_hash() -> None:
    k = key(3, "signs")
    expected = [-1 if int(hash64(k, i // 64)) >> (i % 64) & 1 else 1 for i in range(200)]
    drawn = signs(k, 200)
    assert drawn.dtype == np.int8
    assert drawn.tolist() == expected
    assert signs(k, 0).size == 0
    assert abs(signs(k, COUNT).mean()) * math.sqrt(COUNT) < 4


def test_permutation_is_a_fair_permutation() -> None:
    n = 50
    drawn = np.array([permutation(key(seed, "Pi"), n) for seed in range(4000)])
    assert np.array_equal(np.sort(drawn, axis=1), np.broadcast_to(np.arange(n), drawn.shape))
    # How often each item lands in each place: chi-squared with (n-1)^2 degrees of freedom.
    counts = np.array([np.bincount(drawn[:, place], minlength=n) for place in range(n)])
    expected = drawn.shape[0] / n
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    freedom = (n - 1) ** 2
    assert abs(chi_squared - freedom) / math.sqrt(2 * freedom) < 4
    assert np.array_equal(permutation(5, n), permutation(5, n))
