"""Text encoders with random weights, as small as can be, and weights that are not constant."""

import torch
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

WIDTH = 16  # of every text encoder here


def t5() -> T5EncoderModel:
    config = T5Config(
        vocab_size=32, d_model=WIDTH, d_kv=8, d_ff=32, num_layers=1, num_heads=2,
        pad_token_id=0, eos_token_id=1,
    )  # fmt: skip
    return T5EncoderModel(config)


def clip(length: int) -> CLIPTextModel:
    config = CLIPTextConfig(
        vocab_size=32, hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=length, bos_token_id=2, eos_token_id=1,
        pad_token_id=0,
    )  # fmt: skip
    return CLIPTextModel(config)


def enliven(*networks: torch.nn.Module) -> None:
    """Give numbers to what is made constant or small, gates and last layers: they would hide mistakes."""
    for network in networks:
        for parameter in network.parameters():
            if parameter.numel() > 1 and parameter.std() == 0:
                parameter.data += 0.1 * torch.randn_like(parameter)
            elif parameter.ndim > 1:
                parameter.data *= 2
