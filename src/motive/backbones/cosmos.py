"""Cosmos-Predict2 Video2World, conditioned on the clip's first frame and a caption.

The paper's σ and preconditioning are flow matching in other words. With τ = σ / (1 + σ) the network sees
(h + σ ε) / (1 + σ) = (1 − τ) h + τ ε, it is told τ in 0..1, and its output, by which h is predicted as
(1 − τ) z − τ · output, is ε − h. The weight (1 + σ)² / σ² of the loss on h makes that the squared error of
the output itself. So τ is the timestep / 1000, and no further weight is left.

Latents are (z − mean) / std by the VAE's configuration. Latent frame 0 is given: clean, marked in the
mask channel, at the τ of σ = 0.0001, and left out of the loss. Clips are taken to have 16 frames per second.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from motive.backbones.diffusers_backbone import DiffusersBackbone
from motive.backbones.flow import TRAIN_STEPS, FlowBackbone
from motive.backbones.frames import causal_frame_map, causal_sampler, patch_size
from motive.backbones.latents import first_frame_given, standardised
from motive.backbones.text import padded, tokenised
from motive.clips.sampling import FrameSampler
from motive.errors import UserError

if TYPE_CHECKING:
    import torch

FRAME_RATE = 16
GIVEN_SIGMA = 0.0001  # of the given frame
PROMPT_LENGTH = 512
RHO = 7  # of Karras' spacing


class CosmosBackbone(DiffusersBackbone, FlowBackbone):
    family = "cosmos"
    title = "Cosmos-Predict2"
    given_frames: ClassVar[int] = 1  # latent frames that are the clip's own
    pipeline_classes: ClassVar[tuple[str, ...]] = ("Cosmos2VideoToWorldPipeline",)
    published = {  # noqa: RUF012  (as the next)
        "nvidia/Cosmos-Predict2-2B-Video2World": 1_956_413_440,
        "nvidia/Cosmos-Predict2-14B-Video2World": 14_265_285_632,
    }
    denoiser = "transformer"
    denoiser_class = "CosmosTransformer3DModel"
    vae_class = "AutoencoderKLWan"
    components = {  # noqa: RUF012  (declared as a ClassVar in the base class)
        "transformer": "network",
        "vae": "network",
        "text_encoder": "network",
        "tokenizer": "tokenizer",
        "scheduler": "settings",
    }

    # What the model is.

    def spatial_stride(self) -> int:
        return int(self.setting("vae", "scale_factor_spatial", 8))

    def _temporal_stride(self) -> int:
        return int(self.setting("vae", "scale_factor_temporal", 4))

    def size_multiples(self) -> tuple[int, int]:
        _, rows, columns = patch_size(self.source, self.denoiser)
        return self.spatial_stride() * rows, self.spatial_stride() * columns

    def default_sampler(self) -> FrameSampler:
        return causal_sampler(self.source, 93, 704, 1280, stride=self._temporal_stride())

    def default_timestep(self) -> int:
        """τ of the middle σ of the sampler's trajectory, which has Karras' spacing from 80 to 0.002."""
        low, high = (
            float(self.setting("scheduler", name, default)) ** (1 / RHO)
            for name, default in (("sigma_min", 0.002), ("sigma_max", 80.0))
        )
        sigma = (high + (low - high) / 2) ** RHO
        return round(TRAIN_STEPS * sigma / (1 + sigma))

    def default_prompt_length(self) -> int:
        return min(PROMPT_LENGTH, int(self.setting("tokenizer", "model_max_length", PROMPT_LENGTH)))

    def frame_map(self, frames: int) -> list[range]:
        return causal_frame_map(frames, self._temporal_stride())

    def latent_channels(self) -> int:
        return int(self.setting("vae", "z_dim", 16))

    def condition_shapes(
        self, latents_cfhw: tuple[int, ...], prompt_length: int
    ) -> dict[str, tuple[int, ...]]:
        channels, _, *plane = latents_cfhw
        width = int(self.setting(self.denoiser, "text_embed_dim", 1024))
        return {"text": (prompt_length, width), "image": (channels, 1, *plane)}

    # Encoding.

    def encode_pixels(self, video_bcfhw: "torch.Tensor") -> "dict[str, torch.Tensor]":
        config = self._vae.config
        latents_cfhw = standardised(
            self.latents_of(self._vae.encode(video_bcfhw).latent_dist),
            config.latents_mean,
            config.latents_std,
        )
        # The VAE is causal: this is the latent that the pipeline gets from the image alone.
        return {"latents": latents_cfhw, "image": latents_cfhw[:, :1].clone()}

    def load_text_encoder(self) -> None:
        from transformers import T5EncoderModel

        self._tokens = self.tokenizer()
        self._text = self.text_model(T5EncoderModel)

    def encode_text(self, caption: str, prompt_length: int) -> "dict[str, torch.Tensor]":
        import torch

        assert self._text is not None, "load_text_encoder first"
        tokens = tokenised(self._tokens, caption, prompt_length).to(self.device)
        with torch.no_grad():
            text_bld = self._text(tokens.input_ids, attention_mask=tokens.attention_mask)[0]
        # The pipeline puts zeros for the padding, and so does `predict`.
        return {"text": text_bld[0, : int(tokens.attention_mask.sum())].float()}

    # The training objective.

    def load_denoiser(self) -> "torch.nn.Module":
        from diffusers.utils import is_torchvision_available

        if self.setting(self.denoiser, "concat_padding_mask", True) and not (
            is_torchvision_available()
        ):
            raise UserError(
                f"{self.source.name} needs torchvision, which is not installed: "
                "pip install torchvision"
            )
        return super().load_denoiser()

    def loss_weights(self, latents_cfhw: "torch.Tensor") -> "torch.Tensor | None":
        return first_frame_given(latents_cfhw)

    def predict(
        self,
        denoiser: "torch.nn.Module",
        noisy_cfhw: "torch.Tensor",
        timestep: float,
        conditions: "Mapping[str, torch.Tensor]",
        prompt_length: int,
    ) -> "torch.Tensor":
        import torch

        frames, rows, columns = noisy_cfhw.shape[1:]
        given, stride = self.given_frames, self.spatial_stride()
        seen_cfhw, told_f = noisy_cfhw, torch.full((frames,), timestep / TRAIN_STEPS)
        if given:
            seen_cfhw = torch.cat([conditions["image"], noisy_cfhw[:, given:]], 1)
            told_f[:given] = GIVEN_SIGMA / (1 + GIVEN_SIGMA)
        given_fhw = torch.zeros(frames, rows, columns)
        given_fhw[:given] = 1
        text_ld = padded(conditions["text"], prompt_length)
        output_bcfhw = denoiser(
            hidden_states=seen_cfhw[None].to(self.device, self.dtype),
            timestep=told_f.view(1, 1, -1, 1, 1).to(self.device, self.dtype),
            encoder_hidden_states=text_ld[None].to(self.device, self.dtype),
            condition_mask=given_fhw[None, None].to(self.device, self.dtype),
            padding_mask=torch.zeros(
                1, 1, rows * stride, columns * stride, device=self.device, dtype=self.dtype
            ),
            **self._rate(),
            return_dict=False,
        )[0]
        prediction: torch.Tensor = output_bcfhw[0].float()
        return prediction

    def _rate(self) -> dict[str, Any]:
        """What the transformer is told of the clip's frame rate."""
        return {"fps": FRAME_RATE}
