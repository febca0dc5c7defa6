"""Cosmos-Predict2.5 (`Cosmos2_5_PredictBasePipeline`), from a caption.

Flow matching: z = (1 − σ) h + σ ε, the output is ε − h, and the network is told σ in 0..1, once for each
latent frame. Its trainer gives it none, one or two latent frames, none most often, and so does the pipeline
that takes an image or a video as an option: here none is given and every frame counts. The network has no
frame rate. Latents are Cosmos-Predict2's.

The text is every layer of Qwen2.5-VL's hidden states behind a chat template, each with mean 0 and deviation 1
and joined to 100,352 numbers a token, which a trained layer of the transformer reads. Padding is not masked.
A distinct caption takes 205 MB of a run's tables.
"""

from typing import TYPE_CHECKING, Any

from motive.backbones.cosmos import CosmosBackbone
from motive.backbones.loading import empty_network

if TYPE_CHECKING:
    import torch


class Cosmos25Backbone(CosmosBackbone):
    family = "cosmos-2.5"
    title = "Cosmos-Predict2.5"
    given_frames = 0
    pipeline_classes = ("Cosmos2_5_PredictBasePipeline",)
    published = {  # noqa: RUF012  (declared as a ClassVar in the base class)
        "nvidia/Cosmos-Predict2.5-2B": 2_059_174_912,
        "nvidia/Cosmos-Predict2.5-14B": 14_368_047_104,
    }

    def condition_shapes(
        self, latents_cfhw: tuple[int, ...], prompt_length: int
    ) -> dict[str, tuple[int, ...]]:
        width = int(self.setting(self.denoiser, "crossattn_proj_in_channels", 1024))
        return {"text": (prompt_length, width)}

    # Encoding.

    def encode_pixels(self, video_bcfhw: "torch.Tensor") -> "dict[str, torch.Tensor]":
        return {"latents": super().encode_pixels(video_bcfhw)["latents"]}

    def load_text_encoder(self) -> None:
        import torch
        from diffusers import AutoencoderKLWan, Cosmos2_5_PredictBasePipeline
        from transformers import Qwen2_5_VLForConditionalGeneration

        # The pipeline's own method fills the template and encodes, so ours cannot drift from it. It
        # cannot be made without a VAE, of which it reads the configuration, nor without a checker of
        # what it generates, which is nothing here.
        self._text = Cosmos2_5_PredictBasePipeline(
            tokenizer=self.tokenizer(),
            text_encoder=self.text_model(Qwen2_5_VLForConditionalGeneration),
            transformer=None,
            vae=empty_network(AutoencoderKLWan, self.source, "vae", torch.float32, self.title),
            scheduler=None,
            safety_checker=lambda: None,
        )

    def encode_text(self, caption: str, prompt_length: int) -> "dict[str, torch.Tensor]":
        import torch

        assert self._text is not None, "load_text_encoder first"
        with torch.no_grad():
            text_bld, _ = self._text.encode_prompt(
                caption,
                do_classifier_free_guidance=False,
                max_sequence_length=prompt_length,
                device=self.device,
            )
        return {"text": text_bld[0].float()}

    # The training objective.

    def loss_weights(self, latents_cfhw: "torch.Tensor") -> "torch.Tensor | None":
        return None

    def _rate(self) -> dict[str, Any]:
        return {}
