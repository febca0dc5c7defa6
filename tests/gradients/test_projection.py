"""Projections: what they compute, what they do not depend on, what they refuse, and their error."""

import math
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from motive.errors import ClipError, UserError
from motive.gradients.counter import key, normal
from motive.gradients.countsketch import CountSketchProjection
from motive.gradients.fastfood import Fastfood, chi
from motive.gradients.fold import flat_pieces
from motive.gradients.projection import Projection, make_projection, parameter_count
from motive.gradients.rademacher import RademacherProjection

Gradients = Mapping[str, torch.Tensor]
KINDS = ["fastfood", "folded fastfood", "countsketch", "rademacher", "factored", "identity"]


def projection_for(
    gradients: Gradients, kind: str, dim: int = 64, seed: int = 0, fold: int = 256
) -> Projection:
    shapes = {name: tuple(gradient.shape) for name, gradient in gradients.items()}
    if kind == "fastfood":
        fold = 65_536
    return make_projection(kind.split()[-1], dim, seed, shapes, fold)


def run(projection: Projection, gradients: Gradients) -> np.ndarray:
    projection.begin()
    for name, gradient in gradients.items():
        projection.add(name, gradient)
    return projection.finish()


def projected(gradients: Gradients, kind: str, **options: int) -> np.ndarray:
    return run(projection_for(gradients, kind, **options), gradients)


def model(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"out.bias": (7,), "in.weight": (30, 16, 2), "in.bias": (30,), "out.weight": (7, 30)}
    shapes |= {"scale": (), "mid.weight": (40, 30), "wide.weight": (3, 300)}
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


# What is computed ----------------------------------------------------------------------------------


def test_identity_is_the_concatenation_in_the_order_of_the_names() -> None:
    gradients = model()
    projection = projection_for(gradients, "identity")
    assert projection.dim == parameter_count({n: tuple(g.shape) for n, g in gradients.items()})
    expected = torch.cat([gradients[name].flatten() for name in sorted(gradients)]).numpy()
    assert np.array_equal(run(projection, gradients), expected)


def plain_fastfood(x: np.ndarray, seed: int, dim: int) -> np.ndarray:
    """The paper's formula in plain loops over rows and columns; x of a power of two."""
    n = x.size

    def h(i: int, j: int) -> int:
        return -1 if (i & j).bit_count() % 2 else 1

    b = [-1 if plain_bit(key(seed, "fastfood", "B"), i) else 1 for i in range(n)]
    hashes = [plain_hash(key(seed, "fastfood", "Pi"), i) for i in range(n)]
    pi = sorted(range(n), key=lambda i: hashes[i])
    g = normal(key(seed, "fastfood", "G"), np.arange(n)).astype(float)
    s = chi(key(seed, "fastfood", "S"), n, dim) / math.sqrt(sum(v * v for v in g))
    once = [sum(h(i, j) * b[j] * x[j] for j in range(n)) for i in range(n)]
    mixed = [g[i] * once[pi[i]] for i in range(n)]
    twice = [sum(h(i, j) * mixed[j] for j in range(n)) for i in range(dim)]
    return np.array([s[i] * twice[i] / (math.sqrt(n) * math.sqrt(dim)) for i in range(dim)])


