"""HunyuanVideo 1.5 text-to-video (`HunyuanVideo15Pipeline`).

Flow matching; the transformer sees the timestep itself, and 65 channels: the noisy latents, the latents of
an image and a mask, both zero without one. Latents are the posterior's mean times the scaling factor, on a
grid of 16 × 16 pixels. Latent frame 0 is pixel frame 0, latent frame k covers pixel frames 4k − 3 … 4k. The
text is Qwen2.5-VL's hidden states behind a chat template; what stands in quotation marks also goes
through ByT5.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from motive.backbones.hunyuan_video import HunyuanVideoBackbone
from motive.backbones.loading import empty_network
from motive.backbones.source import ModelSource
from motive.backbones.text import padded, without_padding
from motive.clips.sampling import FrameSampler
from motive.errors import UserError

if TYPE_CHECKING:
    import torch

# Constants of the pipeline.
PROMPT_LENGTH = 1000
GLYPH_LENGTH = 256
IMAGE_TOKENS = 729


class HunyuanVideo15Backbone(HunyuanVideoBackbone):
    family = "hunyuan-video-1.5"
    title = "HunyuanVideo 1.5"
    pipeline_classes = ("HunyuanVideo15Pipeline",)
    denoiser_class = "HunyuanVideo15Transformer3DModel"
    vae_class = "AutoencoderKLHunyuanVideo15"
    unreached = {  # noqa: RUF012  (declared as a ClassVar in the base class, as the next)
        "image_embedder.*": "there is no image",
        "transformer_blocks.{last}.attn.add_q_proj.*": "the last block's text is not read",
        "transformer_blocks.{last}.attn.norm_added_q.*": "the last block's text is not read",
        "transformer_blocks.{last}.attn.to_add_out.*": "the last block's text is not read",
        "transformer_blocks.{last}.ff_context.*": "the last block's text is not read",
    }
    published = {  # noqa: RUF012
        "hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-480p_t2v": 8_326_608_160,
        "hunyuanvideo-community/HunyuanVideo-1.5-Diffusers-720p_t2v": 8_326_608_160,
    }

    def __init__(
        self,
        source: ModelSource,
        dtype: "str | torch.dtype" = "auto",
        device: "str | torch.device" = "auto",
        *,
        text_dtype: str = "auto",
        threads: int | None = None,
    ) -> None:
        super().__init__(source, dtype, device, text_dtype=text_dtype, threads=threads)
        if source.config(self.denoiser).get("use_meanflow"):
            raise UserError(
                f"{source.name} is distilled to few steps, which has no training objective here: "
                "use the model that it was distilled from"
            )

    def default_sampler(self) -> FrameSampler:
        large = int(self.setting(self.denoiser, "target_size", 640)) > 640
        return self._sampler(121, 720, 1280) if large else self._sampler(121, 480, 848)

    def size_multiples(self) -> tuple[int, int]:
        multiple = self.spatial_stride() * int(self.setting(self.denoiser, "patch_size", 1))
        return multiple, multiple

    def default_prompt_length(self) -> int:
        return PROMPT_LENGTH

    def spatial_stride(self) -> int:
        return int(self.setting("vae", "spatial_compression_ratio", 16))

    def latent_channels(self) -> int:
        return int(self.setting("vae", "latent_channels", 32))

    def condition_shapes(
        self, latents_cfhw: tuple[int, ...], prompt_length: int
    ) -> dict[str, tuple[int, ...]]:
        return {
            "text": (prompt_length, int(self.setting(self.denoiser, "text_embed_dim", 3584))),
            "mask": (prompt_length,),
            "glyphs": (GLYPH_LENGTH, int(self.setting(self.denoiser, "text_embed_2_dim", 1472))),
            "glyph_mask": (GLYPH_LENGTH,),
        }

    def load_text_encoder(self) -> None:
        import torch
        from diffusers import AutoencoderKLHunyuanVideo15, HunyuanVideo15Pipeline
        from transformers import Qwen2_5_VLTextModel, T5EncoderModel

        # The pipeline's own method fills the template and encodes, so ours cannot drift from it. It
        # cannot be made without a VAE, whose configuration is all that it looks at here.
        vae_class = AutoencoderKLHunyuanVideo15
        self._text = HunyuanVideo15Pipeline(
            text_encoder=self.text_model(Qwen2_5_VLTextModel),
            tokenizer=self.tokenizer(),
            text_encoder_2=self.text_model(T5EncoderModel, "text_encoder_2"),
            tokenizer_2=self.tokenizer("tokenizer_2"),
            vae=empty_network(vae_class, self.source, "vae", torch.float32, self.title),
            transformer=None,
            scheduler=None,
            guider=None,
        )

    def encode_text(self, caption: str, prompt_length: int) -> "dict[str, torch.Tensor]":
        """`text` and `glyphs` `(L, D)` with `mask` and `glyph_mask` `(L,)`, up to the last that counts."""
        import torch

        assert self._text is not None, "load_text_encoder first"
        self._text.tokenizer_max_length = prompt_length
        with torch.no_grad():
            text_bld, mask_bl, glyphs_bld, glyph_mask_bl = self._text.encode_prompt(
                caption, device=self.device
            )
        text_ld, mask_l = without_padding(text_bld[0], mask_bl[0])
        glyphs_ld, glyph_mask_l = without_padding(glyphs_bld[0], glyph_mask_bl[0])
        return {"text": text_ld, "mask": mask_l, "glyphs": glyphs_ld, "glyph_mask": glyph_mask_l}

    def predict(
        self,
        denoiser: "torch.nn.Module",
        noisy_cfhw: "torch.Tensor",
        timestep: float,
        conditions: "Mapping[str, torch.Tensor]",
        prompt_length: int,
    ) -> "torch.Tensor":
        import torch

        text_ld, mask_l = (padded(conditions[name], prompt_length) for name in ("text", "mask"))
        glyphs_ld, glyph_mask_l = (
            padded(conditions[name], GLYPH_LENGTH) for name in ("glyphs", "glyph_mask")
        )
        no_image_cfhw = torch.zeros_like(noisy_cfhw)
        seen_cfhw = torch.cat([noisy_cfhw, no_image_cfhw, no_image_cfhw[:1]])
        image_dim = int(self.setting(self.denoiser, "image_embed_dim", 1152))
        image_bld = torch.zeros((1, IMAGE_TOKENS, image_dim), device=self.device, dtype=self.dtype)
        output = denoiser(
            hidden_states=seen_cfhw[None].to(self.device, self.dtype),
            # In the model's own precision, which its time embedding asks for, as in the pipeline.
            timestep=torch.tensor([timestep], device=self.device, dtype=self.dtype),
            encoder_hidden_states=text_ld[None].to(self.device, self.dtype),
            encoder_attention_mask=mask_l[None].to(self.device, self.dtype),
            encoder_hidden_states_2=glyphs_ld[None].to(self.device, self.dtype),
            encoder_attention_mask_2=glyph_mask_l[None].to(self.device, self.dtype),
            image_embeds=image_bld,
            return_dict=False,
        )[0]
        return output[0].float()
