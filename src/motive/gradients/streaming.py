"""Per-clip gradients that never exist as a whole.

Autograd hands over one parameter's gradient at a time; a hook projects it and lets it go. The peak is
the model, its activations and the one gradient in hand.
"""

import fnmatch
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch

from motive.errors import ClipError, UserError
from motive.gradients.projection import Projection, make_projection


def choose_parameters(module: torch.nn.Module, pattern: str) -> dict[str, torch.nn.Parameter]:
    """The parameters whose name fits `pattern` (`fnmatch`; alternatives with commas), frozen others.

    A tensor that several names share appears once, under its first name. Sets `requires_grad` of every
    parameter of the module.

    Raises UserError when nothing fits.
    """
    # Wrappers put their own words before a parameter's name, and names are what randomness is drawn by.
    patterns = [p.strip() for p in pattern.split(",")]
    chosen: dict[str, torch.nn.Parameter] = {}
    for wrapped, parameter in module.named_parameters():
        name = wrapped.replace("_orig_mod.", "").removeprefix("base_model.model.")
        wanted = any(fnmatch.fnmatchcase(name, p) for p in patterns)
        parameter.requires_grad_(wanted)
        if wanted:
            chosen[name] = parameter
    if not chosen:
        example = next(iter(dict(module.named_parameters())))
        raise UserError(f"no parameter is called like '{pattern}': names look like '{example}'")
    return chosen


class StreamingGradient:
    """Projected gradients of losses with respect to a module's chosen parameters.

    kind, dim, seed: of the projection.
    """

    def __init__(
        self, parameters: dict[str, torch.nn.Parameter], kind: str, dim: int, seed: int
    ) -> None:
        self.parameters = parameters
        shapes = {name: tuple(p.shape) for name, p in parameters.items()}
        self.projection: Projection = make_projection(kind, dim, seed, shapes)

    def feature(self, loss_of: Callable[[], torch.Tensor]) -> np.ndarray:
        """The projected gradient of `loss_of()`, float32, not normalised.

        A parameter that the loss does not reach has gradient zero.

        Raises ClipError when the loss or a gradient is not finite, naming the parameter.
        """
        with self._hooks() as arrived:
            self.projection.begin()
            loss = loss_of()
            if not torch.isfinite(loss):
                raise ClipError(f"the loss is {loss.item()}")
            loss.backward()
            for name in self.parameters.keys() - arrived:
                self.projection.add(name, torch.zeros_like(self.parameters[name]))
            return self.projection.finish()

    @contextmanager
    def _hooks(self) -> Iterator[set[str]]:
        arrived: set[str] = set()

        def project(name: str) -> Callable[[torch.Tensor], None]:
            def hook(parameter: torch.Tensor) -> None:
                gradient, parameter.grad = parameter.grad, None
                assert gradient is not None
                arrived.add(name)
                self.projection.add(name, gradient)

            return hook

        handles = [
            p.register_post_accumulate_grad_hook(project(name))
            for name, p in self.parameters.items()
        ]
        try:
            yield arrived
        finally:
            for handle in handles:
                handle.remove()
            # A backward that broke half-way may leave gradients behind.
            for parameter in self.parameters.values():
                parameter.grad = None
