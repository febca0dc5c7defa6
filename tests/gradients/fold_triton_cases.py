"""The Triton fold against the numba kernel and the torch operations, in Triton's interpreter.

`test_fold_triton.py` runs this file in a process of its own: the interpreter must be chosen before
Triton is imported.
"""

import math

import numpy as np
import pytest
import torch

from motive.errors import ClipError
from motive.gradients import fold_triton
from motive.gradients.counter import key
from motive.gradients.fold import SignFold
from motive.gradients.projection import FastfoodProjection

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def fold_all(
    gradients: dict[str, torch.Tensor], how: str, seed: int = 5, accumulators: int = 128
) -> np.ndarray:
    fold = SignFold(seed, accumulators)
    for name, gradient in gradients.items():
        stream = key(seed, "fold", name)
        if how == "triton":
            fold._add_by_triton(name, gradient, stream, fold_triton)
        elif how == "torch":
            fold._add_on_device(name, gradient, stream)
        else:
            fold.add(name, gradient)
    return fold.total()


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def same_on_all_three(gradients: dict[str, torch.Tensor], accumulators: int = 128) -> None:
    by_triton = fold_all(gradients, "triton", accumulators=accumulators)
    assert by_triton.any()
    assert np.array_equal(by_triton, fold_all(gradients, "numba", accumulators=accumulators))
    assert np.array_equal(by_triton, fold_all(gradients, "torch", accumulators=accumulators))


# Periods 61 (less than one hash), 127 and 1,021; sizes around hashes, laps and 8 laps at a time.
@pytest.mark.parametrize("accumulators", [64, 128, 1024])
def test_sizes(accumulators: int) -> None:
    sizes = [1, 60, 61, 62, 64, 65, 127, 128, 489, 1017]
    gradients = {f"p{n}": random(n, seed=n) * 10.0 ** (n % 5 - 2) for n in sizes}
    same_on_all_three(gradients, accumulators)


@pytest.mark.parametrize("dtype", DTYPES)
def test_half_precision_is_widened_exactly(dtype: torch.dtype) -> None:
    half = (random(3000) * 10.0 ** torch.arange(3000).remainder(9).sub(6)).to(dtype)
    same_on_all_three({"p": half})
    assert np.array_equal(fold_all({"p": half}, "triton"), fold_all({"p": half.float()}, "numba"))


@pytest.mark.parametrize("dtype", DTYPES)
def test_strides_and_the_pieces_that_they_come_in(dtype: torch.dtype) -> None:
    gradients = {
        "transposed": random(70, 61).to(dtype).t(),  # 3 pieces of up to 16 laps
        "sliced": random(40, 70)[::2, 5:60].to(dtype),
        "expanded": random(1, 50).to(dtype).expand(60, 50),
        "scalar": random(1)[0].to(dtype),
    }
    assert not gradients["transposed"].is_contiguous()
    same_on_all_three(gradients)


def test_many_programs() -> None:
    same_on_all_three({"w": random(20, 401)}, accumulators=4096)


@pytest.mark.filterwarnings("ignore:overflow encountered")
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 3e38])
@pytest.mark.parametrize("place", [0, 127, 2998])
def test_a_number_that_is_not_finite_is_found_and_named(place: int, bad: float) -> None:
    gradient = random(3000)
    gradient[place] = bad
    if bad == 3e38:
        gradient[:] = bad  # the sums overflow
    fold = SignFold(0, 128)
    for name, numbers in (("good", random(300)), ("blocks.3.bad", gradient), ("b", random(50))):
        fold._add_by_triton(name, numbers, key(0, "fold", name), fold_triton)
    with pytest.raises(ClipError, match=r"blocks\.3\.bad"):
        fold.total()


def test_the_whole_projection_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    gradients = {f"layer.{i}": random(40 + i, 60, seed=i) for i in range(4)}
    shapes = {name: tuple(g.shape) for name, g in gradients.items()}

    def feature(how: str) -> np.ndarray:
        projection = FastfoodProjection(32, 7, shapes, fold=256)
        fold = projection._numbers
        assert isinstance(fold, SignFold)

        def add(name: str, gradient: torch.Tensor) -> None:
            stream = key(7, "fold", name)
            if how == "triton":
                fold._add_by_triton(name, gradient, stream, fold_triton)
            else:
                fold._add_on_device(name, gradient, stream)

        if how != "numba":
            monkeypatch.setattr(fold, "add", add)
        projection.begin()
        for name, gradient in gradients.items():
            projection.add(name, gradient)
        return projection.finish()

    numba, torch_operations, triton = (feature(how) for how in ("numba", "torch", "triton"))
    # All sums are equal; but a device's parameters are added up apart from the CPU's.
    assert np.array_equal(triton, torch_operations)
    assert np.array_equal(triton, numba)
