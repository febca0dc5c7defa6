"""Wan text-to-video (`WanPipeline`): Wan 2.1, and Wan 2.2 with expanded timesteps or two experts.

Flow matching; the transformer sees the timestep itself. Latents are (z − mean) / std by the VAE's own
configuration. Latent frame 0 is pixel frame 0, latent frame k covers pixel frames 4k − 3 … 4k.

Wan 2.2 TI2V-5B (`expand_timesteps`) is told the timestep once for each token. Wan 2.2 A14B has two
networks (`boundary_ratio`): `transformer` from the boundary timestep on, `transformer_2` below. The
timestep decides which one is differentiated, and features of one never meet those of the other.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from motive.backbones.diffusers_backbone import DiffusersBackbone
from motive.backbones.flow import TRAIN_STEPS, FlowBackbone
from motive.backbones.frames import causal_frame_map, causal_sampler, patch_size
from motive.backbones.latents import standardised
from motive.backbones.source import ModelSource
from motive.backbones.text import padded
from motive.clips.sampling import FrameSampler
from motive.errors import UserError

# torch and diffusers are imported where they are used: it takes them seconds, and a run that has
# everything already asks only for what the configurations say.
if TYPE_CHECKING:
    import torch


class WanBackbone(FlowBackbone, DiffusersBackbone):
    family = "wan"
    title = "Wan"
    pipeline_classes: ClassVar[tuple[str, ...]] = ("WanPipeline",)
    denoiser = "transformer"
    denoiser_class = "WanTransformer3DModel"
    vae_class = "AutoencoderKLWan"
    components = {  # noqa: RUF012  (declared as a ClassVar in the base class, as the others)
        "transformer": "network",
        "transformer_2": "network",
        "vae": "network",
        "text_encoder": "network",
        "tokenizer": "tokenizer",
        "scheduler": "settings",
    }
    optional = frozenset({"transformer", "transformer_2"})
    published = {  # noqa: RUF012
        "Wan-AI/Wan2.1-T2V-1.3B-Diffusers": 1_418_996_800,
        "Wan-AI/Wan2.1-T2V-14B-Diffusers": 14_288_491_584,
        "Wan-AI/Wan2.2-TI2V-5B-Diffusers": 4_999_787_712,
        "Wan-AI/Wan2.2-T2V-A14B-Diffusers": 14_288_491_584,  # each of its two experts
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
        self._expand_timesteps = bool(source.index.get("expand_timesteps"))
        self.denoiser = self._expert_at(self.default_timestep())

    # Two experts.

    def require_components(self, *, weights: bool = True) -> None:
        super().require_components(weights=weights)
        self.source.require(self.denoiser, "network", weights=weights)

    def settle(self, timesteps: tuple[float, ...]) -> str:
        experts = {self._expert_at(timestep) for timestep in timesteps}
        if len(experts) > 1:
            raise UserError(
                f"{self.source.name} has one network for timesteps from {self._boundary():g} on and "
                "another below, whose gradients cannot be compared: use timesteps on one side"
            )
        (expert,) = experts
        if self._boundary() is not None and not self.source.names(expert):
            raise UserError(
                f"{self.source.name} lacks {expert}, its network for timestep {timesteps[0]}: "
                f"use a timestep on the other side of {self._boundary():g}"
            )
        self.denoiser = expert
        return expert

    def _boundary(self) -> float | None:
        ratio = self.source.index.get("boundary_ratio")
        return None if ratio is None else float(str(ratio)) * TRAIN_STEPS

    def _expert_at(self, timestep: float) -> str:
        boundary = self._boundary()
        return "transformer" if boundary is None or timestep >= boundary else "transformer_2"

    # What the model is.

    def default_sampler(self) -> FrameSampler:
        return self._sampler(81, 480, 832)

    def _sampler(self, frames: int, height: int, width: int) -> FrameSampler:
        patch_frames = patch_size(self.source, self.denoiser)[0]
        stride = self._temporal_stride()
        return causal_sampler(
            self.source, frames, height, width, stride=stride, patch_frames=patch_frames
        )

    def size_multiples(self) -> tuple[int, int]:
        _, height, width = patch_size(self.source, self.denoiser)
        return self.spatial_stride() * height, self.spatial_stride() * width

    def default_prompt_length(self) -> int:
        longest = float(self.setting("tokenizer", "model_max_length", 512.0))
        return int(min(512.0, longest))

    def spatial_stride(self) -> int:
        return int(self.setting("vae", "scale_factor_spatial", 8))

    def _temporal_stride(self) -> int:
        return int(self.setting("vae", "scale_factor_temporal", 4))

    def frame_map(self, frames: int) -> list[range]:
        return causal_frame_map(frames, self._temporal_stride())

    def latent_channels(self) -> int:
        return int(self.setting("vae", "z_dim", 16))

    def condition_shapes(
        self, latents_cfhw: tuple[int, ...], prompt_length: int
    ) -> dict[str, tuple[int, ...]]:
        return {"text": (prompt_length, int(self.setting(self.denoiser, "text_dim", 4096)))}

    # Encoding.

    def encode_pixels(self, video_bcfhw: "torch.Tensor") -> "dict[str, torch.Tensor]":
        config = self._vae.config
        latents_cfhw = self.latents_of(self._vae.encode(video_bcfhw).latent_dist)
        return {"latents": standardised(latents_cfhw, config.latents_mean, config.latents_std)}

    def load_text_encoder(self) -> None:
        from diffusers import WanPipeline
        from transformers import UMT5EncoderModel

        # The pipeline's own method cleans, tokenises and encodes, so ours cannot drift from it.
        self._text = WanPipeline(
            text_encoder=self.text_model(UMT5EncoderModel),
            tokenizer=self.tokenizer(),
            vae=None,
            scheduler=None,
        )

    def encode_text(self, caption: str, prompt_length: int) -> "dict[str, torch.Tensor]":
        import torch

        assert self._text is not None, "load_text_encoder first"
        with torch.no_grad():
            padded, _ = self._text.encode_prompt(
                caption,
                do_classifier_free_guidance=False,
                max_sequence_length=prompt_length,
                device=self.device,
            )
        used = padded[0].abs().sum(-1).nonzero()
        return {"text": padded[0, : int(used.max()) + 1].float()}

    # The training objective.

    def predict(
        self,
        denoiser: "torch.nn.Module",
        noisy_cfhw: "torch.Tensor",
        timestep: float,
        conditions: "Mapping[str, torch.Tensor]",
        prompt_length: int,
    ) -> "torch.Tensor":

        text_ld = conditions["text"]
        text_ld = padded(text_ld, prompt_length)
        output = denoiser(
            hidden_states=self._seen(noisy_cfhw, conditions)[None].to(self.device, self.dtype),
            timestep=self._timesteps(noisy_cfhw, timestep),
            encoder_hidden_states=text_ld[None].to(self.device, self.dtype),
            **self._further_inputs(conditions),
            return_dict=False,
        )[0]
        return output[0].float()

    def _timesteps(self, noisy_cfhw: "torch.Tensor", timestep: float) -> "torch.Tensor":
        """One timestep for the clip, `(1,)`, or one for each token, `(1, F·h·w)`."""
        import torch

        if not self._expand_timesteps:
            return torch.tensor([timestep], device=self.device, dtype=torch.float32)
        frames, rows, columns = patch_size(self.source, self.denoiser)
        share_fhw = self._noise_share(noisy_cfhw)[::frames, ::rows, ::columns]
        return (share_fhw * timestep).reshape(1, -1)

    # What image-to-video models do otherwise.

    def _noise_share(self, noisy_cfhw: "torch.Tensor") -> "torch.Tensor":
        """1 where a latent cell has noise, 0 where it is given, `(F, H, W)`."""
        import torch

        return torch.ones(noisy_cfhw.shape[1:], device=self.device)

    def _seen(
        self, noisy_cfhw: "torch.Tensor", conditions: "Mapping[str, torch.Tensor]"
    ) -> "torch.Tensor":
        """All channels that the transformer takes."""
        return noisy_cfhw

    def _further_inputs(self, conditions: "Mapping[str, torch.Tensor]") -> dict[str, Any]:
        """What the transformer takes beside latents, timestep and text."""
        return {}
