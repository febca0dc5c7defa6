"""Which parameters of a network the gradients are of."""

import torch

from motive.backbones.finetuned import is_factor
from motive.errors import UserError
from motive.gradients.streaming import choose_parameters


def trained_parameters(
    network: torch.nn.Module, pattern: str, train: str
) -> dict[str, torch.nn.Parameter]:
    """The parameters whose name fits `pattern` (`choose_parameters`), the others frozen.

    train: `base` for all of them, `lora` for the factors of a LoRA among them.

    Raises UserError when none is left.
    """
    chosen = choose_parameters(network, pattern)
    if train == "base":
        return chosen
    for name, parameter in chosen.items():
        parameter.requires_grad_(is_factor(name))
    factors = {name: p for name, p in chosen.items() if is_factor(name)}
    if not factors:
        example = next((n for n, _ in network.named_parameters() if is_factor(n)), "none")
        raise UserError(
            f"no factor of the LoRA is called like '{pattern}': names look like '{example}'"
        )
    return factors
