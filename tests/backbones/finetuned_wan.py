"""Fine-tuned weights of the small Wan, as diffusers and peft save them."""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import WanPipeline, WanTransformer3DModel
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import save_file

NAME = "pytorch_lora_weights.safetensors"
TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "ffn.net.0.proj", "ffn.net.2"]
# Independent of diffusers' own table, for the blocks that a LoRA or a checkpoint has.
ORIGINAL = {
    "attn1.to_q": "self_attn.q", "attn1.to_k": "self_attn.k", "attn1.to_v": "self_attn.v",
    "attn1.to_out.0": "self_attn.o", "attn2.to_q": "cross_attn.q", "attn2.to_k": "cross_attn.k",
    "attn2.to_v": "cross_attn.v", "attn2.to_out.0": "cross_attn.o", "ffn.net.0.proj": "ffn.0",
    "ffn.net.2": "ffn.2", "attn1.norm_q": "self_attn.norm_q", "attn1.norm_k": "self_attn.norm_k",
    "attn2.norm_q": "cross_attn.norm_q", "attn2.norm_k": "cross_attn.norm_k", "norm2": "norm3",
    "condition_embedder.time_embedder.linear_1": "time_embedding.0",
    "condition_embedder.time_embedder.linear_2": "time_embedding.2",
    "condition_embedder.text_embedder.linear_1": "text_embedding.0",
    "condition_embedder.text_embedder.linear_2": "text_embedding.2",
    "condition_embedder.time_proj": "time_projection.1", "proj_out": "head.head",
    "patch_embedding": "patch_embedding",
}  # fmt: skip


def with_lora(small_wan: Path, *, zero: bool = False, **settings: Any) -> WanTransformer3DModel:
    torch.manual_seed(3)
    model = WanTransformer3DModel.from_pretrained(small_wan / "transformer")
    settings = {"r": 4, "lora_alpha": 8, "target_modules": TARGETS} | settings
    model.add_adapter(LoraConfig(**settings))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name and not zero:
                parameter.normal_(std=0.3)
    return model.eval()


def as_adapter(model: WanTransformer3DModel, folder: Path) -> Path:
    model.save_lora_adapter(folder)
    return folder


def as_pipeline(model: WanTransformer3DModel, folder: Path) -> Path:
    """As training scripts of diffusers save it."""
    factors = get_peft_model_state_dict(model)
    metadata = model.peft_config["default"].to_dict()
    WanPipeline.save_lora_weights(
        folder,
        factors,
        transformer_lora_adapter_metadata=json.loads(json.dumps(metadata, default=list)),
    )
    return folder


def saved(weights: dict[str, torch.Tensor], file: Path) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.detach().contiguous() for name, tensor in weights.items()}, file)
    return file


def prediction(model: torch.nn.Module) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(1, 16, 3, 4, 4, generator=generator)
    text = torch.randn(1, 24, 16, generator=generator)
    return model(latents, torch.tensor([500]), text, return_dict=False)[0]
