"""Per-clip gradients that never exist as a whole.

Autograd hands over one parameter's gradient at a time; a hook projects it and lets it go. The peak is
the model, its activations and the one gradient in hand; of a batch, that parameter's gradient for every
clip (`gradients.per_sample`).
"""

import fnmatch
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch.utils.hooks import RemovableHandle

from motive.errors import ClipError, UserError
from motive.gradients.per_sample import per_sample_gradients
from motive.gradients.projection import Projection, make_projection
from motive.gradients.projection_batch import ProjectionBatch


def choose_parameters(module: torch.nn.Module, pattern: str) -> dict[str, torch.nn.Parameter]:
    """The parameters whose name fits `pattern` (`fnmatch`; alternatives with commas), frozen others.

    A tensor that several names share appears once, under its first name. Sets `requires_grad` of every
    parameter of the module. Wrappers' words (of `torch.compile`, of peft) are no part of a name:
    `blocks.*.attn1.*` is every self-attention, `blocks.[05].*,blocks.1[05].*` every fifth of twenty
    blocks, and `*.lora_?.*` the factors of a LoRA.

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
    scale: what each parameter's gradient is multiplied by, number by number, before it is projected, by
        name; None leaves gradients as they are.

    The hooks that it puts on the parameters do nothing outside `feature`, and go with it or with `close`.
    """

    def __init__(
        self,
        parameters: dict[str, torch.nn.Parameter],
        kind: str,
        dim: int,
        seed: int,
        scale: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        self.parameters, self._scale = parameters, scale
        shapes = {name: tuple(p.shape) for name, p in parameters.items()}

        def make() -> Projection:
            return make_projection(kind, dim, seed, shapes)

        self.projection = make()
        self._of_batch = ProjectionBatch(make)
        self._arrived: set[str] | None = None  # None: outside `feature`
        # Put on once: for a small model, to hang 200 hooks up and take them down for every clip costs
        # about as much as to project.
        handles = [
            parameter.register_post_accumulate_grad_hook(_projecting(weakref.ref(self), name))
            for name, parameter in parameters.items()
        ]
        self._remove_hooks = weakref.finalize(self, _remove, handles)

    def close(self) -> None:
        """Take the hooks off."""
        self._remove_hooks()

    def take(self, name: str, parameter: torch.Tensor) -> None:
        """Project a parameter's gradient and let it go; outside `feature`, leave it alone."""
        gradient = parameter.grad
        if self._arrived is not None and gradient is not None:
            parameter.grad = None
            self._arrived.add(name)
            self.projection.add(name, self._scaled(name, gradient))

    def feature(self, loss_of: Callable[[], torch.Tensor]) -> np.ndarray:
        """The projected gradient of `loss_of()`, float32, not normalised.

        A parameter that the loss does not reach has gradient zero.

        Raises ClipError when the loss or a gradient is not finite, naming the parameter.
        """
        with self._streaming() as arrived:
            self.projection.begin()
            loss = loss_of()
            if not torch.isfinite(loss):
                raise ClipError(f"the loss is {loss.item()}")
            loss.backward()
            for name in self.parameters.keys() - arrived:
                self.projection.add(name, torch.zeros_like(self.parameters[name]))
            return self.projection.finish()

    def features(
        self, losses_of: Callable[[], torch.Tensor], size: int
    ) -> list[np.ndarray | ClipError]:
        """`feature` for each of `size` clips, from one forward and one backward pass.

        losses_of: gives the losses (size,), each of one clip alone, from tensors whose axis 0 is the
            clips'.

        Returns a ClipError in the place of a clip whose loss or gradient is not finite.

        Raises BatchError when the model does not keep its clips apart (`gradients.per_sample`).
        """
        projections, arrived = self._of_batch, set[str]()

        def project(name: str, gradients: torch.Tensor) -> None:
            arrived.add(name)
            projections.add(name, self._scaled(name, gradients))

        projections.begin(size)
        with per_sample_gradients(self.parameters, size, project) as backward:
            losses = losses_of()
            for clip, loss in enumerate(losses.tolist()):
                if not np.isfinite(loss):
                    projections.fail(clip, ClipError(f"the loss is {loss}"))
            backward(losses)
        for name in self.parameters.keys() - arrived:
            zeros = torch.zeros_like(self.parameters[name])
            project(name, zeros.expand(size, *zeros.shape))
        return projections.finish()

    def _scaled(self, name: str, gradient: torch.Tensor) -> torch.Tensor:
        """A gradient, or several along axis 0, as it is projected."""
        return gradient if self._scale is None else gradient * self._scale[name]

    @contextmanager
    def _streaming(self) -> Iterator[set[str]]:
        self._arrived = arrived = set[str]()
        for parameter in self.parameters.values():
            parameter.grad = None  # what somebody left there is no part of the clip's gradient
        try:
            yield arrived
        finally:
            self._arrived = None
            # A backward that broke half-way may leave gradients behind.
            for parameter in self.parameters.values():
                parameter.grad = None


def _projecting(
    taker: "weakref.ref[StreamingGradient]", name: str
) -> Callable[[torch.Tensor], None]:
    # A weak reference, or the hooks would keep alive what takes them off.
    def hook(parameter: torch.Tensor) -> None:
        if (gradient := taker()) is not None:
            gradient.take(name, parameter)

    return hook


def _remove(handles: list[RemovableHandle]) -> None:
    for handle in handles:
        handle.remove()
