"""The sign-fold: against plain loops, on every path, and its error on the gradients networks have."""

import math
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from motive.errors import ClipError
from motive.gradients.counter import key
from motive.gradients.fold import SignFold, SignFolds, largest_prime

MASK = 2**64 - 1


def plain_hash(stream: int, counter: int) -> int:
    z = (stream + counter * 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def plain_fold(gradients: dict[str, torch.Tensor], seed: int, accumulators: int) -> np.ndarray:
    """What the module's text says, one coordinate at a time."""
    m = max(p for p in range(2, accumulators + 1) if all(p % d for d in range(2, p)))
    total = np.zeros(accumulators)
    for name, gradient in gradients.items():
        stream = key(seed, "fold", name)
        sums = np.zeros(m, dtype=np.float32)
        for i, value in enumerate(gradient.float().reshape(-1).numpy()):
            lap, j = divmod(i, m)
            word = plain_hash(stream, lap * math.ceil(m / 64) + j // 64)
            sums[(stream + i) % m] += -value if word >> (j % 64) & 1 else value
        total[:m] += sums
    return total


def folded(
    gradients: dict[str, torch.Tensor], seed: int = 0, accumulators: int = 1024
) -> np.ndarray:
    fold = SignFold(seed, accumulators)
    for name, gradient in gradients.items():
        fold.add(name, gradient)
    return fold.total()


def folded_by_torch(
    gradients: dict[str, torch.Tensor], seed: int = 0, accumulators: int = 1024
) -> np.ndarray:
    """By the operations that serve every device but the CPU."""
    fold = SignFold(seed, accumulators)
    for name, gradient in gradients.items():
        fold._add_on_device(name, gradient, key(seed, "fold", name))
    return fold.total()


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# Sizes around blocks of 64, around laps, around four laps at a time, and around pieces of 16 laps.
SIZES = [
    1,
    63,
    64,
    65,
    127,
    128,
    1020,
    1021,
    1022,
    1085,
    4083,
    4084,
    4085,
    9000,
    16336,
    16337,
    33000,
]


@pytest.mark.parametrize("accumulators", [64, 128, 1024])
def test_fold_is_the_plain_loops(accumulators: int) -> None:
    gradients = {f"p{n}": random(n, seed=n) for n in SIZES if n < 40 * accumulators}
    expected = plain_fold(gradients, 5, accumulators)
    assert np.array_equal(folded(gradients, 5, accumulators), expected)
    assert np.array_equal(folded_by_torch(gradients, 5, accumulators), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", SIZES)
def test_half_precision_is_widened_exactly(size: int, dtype: torch.dtype) -> None:
    half = (random(size) * 10.0 ** torch.arange(size).remainder(9).sub(6)).to(dtype)
    expected = folded({"p": half.float()})
    assert np.array_equal(folded({"p": half}), expected)
    assert np.array_equal(folded_by_torch({"p": half}), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "view",
    [
        random(150, 200).t(),
        random(300, 220)[::2, 5:205],
        random(1, 200).expand(150, 200),
        random(4, 30, 5, 6).contiguous(memory_format=torch.channels_last),
        random(60_000)[::2],
        random(3, 7000).t()[:6000].t(),
        random(1)[0],
        random(1).expand(30_000),
    ],
    ids=["transposed", "sliced", "expanded", "channels_last", "step", "long_rows", "scalar", "one"],
)
def test_strides_do_not_matter(view: torch.Tensor, dtype: torch.dtype) -> None:
    view = view.to(dtype)
    expected = folded({"p": view.contiguous()})
    assert np.array_equal(folded({"p": view}), expected)
    assert np.array_equal(folded_by_torch({"p": view}), expected)


def test_only_the_row_major_order_of_a_shape_matters() -> None:
    flat = random(3 * 5 * 7 * 60)
    assert np.array_equal(folded({"p": flat.view(3, 5, 7, 60)}), folded({"p": flat}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_threads_do_not_matter(dtype: torch.dtype) -> None:
    gradients = {"large": random(700, 1000).to(dtype), "wide": random(300_001, seed=1).to(dtype)}
    expected = folded(gradients, accumulators=65_536)
    for threads in (2, 3, 7):
        torch.set_num_threads(threads)
        for _ in range(3):
            assert np.array_equal(folded(gradients, accumulators=65_536), expected)


def test_callers_in_several_threads_do_not_disturb_one_another() -> None:
    gradients = [{"w": random(600, 1000, seed=i)} for i in range(8)]
    expected = [folded(g, accumulators=65_536) for g in gradients]

    def fold_with_helpers(g: dict[str, torch.Tensor]) -> np.ndarray:
        torch.set_num_threads(3)
        return folded(g, accumulators=65_536)

    with ThreadPoolExecutor(4) as pool:
        for got, want in zip(pool.map(fold_with_helpers, gradients), expected, strict=True):
            assert np.array_equal(got, want)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_a_forked_process_folds() -> None:
    gradients = {"w": random(600, 1000)}
    expected = folded(gradients, accumulators=65_536)
    torch.set_num_threads(2)
    assert np.array_equal(folded(gradients, accumulators=65_536), expected)  # helpers now run
    child = os.fork()
    if child == 0:
        same = np.array_equal(folded(gradients, accumulators=65_536), expected)
        os._exit(0 if same else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("threads", [1, 3])
def test_clips_side_by_side_are_what_each_is_alone(dtype: torch.dtype, threads: int) -> None:
    torch.set_num_threads(threads)
    clips = 5
    gradients = {f"p{n}": random(clips, n, seed=n).to(dtype) for n in (1, 64, 1000, 1021, 9000)}
    gradients["transposed"] = random(60, 50, clips).to(dtype).permute(2, 1, 0)
    gradients["large"] = random(clips, 70_000).to(dtype)
    singles = [SignFold(0, 1024) for _ in range(clips)]
    together = SignFolds(singles)
    for name, of_clips in gradients.items():
        assert together.add(name, of_clips) == [None] * clips
    for clip, single in enumerate(singles):
        own = {name: of_clips[clip] for name, of_clips in gradients.items()}
        assert np.array_equal(single.total(), folded(own))


@pytest.mark.parametrize("size", [40, 9000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_of_clips_side_by_side_only_the_bad_one_fails(size: int, dtype: torch.dtype) -> None:
    gradients = random(3, size).to(dtype)
    gradients[1, size - 2] = -math.inf
    singles = [SignFold(0, 1024) for _ in range(3)]
    errors = SignFolds(singles).add("blocks.3.bad", gradients)
    assert [error is not None for error in errors] == [False, True, False]
    assert "blocks.3.bad" in str(errors[1])
    for clip in (0, 2):
        assert np.array_equal(singles[clip].total(), folded({"blocks.3.bad": gradients[clip]}))


def test_torch_operations_agree_at_full_size() -> None:
    gradients = {"large": random(1100, 1000), "b": random(1536, seed=1)}
    expected = folded(gradients, accumulators=65_536)
    assert np.array_equal(folded_by_torch(gradients, accumulators=65_536), expected)


def test_order_of_parameters_hardly_matters() -> None:
    gradients = {f"p{i}": random(3000, seed=i) * 10.0 ** (i % 7 - 3) for i in range(50)}
    one = folded(gradients)
    other = folded(dict(reversed(gradients.items())))
    np.testing.assert_allclose(one, other, rtol=0, atol=1e-14 * np.abs(one).max())


def test_reset_forgets() -> None:
    fold = SignFold(0, 1024)
    fold.add("a", random(5000))
    fold._add_on_device("b", random(5000), 1)
    fold.reset()
    assert not fold.total().any()


def test_an_empty_parameter_adds_nothing() -> None:
    assert not folded({"p": torch.zeros(0, 5)}).any()


def test_state_does_not_grow_with_the_gradient() -> None:
    fold = SignFold(0, 65_536)
    before = fold.nbytes
    fold.add("a", random(2000, 1000))
    assert fold.nbytes == before < 600_000


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("place", [0, 64, 1020, 1021, 4085, 8999])
def test_a_number_that_is_not_finite_is_found(place: int, dtype: torch.dtype, bad: float) -> None:
    gradient = random(9000).to(dtype)
    gradient[place] = bad
    fold = SignFold(0, 1024)
    fold.add("good", random(9000))
    with pytest.raises(ClipError, match=r"blocks\.3\.bad"):
        fold.add("blocks.3.bad", gradient)
    fold.reset()
    fold._add_on_device("good", random(9000), 1)
    fold._add_on_device("blocks.3.bad", gradient, 2)
    fold._add_on_device("also good", random(9000), 3)
    with pytest.raises(ClipError, match=r"blocks\.3\.bad"):
        fold.total()


def test_infinities_that_cancel_are_found() -> None:
    with pytest.raises(ClipError, match="all"):
        folded({"all": torch.full((9000,), math.inf)})


def test_an_overflow_is_found() -> None:
    with pytest.raises(ClipError, match="huge"):
        folded({"huge": torch.full((9000,), 3e38)})


def test_largest_prime() -> None:
    assert largest_prime(65_536) == 65_521
    assert [largest_prime(n) for n in (2, 3, 4, 64, 1024)] == [2, 3, 3, 61, 1021]


def test_too_few_accumulators_are_refused() -> None:
    with pytest.raises(ValueError):
        SignFold(0, 63)


# The error -----------------------------------------------------------------------------------------


def relative_variance(sketches: np.ndarray, x: np.ndarray) -> tuple[float, float]:
    """Mean and variance, over draws (rows), of |Fx|^2 / |x|^2."""
    ratios = (sketches**2).sum(axis=1) / (x.astype(np.float64) ** 2).sum()
    return float(ratios.mean()), float(ratios.var())


def row_times_column_fold(x: np.ndarray, seed: int) -> np.ndarray:
    """The scheme that must not be used: s_r t_c for coordinate (r, c), a matrix-vector product."""
    rng = np.random.default_rng(seed)
    rows, columns = (rng.choice([-1.0, 1.0], size=n) for n in x.shape)
    return columns * (rows @ x)


def test_correlated_rows_do_not_add_up_and_would_under_row_times_column_signs() -> None:
    rng = np.random.default_rng(0)
    m = 1021
    # The rows of a weight gradient, sum over tokens of (output gradient) x (activation), when one
    # activation dominates. As many columns as accumulators: both schemes have m sums.
    x = np.outer(np.ones(40), rng.standard_normal(m)) + 0.3 * rng.standard_normal((40, m))
    x = x.astype(np.float32)
    draws = 200
    ours = np.stack([folded({"w": torch.from_numpy(x)}, seed) for seed in range(draws)])
    bad = np.stack([row_times_column_fold(x, seed) for seed in range(draws)])
    bound = 10 / m
    mean, variance = relative_variance(ours, x)
    assert abs(mean - 1) < 4 * math.sqrt(bound / draws)
    assert variance < bound
    _, bad_variance = relative_variance(bad, x)
    assert bad_variance > 50 * bound  # it is about 2, whatever m


def test_signs_are_no_product_of_a_row_sign_and_a_column_sign() -> None:
    # Fewer coordinates than accumulators: each stands alone, and the fold of ones shows its sign. Of
    # a product the four signs at the corners of any rectangle multiply to +1.
    rows, columns = 200, 300
    sums = folded({"w": torch.ones(rows, columns)}, accumulators=65_536)[:65_521]
    signs = np.roll(sums, -(key(0, "fold", "w") % 65_521))[: rows * columns].reshape(rows, columns)
    assert set(np.unique(signs)) == {-1, 1}
    for down, across in ((1, 1), (7, 64), (100, 128), (3, 256)):
        pairs = signs[:-down] * signs[down:]
        corners = pairs[:, :-across] * pairs[:, across:]
        assert abs(corners.mean()) * math.sqrt(corners.size) < 5


def test_entries_of_one_column_fall_apart() -> None:
    # A weight gradient concentrated in one input feature. 768 and 1,024 share the factor 256: with a
    # period of 1,024 the column would have 4 accumulators for its 1,000 entries.
    gradient = torch.zeros(1000, 768)
    gradient[:, 17] = 1
    assert np.count_nonzero(folded({"w": gradient})) == 1000
    assert np.unique(np.flatnonzero(gradient.numpy()) % 1024).size == 4


def test_fold_is_unbiased_with_variance_of_one_over_m() -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal(20_000).astype(np.float32)
    y = (0.5 * x + rng.standard_normal(20_000)).astype(np.float32)
    draws = 1500
    products = np.empty(draws)
    for seed in range(draws):
        fx, fy = (folded({"p": torch.from_numpy(v)}, seed, 256) for v in (x, y))
        products[seed] = fx @ fy
    scale = float(np.linalg.norm(x) * np.linalg.norm(y))
    rho = float(x.astype(np.float64) @ y) / scale
    expected = (1 + rho**2) / 251 * (1 - 251 / 20_000)  # pairs that meet, of all pairs
    assert abs(products.mean() / scale - rho) < 4 * math.sqrt(expected / draws)
    assert abs(products.var() / scale**2 / expected - 1) < 4 * math.sqrt(2 / draws)


def test_like_positions_of_layers_do_not_meet() -> None:
    one, other = (
        np.flatnonzero(folded({f"blocks.{i}.bias": torch.ones(50)}, accumulators=65_536))
        for i in range(2)
    )
    assert np.intersect1d(one, other).size == 0
