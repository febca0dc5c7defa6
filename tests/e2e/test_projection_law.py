"""Fastfood against the whole gradient, on real gradients: the law of Johnson and Lindenstrauss.

The inner product of two projected gradients is that of the gradients themselves, plus an error whose
mean is 0 and whose variance is |x|² |y|² (1 + ρ²) / dim over the draws of the projection, ρ being the
cosine. Folding into n accumulators first adds as much with n in place of dim.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import Terminal
from run_files import Finished, features

from motive.gradients.projection import make_projection

SEEDS = 1_000
DIM = 512
WHOLE, FOLD = 65_536, 16_384  # accumulators: more and fewer than the model has parameters


@dataclass(frozen=True)
class Draws:
    """errors: (SEEDS, pairs), of the projected inner products. cosines: (pairs,), the true ones.

    variance: (pairs,), by the law.
    """

    errors: np.ndarray
    cosines: np.ndarray
    variance: np.ndarray


@pytest.fixture(scope="module")
def unit_gradients(
    motive: Terminal, finished: Finished, tmp_path_factory: pytest.TempPathFactory
) -> np.ndarray:
    """(3 or 4, D): whole gradients of the two clips that are least alike and the two that are most."""
    run = tmp_path_factory.mktemp("identity") / "run"
    motive(*finished.words, "--projection", "identity", "--out", run).succeeded()
    moving = np.stack([vector for _, vector in sorted(features(run).items()) if vector.any()])
    cosines = moving @ moving.T
    np.fill_diagonal(cosines, np.nan)
    extremes = (np.nanargmin(cosines), np.nanargmax(cosines))
    chosen = {int(i) for extreme in extremes for i in np.unravel_index(extreme, cosines.shape)}
    return moving[sorted(chosen)]


@pytest.fixture(scope="module", params=[WHOLE, FOLD], ids=["whole", "folded"])
def draws(request: pytest.FixtureRequest, small_wan: Path, unit_gradients: np.ndarray) -> Draws:
    shapes = parameter_shapes(small_wan)
    count = sum(map(math.prod, shapes.values()))
    assert FOLD < count < WHOLE, "one of the two cases is gone"
    parts = [in_parts(vector, shapes) for vector in unit_gradients]
    pairs = np.triu_indices(len(parts))
    exact = (unit_gradients.astype(np.float64) @ unit_gradients.astype(np.float64).T)[pairs]
    errors = np.empty((SEEDS, len(exact)))
    for seed in range(SEEDS):
        projection = make_projection("fastfood", DIM, seed, shapes, fold=request.param)
        projected = []
        for part in parts:
            projection.begin()
            for name, gradient in part.items():
                projection.add(name, gradient)
            projected.append(projection.finish().astype(np.float64))
        inner = np.stack(projected) @ np.stack(projected).T
        errors[seed] = inner[pairs] - exact
    folding = (1 + exact**2) / FOLD if request.param == FOLD else 0
    return Draws(errors, exact, (1 + exact**2) / DIM + folding)


def parameter_shapes(model: Path) -> dict[str, tuple[int, ...]]:
    from diffusers import WanTransformer3DModel

    transformer = WanTransformer3DModel.from_pretrained(model / "transformer")
    return {name: tuple(p.shape) for name, p in transformer.named_parameters()}


def in_parts(vector: np.ndarray, shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """The gradient of each parameter, out of all of them by sorted name."""
    sizes = [math.prod(shapes[name]) for name in sorted(shapes)]
    pieces = np.split(vector, np.cumsum(sizes)[:-1])
    return {
        name: torch.from_numpy(piece.reshape(shapes[name]).copy())
        for name, piece in zip(sorted(shapes), pieces, strict=True)
    }


def test_gradients_differ_enough_to_show_the_law(draws: Draws) -> None:
    assert draws.cosines.min() < 0.6
    assert ((draws.cosines > 0.8) & (draws.cosines < 0.999)).any()


def test_the_error_is_unbiased(draws: Draws) -> None:
    deviations = np.sqrt(draws.variance / SEEDS)
    assert (np.abs(draws.errors.mean(0)) <= 4 * deviations).all()


def test_the_variance_of_the_error_is_the_law_s(draws: Draws) -> None:
    ratios = (draws.errors**2).mean(0) / draws.variance
    assert ratios.mean() == pytest.approx(1, abs=0.1)
    # One pair's ratio alone is known to √(2 / SEEDS), 4%.
    assert ratios == pytest.approx(1, abs=0.2)
