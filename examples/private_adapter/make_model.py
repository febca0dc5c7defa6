"""Write a small HouseVideo with random weights, to try the adapter on: `python make_model.py FOLDER`."""

import json
import sys
from pathlib import Path

import torch
from diffusers import AutoencoderKLWan
from house_video import HouseVideoNetwork
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel


def make_model(folder: Path) -> None:
    """The layout is that of a diffusers pipeline: model_index.json, and a folder for each component."""
    torch.manual_seed(0)
    vae = AutoencoderKLWan(
        base_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True]
    )
    text_encoder = UMT5EncoderModel(
        UMT5Config(vocab_size=32, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    )
    letters = {"<unk>": 0} | {chr(c): c - 96 for c in range(97, 123)}
    core = Tokenizer(models.WordLevel(letters, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>")
    config = {"channels": 16, "width": 8, "text": 16}
    (folder / "network").mkdir(parents=True)
    (folder / "network/config.json").write_text(json.dumps(config))
    network = HouseVideoNetwork(**config)
    save_file(network.state_dict(), folder / "network/diffusion_pytorch_model.safetensors")
    vae.save_pretrained(folder / "vae")
    text_encoder.save_pretrained(folder / "text_encoder")
    tokenizer.save_pretrained(folder / "tokenizer")
    index = {
        "_class_name": "HouseVideoPipeline",
        "network": ["house_video", "HouseVideoNetwork"],
        "vae": ["diffusers", "AutoencoderKLWan"],
        "text_encoder": ["transformers", "UMT5EncoderModel"],
        "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=1))


if __name__ == "__main__":
    make_model(Path(sys.argv[1]))
