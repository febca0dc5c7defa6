"""Mochi 1 (`MochiPipeline`): flow matching whose time runs the other way.

z = (1 − σ) h + σ ε as everywhere here, and `timestep` is 1000 σ; the transformer is told 1000 (1 − σ) and
predicts h − ε. Latents are (z − mean) / std · scaling factor. Latent frame 0 is pixel frame 0, latent
frame k covers pixel frames 6k − 5 … 6k.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from motive.backbones.diffusers_backbone import DiffusersBackbone
from motive.backbones.flow import LINEAR_QUADRATIC_MIDDLE, TRAIN_STEPS, FlowBackbone
from motive.backbones.frames import causal_frame_map, causal_sampler
from motive.backbones.latents import standardised
from motive.backbones.text import padded
from motive.clips.sampling import FrameSampler

if TYPE_CHECKING:
    import torch


class MochiBackbone(FlowBackbone, DiffusersBackbone):
    family = "mochi"
    title = "Mochi"
    pipeline_classes = ("MochiPipeline",)
    denoiser = "transformer"
    denoiser_class = "MochiTransformer3DModel"
    vae_class = "AutoencoderKLMochi"
    components = {  # noqa: RUF012  (declared as a ClassVar in the base class, as the others)
        "transformer": "network",
        "vae": "network",
        "text_encoder": "network",
        "tokenizer": "tokenizer",
        "scheduler": "settings",
    }
    unreached = {  # noqa: RUF012
        "transformer_blocks.{last}.attn1.add_q_proj.*": "the last block's text is not read",
        "transformer_blocks.{last}.attn1.norm_added_q.*": "the last block's text is not read",
    }
    published = {"genmo/mochi-1-preview": 10_027_677_744}  # noqa: RUF012

    # What the model is.

    def default_sampler(self) -> FrameSampler:
        return causal_sampler(self.source, 163, 480, 848, stride=self._temporal_stride())

    def size_multiples(self) -> tuple[int, int]:
        multiple = self.spatial_stride() * int(self.setting(self.denoiser, "patch_size", 2))
        return multiple, multiple

    def default_timestep(self) -> int:
        """The middle of the pipeline's linear-quadratic schedule, where σ is 0.975."""
        return round(TRAIN_STEPS * LINEAR_QUADRATIC_MIDDLE)

    def default_prompt_length(self) -> int:
        return int(self.setting(self.denoiser, "max_sequence_length", 256))

    def spatial_stride(self) -> int:
        return math.prod(self.setting("vae", "spatial_expansions", (2, 2, 2)))

    def _temporal_stride(self) -> int:
        return math.prod(self.setting("vae", "temporal_expansions", (1, 2, 3)))

    def frame_map(self, frames: int) -> list[range]:
        return causal_frame_map(frames, self._temporal_stride())

    def latent_channels(self) -> int:
        return int(self.setting("vae", "latent_channels", 12))

    def condition_shapes(
        self, latents_cfhw: tuple[int, ...], prompt_length: int
    ) -> dict[str, tuple[int, ...]]:
        return {"text": (prompt_length, int(self.setting(self.denoiser, "text_embed_dim", 4096)))}

    # Encoding.

    def encode_pixels(self, video_bcfhw: "torch.Tensor") -> "dict[str, torch.Tensor]":
        config = self._vae.config
        latents_cfhw = self.latents_of(self._vae.encode(video_bcfhw).latent_dist)
        if config.latents_mean is not None and config.latents_std is not None:
            latents_cfhw = standardised(latents_cfhw, config.latents_mean, config.latents_std)
        return {"latents": latents_cfhw * config.scaling_factor}

    def load_text_encoder(self) -> None:
        from diffusers import MochiPipeline
        from transformers import T5EncoderModel

        # The pipeline's own method tokenises and encodes, so ours cannot drift from it.
        self._text = MochiPipeline(
            text_encoder=self.text_model(T5EncoderModel),
            tokenizer=self.tokenizer(),
            vae=None,
            transformer=None,
            scheduler=None,
            force_zeros_for_empty_prompt=bool(
                self.source.index.get("force_zeros_for_empty_prompt", False)
            ),
        )

    def encode_text(self, caption: str, prompt_length: int) -> "dict[str, torch.Tensor]":
        import torch

        assert self._text is not None, "load_text_encoder first"
        with torch.no_grad():
            text_bld, mask_bl, _, _ = self._text.encode_prompt(
                caption,
                do_classifier_free_guidance=False,
                max_sequence_length=prompt_length,
                device=self.device,
            )
        # What the mask leaves out the transformer does not read.
        return {"text": text_bld[0, : int(mask_bl.sum())].float()}

    # The training objective.

    def target(
        self, latents_cfhw: "torch.Tensor", noise_cfhw: "torch.Tensor", timestep: float
    ) -> "torch.Tensor":
        return latents_cfhw - noise_cfhw

    def predict(
        self,
        denoiser: "torch.nn.Module",
        noisy_cfhw: "torch.Tensor",
        timestep: float,
        conditions: "Mapping[str, torch.Tensor]",
        prompt_length: int,
    ) -> "torch.Tensor":
        import torch

        text_ld = conditions["text"]
        mask_l = torch.arange(prompt_length, device=self.device) < len(text_ld)
        text_ld = padded(text_ld, prompt_length)
        output = denoiser(
            hidden_states=noisy_cfhw[None].to(self.device, self.dtype),
            encoder_hidden_states=text_ld[None].to(self.device, self.dtype),
            timestep=torch.tensor(
                [TRAIN_STEPS - timestep], device=self.device, dtype=torch.float32
            ),
            encoder_attention_mask=mask_l[None],
            return_dict=False,
        )[0]
        return output[0].float()
