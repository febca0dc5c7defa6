"""Random projections of a gradient that is never whole (paper, Method 5).

A projection is fed one parameter's gradient at a time, in whatever order the backward pass makes
them, and forgets each at once:

    projection = make_projection("fastfood", dim=512, seed=0, shapes=shapes)
    projection.begin()
    for name, gradient in gradients:        # any order, each name once
        projection.add(name, gradient)
    feature = projection.finish()           # float32 (dim,)

The result depends on the seed, the names, the shapes and the gradients, and on nothing else: not on
the order, the number of threads, the strides, or on other clips.

With at most n = 65,536 numbers in all, `fastfood` is the paper's transform to the letter, on the
concatenation of the gradients in the order of their sorted names, zero-padded to a power of two
(`motive.gradients.fastfood`). With more, the gradient is first folded with random signs into n
accumulators (`motive.gradients.fold`), and the transform is applied to those. The paper's single
transform would need 2^31 padded numbers for Wan2.1-1.3B, and O(D) state. Both steps are linear and
unbiased and draw from independent streams, so their product is linear and unbiased; the variances
add: (1 + rho^2)/dim + about (1 + rho^2)/n, the fold's share being dim/n, 0.8% at 512.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from motive.errors import ClipError, UserError
from motive.gradients.fastfood import Fastfood
from motive.gradients.fold import BLOCK, SignFold

Shapes = Mapping[str, tuple[int, ...]]

KINDS = ("fastfood", "countsketch", "rademacher", "factored", "identity")
"""The names that `make_projection` knows."""

_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


class Projection(Protocol):
    """What the backward pass needs of a projection. One gradient at a time: not for two threads."""

    kind: str
    dim: int

    def begin(self) -> None:
        """Start a new gradient; anything unfinished is forgotten."""

    def add(self, name: str, gradient: torch.Tensor) -> None:
        """Take in one parameter's gradient. It is not kept and not changed.

        Args:
            name: a key of `shapes`, each once between `begin` and `finish`.
            gradient: of the shape that `shapes` gives; float32, bfloat16 or float16; any strides,
                any device.

        Raises:
            ClipError: the gradient holds NaN or Inf; the message names the parameter. `begin` must
                come next.
            ValueError: a mistake of the caller's: unknown name, a name's second gradient, another
                shape, another type, no `begin`.
        """

    def finish(self) -> npt.NDArray[np.float32]:
        """The projected gradient, float32 (dim,).

        Raises:
            ClipError: as `add`, for gradients that lay on another device than the CPU.
            ValueError: a parameter's gradient is missing, or no `begin`.
        """


def make_projection(
    kind: str, dim: int, seed: int, shapes: Shapes, fold: int = 65_536
) -> Projection:
    """The projection called `kind`, for gradients of parameters of these shapes.

    All of them are linear and, but for `identity`, random with E <Px, Py> = <x, y>:

    | kind          | what                                     | time     | Var <Px, Py>, unit x, y  |
    |---------------|------------------------------------------|----------|--------------------------|
    | `fastfood`    | the paper's, of the sign-fold            | D        | (1 + rho^2)/dim (+ 1/n)  |
    | `countsketch` | SJLT with 4 nonzeros in each column      | 4 D      | (1 + rho^2)/dim          |
    | `rademacher`  | dense signs, drawn on the fly            | D . dim  | (1 + rho^2)/dim          |
    | `factored`    | `fastfood` of L G R^T for matrices G     | D . 128  | see `gradients.factored` |
    | `identity`    | all D numbers, for checking              | D        | 0                        |

    Args:
        kind: one of these names.
        dim: D', the length of the projected gradient. It has no part in `identity`.
        seed: of all randomness in the projection.
        shapes: name and shape of every parameter whose gradient will come.
        fold: n, the accumulators that a longer gradient is folded into; a power of two. Of
            `fastfood` and `factored`.

    Raises:
        UserError: unknown kind; dim not positive, or larger than what is to be projected.
        ValueError: `shapes` is empty, or `fold` is no power of two.
    """
    if not shapes:
        raise ValueError("there is nothing to project: shapes is empty")
    if kind == "identity":
        return IdentityProjection(shapes)
    if kind == "fastfood":
        return FastfoodProjection(dim, seed, shapes, fold)
    # These are imported when asked for: they build on this module, and most runs want none of them.
    if kind == "countsketch":
        from motive.gradients.countsketch import CountSketchProjection

        return CountSketchProjection(dim, seed, shapes)
    if kind == "rademacher":
        from motive.gradients.rademacher import RademacherProjection

        return RademacherProjection(dim, seed, shapes)
    if kind == "factored":
        from motive.gradients.factored import FactoredProjection

        return FactoredProjection(dim, seed, shapes, fold)
    raise UserError(f"There is no projection called {kind!r}: choose one of {', '.join(KINDS)}.")


class StreamedProjection(ABC):
    """The bookkeeping that all projections share: which gradients came, and are they fit.

    A kind of its own gives `_reset`, `_take` (one checked gradient; raises ClipError, naming the
    parameter, if it is not finite) and `_result`.
    """

    kind: str
    dim: int

    def __init__(self, shapes: Shapes) -> None:
        self._shapes = {name: tuple(shape) for name, shape in shapes.items()}
        self._missing: set[str] | None = None  # None: `begin` must come first

    def begin(self) -> None:
        self._reset()
        self._missing = set(self._shapes)

    def add(self, name: str, gradient: torch.Tensor) -> None:
        self.expect(name, gradient)
        try:
            self._take(name, gradient.detach() if gradient.requires_grad else gradient)
        except ClipError:
            self._missing = None
            raise

    def expect(self, name: str, gradient: torch.Tensor) -> None:
        """Note that a gradient has come; raises ValueError for one that `add` does not take."""
        missing = self._begun()
        if name not in self._shapes:
            raise ValueError(f"{name!r} is not one of the {len(self._shapes)} parameters projected")
        if name not in missing:
            raise ValueError(f"the gradient of {name!r} was added before")
        if gradient.shape != self._shapes[name]:
            raise ValueError(
                f"the gradient of {name!r} has shape {tuple(gradient.shape)}, "
                f"not {self._shapes[name]}"
            )
        if gradient.dtype not in _DTYPES or gradient.layout != torch.strided:
            raise ValueError(
                f"the gradient of {name!r} is {gradient.layout} {gradient.dtype}; "
                "projected are dense float32, bfloat16 and float16"
            )
        missing.remove(name)

    def finish(self) -> npt.NDArray[np.float32]:
        missing = self._begun()
        if missing:
            first = ", ".join(repr(name) for name in sorted(missing)[:3])
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            raise ValueError(f"no gradient was added for {first}{more}")
        self._missing = None
        return self._result()

    def _begun(self) -> set[str]:
        if self._missing is None:
            raise ValueError("begin() must be called before a gradient is added or finished")
        return self._missing

    @abstractmethod
    def _reset(self) -> None: ...

    @abstractmethod
    def _take(self, name: str, gradient: torch.Tensor) -> None: ...

    @abstractmethod
    def _result(self) -> npt.NDArray[np.float32]: ...


class _Concatenation:
    """All gradients, flat, one after the other in the order of their sorted names, in float32."""

    def __init__(self, shapes: Shapes) -> None:
        self._places: dict[str, slice] = {}
        start = 0
        for name in sorted(shapes):
            stop = start + math.prod(shapes[name])
            self._places[name] = slice(start, stop)
            start = stop
        self._numbers = np.zeros(start, dtype=np.float32)
        self.nbytes = self._numbers.nbytes

    def reset(self) -> None:
        self._numbers.fill(0)

    def add(self, name: str, gradient: torch.Tensor) -> None:
        numbers = gradient.reshape(-1).float().cpu().numpy()
        if not np.isfinite(numbers).all():
            raise ClipError(f"the gradient of parameter {name} holds NaN or Inf")
        self._numbers[self._places[name]] = numbers

    def total(self) -> npt.NDArray[np.float32]:
        return self._numbers.copy()


class IdentityProjection(StreamedProjection):
    """No projection: all D numbers, in the order of the sorted names. `dim` is D."""

    kind = "identity"

    def __init__(self, shapes: Shapes) -> None:
        super().__init__(shapes)
        self._numbers = _Concatenation(shapes)
        self.dim = parameter_count(shapes)

    def _reset(self) -> None:
        self._numbers.reset()

    def _take(self, name: str, gradient: torch.Tensor) -> None:
        self._numbers.add(name, gradient)

    def _result(self) -> npt.NDArray[np.float32]:
        return self._numbers.total()


class FastfoodProjection(StreamedProjection):
    """The paper's Fastfood projection, of the gradient itself or, if it is long, of its fold."""

    kind = "fastfood"

    def __init__(self, dim: int, seed: int, shapes: Shapes, fold: int) -> None:
        super().__init__(shapes)
        if fold < BLOCK or fold & (fold - 1):
            raise ValueError(f"fold must be a power of two, at least {BLOCK}, not {fold}")
        count = parameter_count(shapes)
        size = min(fold, max(2, 1 << (count - 1).bit_length()))
        check_dim(dim, shapes, most=size)
        self.dim = dim
        self.seed = seed
        self._transform = Fastfood(size, dim, seed)
        self._numbers: SignFold | _Concatenation = (
            SignFold(seed, fold) if count > fold else _Concatenation(shapes)
        )

    @property
    def fold(self) -> SignFold | None:
        """What the gradients are added up in, if they are too long for the transform."""
        return self._numbers if isinstance(self._numbers, SignFold) else None

    @property
    def nbytes(self) -> int:
        """Bytes that it holds: the random factors, and the sums between `begin` and `finish`."""
        return self._transform.nbytes + self._numbers.nbytes

    def _reset(self) -> None:
        self._numbers.reset()

    def _take(self, name: str, gradient: torch.Tensor) -> None:
        self._numbers.add(name, gradient)

    def _result(self) -> npt.NDArray[np.float32]:
        numbers = self._numbers.total()
        padded = np.zeros(self._transform.n, dtype=np.float64)
        padded[: numbers.size] = numbers
        return self._transform(padded)


def parameter_count(shapes: Shapes) -> int:
    """D, the number of numbers in parameters of these shapes."""
    return sum(math.prod(shape) for shape in shapes.values())


def check_dim(dim: int, shapes: Shapes, most: int | None = None) -> None:
    """Raise UserError unless gradients of these shapes can be projected to `dim` numbers.

    most: the largest dim, if it is not D.
    """
    count = parameter_count(shapes)
    most = count if most is None else most
    if not 1 <= dim <= most:
        raise UserError(
            f"A gradient of {count:,} numbers cannot be projected to {dim:,}: choose a dim "
            f"from 1 to {most:,}, or the identity projection."
        )
