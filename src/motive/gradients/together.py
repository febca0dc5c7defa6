"""One call of the denoiser for several clips, through adapters that know of one clip only."""

from collections.abc import Callable, Sequence
from typing import Any, Never

import torch

from motive.gradients.per_sample import BatchError

Predict = Callable[[Any], torch.Tensor]


def predict_together(
    denoiser: torch.nn.Module, predictions: Sequence[Predict]
) -> list[torch.Tensor]:
    """What each of `predictions` gives for the denoiser, which is called once for all of them.

    A prediction is given something that it calls like the denoiser, exactly once, with a batch of one.
    It runs twice: up to that call, whose arguments are noted, and again with its share of the output.
    Tensors whose axis 0 is one long are joined along it; everything else must be equal for all.

    Raises BatchError when arguments cannot be joined, or the denoiser gives anything but tuples of
    tensors with the clips on axis 0.
    """
    calls = [_arguments(denoiser, predict) for predict in predictions]
    args = [_joined(values) for values in zip(*(call.args for call in calls), strict=True)]
    names = calls[0].kwargs.keys()
    if any(call.kwargs.keys() != names for call in calls):
        raise BatchError("the clips call the denoiser with different arguments")
    kwargs = {name: _joined([call.kwargs[name] for call in calls]) for name in names}
    output = denoiser(*args, **kwargs)
    size = len(predictions)
    if not isinstance(output, tuple) or any(len(part) != size for part in output):
        raise BatchError("the denoiser's output is not a tuple of one tensor row for each clip")
    shares = zip(*(part.split(1) for part in output), strict=True)
    return [
        predict(_Answering(denoiser, share))
        for predict, share in zip(predictions, shares, strict=True)
    ]


class _Call(BaseException):
    """Carries the arguments out of the prediction, whatever errors that catches."""

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__()
        self.args, self.kwargs = args, kwargs


class _Stand:
    """What a prediction takes for the denoiser: it has its attributes."""

    def __init__(self, denoiser: torch.nn.Module) -> None:
        self._denoiser = denoiser

    def __getattr__(self, name: str) -> Any:
        return getattr(self._denoiser, name)


class _Noting(_Stand):
    def __call__(self, *args: Any, **kwargs: Any) -> Never:
        raise _Call(args, kwargs)


class _Answering(_Stand):
    def __init__(self, denoiser: torch.nn.Module, share: tuple[torch.Tensor, ...]) -> None:
        super().__init__(denoiser)
        self._share = share

    def __call__(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, ...]:
        return self._share


def _arguments(denoiser: torch.nn.Module, predict: Predict) -> _Call:
    try:
        predict(_Noting(denoiser))
    except _Call as call:
        return call
    raise BatchError("the prediction does not call the denoiser")


def _joined(values: Sequence[Any]) -> Any:
    first = values[0]
    if isinstance(first, torch.Tensor):
        if any(v.shape != first.shape or v.dtype != first.dtype for v in values):
            raise BatchError("the clips' tensors differ in shape or type")
        if first.dim() and len(first) == 1:
            return torch.cat(list(values))
        same = all(torch.equal(v, first) for v in values)
    else:
        same = all(v == first for v in values)
    if not same:
        raise BatchError("the clips call the denoiser with different settings")
    return first
