"""One call of the denoiser for several clips."""

from typing import Any

import pytest
import torch

from motive.gradients.per_sample import BatchError
from motive.gradients.together import predict_together


class Denoiser(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.dtype_of_text = "float32"
        self.calls: list[dict[str, Any]] = []

    def forward(self, noisy: torch.Tensor, **others: Any) -> tuple[torch.Tensor, ...]:
        self.calls.append({"noisy": noisy, **others})
        return noisy * others["scale"][0] + others["text"][:, :1], noisy


def predictions(count: int, **changes: Any) -> list[Any]:
    def of(number: int) -> Any:
        def predict(denoiser: Any) -> torch.Tensor:
            assert denoiser.dtype_of_text == "float32"
            arguments = {
                "text": torch.full((1, 2), float(number)),
                "scale": torch.tensor([2.0, 3.0]),
                "return_dict": False,
            }
            own = {k: v(number) for k, v in changes.items()}
            return denoiser(torch.full((1, 2), 10.0 + number), **{**arguments, **own})[0][0] + 100

        return predict

    return [of(number) for number in range(count)]


def test_the_denoiser_is_called_once_for_all() -> None:
    denoiser = Denoiser()
    found = predict_together(denoiser, predictions(3))
    (call,) = denoiser.calls
    assert call["noisy"].tolist() == [[10, 10], [11, 11], [12, 12]]
    assert call["text"].tolist() == [[0, 0], [1, 1], [2, 2]]
    assert (call["scale"].tolist(), call["return_dict"]) == ([2, 3], False)
    expected = [predict(denoiser) for predict in predictions(3)]
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"text": lambda n: torch.zeros(1, 2 + n)}, "differ in shape"),
        ({"text": lambda n: torch.zeros(1, 2, dtype=(torch.float32, torch.half)[n])}, "or type"),
        ({"scale": lambda n: torch.tensor([2.0, n])}, "different settings"),
        ({"return_dict": bool}, "different settings"),
    ],
)
def test_arguments_that_cannot_be_joined_are_refused(changes: Any, said: str) -> None:
    with pytest.raises(BatchError, match=said):
        predict_together(Denoiser(), predictions(2, **changes))


def test_a_prediction_without_the_denoiser_is_refused() -> None:
    with pytest.raises(BatchError, match="does not call"):
        predict_together(Denoiser(), [lambda denoiser: torch.zeros(1)] * 2)


def test_an_output_that_cannot_be_shared_out_is_refused() -> None:
    class Odd(Denoiser):
        def forward(self, noisy: torch.Tensor, **others: Any) -> Any:
            return noisy[:1], noisy

    with pytest.raises(BatchError, match="not a tuple"):
        predict_together(Odd(), predictions(2))
