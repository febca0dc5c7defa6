"""HunyuanVideo text-to-video (`HunyuanVideoPipeline`).

Flow matching; the transformer sees the timestep itself and, since the published model is distilled from
guidance, a guidance scale, which trainers hold at 1 (the pipeline hands it over times 1000). Latents are
the posterior's mean times the scaling factor. Latent frame 0 is pixel frame 0, latent frame k covers pixel
frames 4k − 3 … 4k. The text is LLaMA's hidden states behind a prompt template, and CLIP's pooled vector.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from motive.backbones.diffusers_backbone import DiffusersBackbone
from motive.backbones.flow import FlowBackbone
from motive.backbones.frames import causal_frame_map, causal_sampler
from motive.backbones.source import ModelSource
from motive.backbones.text import padded, without_padding
from motive.clips.sampling import FrameSampler
from motive.errors import UserError

if TYPE_CHECKING:
    import torch

GUIDANCE = 1.0
GUIDANCE_SCALE = 1000.0


class HunyuanVideoBackbone(FlowBackbone, DiffusersBackbone):
    family = "hunyuan-video"
    title = "HunyuanVideo"
    pipeline_classes = ("HunyuanVideoPipeline",)
    denoiser = "transformer"
    denoiser_class = "HunyuanVideoTransformer3DModel"
    vae_class = "AutoencoderKLHunyuanVideo"
    components = {  # noqa: RUF012  (declared as a ClassVar in the base class, as the others)
        "transformer": "network",
        "vae": "network",
        "text_encoder": "network",
        "tokenizer": "tokenizer",
        "text_encoder_2": "network",
        "tokenizer_2": "tokenizer",
        "scheduler": "settings",
    }
    published = {"hunyuanvideo-community/HunyuanVideo": 12_821_012_544}  # noqa: RUF012

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
        kind = source.config(self.denoiser).get("image_condition_type")
        if kind is not None:
            raise UserError(
                f"{source.name} is conditioned on an image ({kind}), which has no adapter yet: "
                "use a text-to-video HunyuanVideo"
            )

    # What the model is.

    def default_sampler(self) -> FrameSampler:
        return self._sampler(129, 720, 1280)

    def _sampler(self, frames: int, height: int, width: int) -> FrameSampler:
        stride = self._temporal_stride()
        patch_frames = int(self.setting(self.denoiser, "patch_size_t", 1))
        return causal_sampler(
            self.source, frames, height, width, stride=stride, patch_frames=patch_frames
        )

    def size_multiples(self) -> tuple[int, int]:
        multiple = self.spatial_stride() * int(self.setting(self.denoiser, "patch_size", 2))
        return multiple, multiple

    def default_prompt_length(self) -> int:
        return 256

    def spatial_stride(self) -> int:
        return int(self.setting("vae", "spatial_compression_ratio", 8))

    def _temporal_stride(self) -> int:
        return int(self.setting("vae", "temporal_compression_ratio", 4))

    def frame_map(self, frames: int) -> list[range]:
        return causal_frame_map(frames, self._temporal_stride())

    def latent_channels(self) -> int:
        return int(self.setting("vae", "latent_channels", 16))

    def condition_shapes(
        self, latents_cfhw: tuple[int, ...], prompt_length: int
    ) -> dict[str, tuple[int, ...]]:
        return {
            "text": (prompt_length, int(self.setting(self.denoiser, "text_embed_dim", 4096))),
            "mask": (prompt_length,),
            "pooled": (int(self.setting(self.denoiser, "pooled_projection_dim", 768)),),
        }

    # Encoding.

    def encode_pixels(self, video_bcfhw: "torch.Tensor") -> "dict[str, torch.Tensor]":
        latents_cfhw = self.latents_of(self._vae.encode(video_bcfhw).latent_dist)
        return {"latents": latents_cfhw * self._vae.config.scaling_factor}

    def load_text_encoder(self) -> None:
        from diffusers import HunyuanVideoPipeline
        from transformers import CLIPTextModel, LlamaModel

        # The pipeline's own method fills the template and encodes, so ours cannot drift from it.
        self._text = HunyuanVideoPipeline(
            text_encoder=self.text_model(LlamaModel),
            tokenizer=self.tokenizer(),
            text_encoder_2=self.text_model(CLIPTextModel, "text_encoder_2"),
            tokenizer_2=self.tokenizer("tokenizer_2"),
            vae=None,
            transformer=None,
            scheduler=None,
        )

    def encode_text(self, caption: str, prompt_length: int) -> "dict[str, torch.Tensor]":
        """`text` `(L, D)` and its `mask` `(L,)` up to the last token that counts, and `pooled` `(P,)`."""
        import torch

        assert self._text is not None, "load_text_encoder first"
        with torch.no_grad():
            text_bld, pooled_bp, mask_bl = self._text.encode_prompt(
                caption, device=self.device, max_sequence_length=prompt_length
            )
        text_ld, mask_l = without_padding(text_bld[0], mask_bl[0])
        return {"text": text_ld, "mask": mask_l, "pooled": pooled_bp[0].float()}

    # The training objective.

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
        guidance = None
        if self.setting(self.denoiser, "guidance_embeds", True):
            guidance = torch.full((1,), GUIDANCE * GUIDANCE_SCALE, device=self.device)
            guidance = guidance.to(self.dtype)
        output = denoiser(
            hidden_states=noisy_cfhw[None].to(self.device, self.dtype),
            timestep=torch.tensor([timestep], device=self.device, dtype=torch.float32),
            encoder_hidden_states=text_ld[None].to(self.device, self.dtype),
            encoder_attention_mask=mask_l[None].to(self.device, self.dtype),
            pooled_projections=conditions["pooled"][None].to(self.device, self.dtype),
            guidance=guidance,
            return_dict=False,
        )[0]
        return output[0].float()