def plain_hash(stream: int, counter: int) -> int:
    mask = 2**64 - 1
    z = (stream + counter * 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def plain_bit(stream: int, i: int) -> int:
    return plain_hash(stream, i // 64) >> (i % 64) & 1


def test_a_small_model_gets_the_papers_formula_on_its_padded_gradient() -> None:
    gradients = {"b": torch.randn(11, 9), "a": torch.randn(70), "c": torch.randn(3, 2, 4)}
    x = torch.cat([gradients[name].flatten() for name in "abc"]).double().numpy()
    padded = np.concatenate([x, np.zeros(256 - x.size)])
    expected = plain_fastfood(padded, seed=4, dim=50)
    got = projected(gradients, "fastfood", dim=50, seed=4)
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


def test_a_large_model_is_folded_first() -> None:
    gradients = model()
    accumulators = np.zeros(256)
    m = 251
    for name, gradient in gradients.items():
        stream = key(4, "fold", name)
        sums = np.zeros(m, dtype=np.float32)
        for i, value in enumerate(gradient.flatten().numpy()):
            lap, j = divmod(i, m)
            bit = plain_hash(stream, lap * 4 + j // 64) >> (j % 64) & 1
            sums[(stream + i) % m] += -value if bit else value
        accumulators[:m] += sums
    expected = plain_fastfood(accumulators, seed=4, dim=64)
    got = projected(gradients, "folded fastfood", seed=4)
    np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


def test_the_fold_begins_above_its_length() -> None:
    at_most = {"w": torch.randn(256)}
    expected = Fastfood(256, 64, seed=0)(at_most["w"].double().numpy())
    assert np.array_equal(projected(at_most, "folded fastfood"), expected)
    assert projected({"w": torch.randn(257)}, "folded fastfood").shape == (64,)


# What the result does not depend on ----------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_order_of_arrival_does_not_matter(kind: str) -> None:
    gradients = model()
    expected = projected(gradients, kind)
    projection = projection_for(gradients, kind)
    got = run(projection, dict(reversed(gradients.items())))
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-7 * np.abs(expected).max())


@pytest.mark.parametrize("kind", KINDS)
def test_other_clips_do_not_matter(kind: str) -> None:
    clips = [model(seed) for seed in range(3)]
    alone = [projected(clip, kind) for clip in clips]
    projection = projection_for(clips[0], kind)
    for clip, expected in zip(reversed(clips), reversed(alone), strict=True):
        got = run(projection, clip)
        assert got.dtype == np.float32
        assert np.array_equal(got, expected)
    assert not np.array_equal(alone[0], alone[1])


@pytest.mark.parametrize("kind", KINDS)
def test_a_broken_off_gradient_leaves_no_trace(kind: str) -> None:
    gradients = model()
    projection = projection_for(gradients, kind)
    projection.begin()
    projection.add("in.weight", gradients["in.weight"])
    assert np.array_equal(run(projection, gradients), projected(gradients, kind))


@pytest.mark.parametrize("kind", KINDS)
def test_a_result_is_not_overwritten_by_the_next(kind: str) -> None:
    projection = projection_for(model(), kind)
    first = run(projection, model(0))
    kept = first.copy()
    run(projection, model(1))
    assert np.array_equal(first, kept)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_widened_exactly(kind: str, dtype: torch.dtype) -> None:
    half = {name: gradient.to(dtype) for name, gradient in model().items()}
    widened = {name: gradient.float() for name, gradient in half.items()}
    assert np.array_equal(projected(half, kind), projected(widened, kind))


@pytest.mark.parametrize("kind", KINDS)
def test_strides_and_graphs_do_not_matter(kind: str) -> None:
    gradients = model()
    strided = dict(gradients)
    strided["mid.weight"] = gradients["mid.weight"].t().contiguous().t()
    strided["in.weight"] = gradients["in.weight"].clone().requires_grad_()
    assert not strided["mid.weight"].is_contiguous()
    assert np.array_equal(projected(strided, kind), projected(gradients, kind))


@pytest.mark.parametrize("kind", ["folded fastfood", "countsketch", "rademacher", "factored"])
def test_threads_do_not_matter(kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    gradients = {str(i): torch.randn(700, 450, generator=generator) for i in range(3)}
    expected = projected(gradients, kind, fold=65_536)
    # The matrix products of `factored` are torch's, which adds in another order with more threads.
    tolerance = 1e-6 * np.linalg.norm(expected) if kind == "factored" else 0
    for threads in (2, 3):
        torch.set_num_threads(threads)
        got = projected(gradients, kind, fold=65_536)
        np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("kind", ["countsketch", "rademacher"])
def test_torch_operations_serve_other_devices(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    gradients = {f"p{n}": torch.randn(n, generator=generator) for n in (1, 64, 65, 70_000)}
    gradients["half"] = torch.randn(300, 500, generator=generator).bfloat16().t()
    expected = projected(gradients, kind)
    projection = projection_for(gradients, kind)

    def take(name: str, gradient: torch.Tensor) -> None:
        stream = key(0, kind, name)
        if isinstance(projection, RademacherProjection):
            for start, piece in flat_pieces(gradient, 65_536):
                projection._sum += projection._project_on_device(piece, start // 64, stream)
        elif isinstance(projection, CountSketchProjection):
            for start, piece in flat_pieces(gradient, 50_000):
                projection._sum += projection._sketch_on_device(piece, start, stream).numpy()

    monkeypatch.setattr(projection, "_take", take)
    got = run(projection, gradients)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6 * np.linalg.norm(expected))


@pytest.mark.parametrize("kind", ["folded fastfood", "countsketch", "rademacher", "factored"])
def test_state_does_not_grow_with_the_model(kind: str) -> None:
    sizes = []
    for rows in (300, 30_000_000):
        projection = make_projection(kind.split()[-1], 512, 0, {"w": (rows, 50), "v": (2**17,)})
        sizes.append(projection.nbytes)  # type: ignore[attr-defined]
    assert sizes[0] == sizes[1] < 2**20


@pytest.mark.parametrize("kind", KINDS[:-1])
def test_the_seed_matters(kind: str) -> None:
    gradients = model()
    one, other = projected(gradients, kind, seed=0), projected(gradients, kind, seed=1)
    cosine = one @ other / (np.linalg.norm(one) * np.linalg.norm(other))
    assert abs(cosine) < 4 / math.sqrt(64)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=25, deadline=None)
@given(st.floats(-100, 100, width=32), st.floats(-100, 100, width=32))
def test_projection_is_linear(kind: str, a: float, b: float) -> None:
    x, y = model(0), model(1)
    both = {name: a * x[name] + b * y[name] for name in x}
    expected = a * projected(x, kind).astype(float) + b * projected(y, kind)
    size = abs(a) * np.linalg.norm(projected(x, kind)) + abs(b) * np.linalg.norm(projected(y, kind))
    np.testing.assert_allclose(projected(both, kind), expected, rtol=0, atol=1e-6 * size + 1e-30)


# What is refused -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_gradient_that_is_not_finite_names_its_parameter(kind: str, bad: float) -> None:
    gradients = model()
    projection = projection_for(gradients, kind)
    broken = {**gradients, "mid.weight": gradients["mid.weight"].clone()}
    broken["mid.weight"][3, 4] = bad
    with pytest.raises(ClipError, match=r"mid\.weight"):
        run(projection, broken)
    with pytest.raises(ValueError, match="begin"):
        projection.add("scale", gradients["scale"])
    assert np.array_equal(run(projection, gradients), projected(gradients, kind))


@pytest.mark.parametrize("kind", KINDS)
def test_the_callers_mistakes_are_named(kind: str) -> None:
    gradients = model()
    projection = projection_for(gradients, kind)
    with pytest.raises(ValueError, match="begin"):
        projection.add("scale", gradients["scale"])
    with pytest.raises(ValueError, match="begin"):
        projection.finish()
    projection.begin()
    with pytest.raises(ValueError, match="'nobody'"):
        projection.add("nobody", gradients["scale"])
    with pytest.raises(ValueError, match=r"'in\.bias' has shape \(3, 10\), not \(30,\)"):
        projection.add("in.bias", gradients["in.bias"].view(3, 10))
    with pytest.raises(ValueError, match=r"'in\.bias' is .*float64"):
        projection.add("in.bias", gradients["in.bias"].double())
    with pytest.raises(ValueError, match=r"'in\.bias' is .*sparse"):
        projection.add("in.bias", gradients["in.bias"].to_sparse())
    projection.add("in.bias", gradients["in.bias"])
    with pytest.raises(ValueError, match=r"'in\.bias' was added before"):
        projection.add("in.bias", gradients["in.bias"])
    with pytest.raises(ValueError, match=r"'in\.weight', 'mid\.weight', 'out\.bias' and 3 more"):
        projection.finish()
    for name in sorted(gradients.keys() - {"in.bias", "scale"}):
        projection.add(name, gradients[name])
    with pytest.raises(ValueError, match=r"for 'scale'$"):
        projection.finish()
    projection.add("scale", gradients["scale"])
    assert np.array_equal(projection.finish(), projected(gradients, kind))


def test_requests_that_cannot_be_met_are_refused() -> None:
    shapes = {"w": (100, 10)}
    with pytest.raises(
        UserError, match=r"'sketch'.*fastfood, countsketch, rademacher, factored, id"
    ):
        make_projection("sketch", 64, 0, shapes)
    with pytest.raises(UserError, match=r"1,000 numbers.*1 to 1,024"):
        make_projection("fastfood", 2048, 0, shapes)
    with pytest.raises(UserError, match="1 to 128"):
        make_projection("fastfood", 256, 0, shapes, fold=128)
    for kind in ("fastfood", "countsketch", "rademacher", "factored"):
        with pytest.raises(UserError, match="choose a dim from 1 to"):
            make_projection(kind, 0, 0, shapes)
    for kind in ("countsketch", "rademacher"):
        with pytest.raises(UserError, match="1 to 1,000"):
            make_projection(kind, 1001, 0, shapes)
    with pytest.raises(UserError, match="16,384 numbers at most"):
        make_projection("countsketch", 16_385, 0, {"w": (100_000,)})
    with pytest.raises(ValueError, match="power of two"):
        make_projection("fastfood", 64, 0, shapes, fold=1000)
    with pytest.raises(ValueError, match="empty"):
        make_projection("fastfood", 64, 0, {})


# The error -----------------------------------------------------------------------------------------

DIM, FOLD, PAIRS, SEEDS = 32, 4096, 4, 650


def pairs_of_cosine_one_half(kind: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit vectors x, y, each (PAIRS, size), with x . y = 1/2."""
    rng = np.random.default_rng(0)
    x, z = rng.standard_normal((2, PAIRS, size))
    if kind == "heavy-tailed":
        x, z = rng.standard_t(1.5, (2, PAIRS, size))
    elif kind == "sparse":
        kept = rng.permuted(np.arange(size) < 20, axis=-1)
        x, z = x * kept, z * kept
    elif kind == "constant":
        x, z = np.ones((PAIRS, size)), np.sign(z)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    z -= (x * z).sum(axis=1, keepdims=True) * x
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    return x.astype(np.float32), (x / 2 + z * math.sqrt(3) / 2).astype(np.float32)


@pytest.mark.parametrize("kind", ["folded fastfood", "fastfood", "countsketch", "rademacher"])
@pytest.mark.parametrize("numbers", ["gaussian", "heavy-tailed", "sparse", "constant"])
def test_inner_products_are_unbiased_with_variance_one_over_dim(numbers: str, kind: str) -> None:
    size = 1500 if kind == "fastfood" else 12_000
    x, y = pairs_of_cosine_one_half(numbers, size)
    products = np.empty((SEEDS, PAIRS))
    for seed in range(SEEDS):
        projection = make_projection(kind.split()[-1], DIM, seed, {"w": (size,)}, FOLD)
        for i in range(PAIRS):
            px, py = (run(projection, {"w": torch.from_numpy(v[i])}) for v in (x, y))
            products[seed, i] = px @ py
    # Signs alone make no error of what two vectors have in one coordinate; Gaussian numbers do.
    alone = 0.0 if "fastfood" in kind else 2 * ((x * y).astype(np.float64) ** 2).sum(axis=1)
    expected = (1 + 0.5**2 - alone) / DIM
    assert abs(products.mean() - 0.5) < 4 * math.sqrt(np.mean(expected) / products.size)
    assert abs(products.mean() / 0.5 - 1) < 0.05
    assert abs((products.var(axis=0) / expected).mean() - 1) < 0.10


@pytest.mark.parametrize("kind", ["fastfood", "countsketch", "rademacher", "factored"])
def test_pairwise_distances_survive(kind: str) -> None:
    rng = np.random.default_rng(0)
    points = torch.from_numpy(rng.standard_normal((12, 100, 300)).astype(np.float32))
    points *= torch.linspace(0.1, 3, 12)[:, None, None]
    projection = make_projection(kind, 4096, 0, {"x": (100, 300)}, 8192)
    images = torch.from_numpy(np.stack([run(projection, {"x": point}) for point in points]))
    ratios = torch.pdist(images.double()) / torch.pdist(points.flatten(1).double())
    assert (ratios - 1).abs().mean() < 0.05


@pytest.mark.parametrize("kind", ["fastfood", "countsketch", "rademacher", "factored"])
def test_errors_of_equal_rows_do_not_add_up(kind: str) -> None:
    # Where one activation dominates, the rows of a weight's gradient are alike. With signs of a
    # product form, row sign x column sign, all their sums would be one random multiple of one row:
    # the variance of |Px|^2 / |x|^2 would be about 2, whatever dim.
    rng = np.random.default_rng(0)
    x = np.outer(np.ones(40), rng.standard_normal(250)) + 0.1 * rng.standard_normal((40, 250))
    gradient = torch.from_numpy(x.astype(np.float32))
    squares = np.empty(400)
    for seed in range(squares.size):
        projection = make_projection(kind, 256, seed, {"w": (40, 250)}, 1024)
        squares[seed] = np.sum(run(projection, {"w": gradient}).astype(np.float64) ** 2)
    ratios = squares / np.sum(x**2)
    expected = 2 / 256 + 2 / 1021
    assert abs(ratios.mean() - 1) < 4 * math.sqrt(expected / ratios.size)
    assert ratios.var() < 1.5 * expected
