"""Stable Video Diffusion (`StableVideoDiffusionPipeline`), image-to-video without text.

EDM with v-prediction (Karras et al. 2022): z = h + σ ε, of which the U-Net sees z / √(σ² + 1) and
c_noise = ln(σ) / 4. Its output v gives the clean latents as z / (σ² + 1) − σ / √(σ² + 1) · v, whose squared
error is weighted with (σ² + 1) / σ²: the squared error of v itself, so no further weight is left.

σ of the timestep t of 1..1000 is the (1000 − t)-th of the scheduler's own trajectory in 1000 steps (700 at
1000, 0.002 at 1, Karras' spacing).

The clip's first frame is the condition: CLIP's view of it, and its latents beside every noisy frame, not
scaled. The pipeline's noise on that image is left out, and the model is told so: added_time_ids are
(fps − 1, motion bucket, noise on the image) = (6, 127, 0), whatever the clip's own rate and motion.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from motive.backbones.diffusion import TIMESTEPS
from motive.backbones.frames import recommended_sampler
from motive.backbones.loading import load_component
from motive.backbones.source import AGAIN
from motive.backbones.stable_diffusion import StableDiffusionBackbone
from motive.clips.sampling import FrameSampler
from motive.errors import UserError

if TYPE_CHECKING:
    import torch

TIME_IDS = (6.0, 127.0, 0.0)


class StableVideoDiffusionBackbone(StableDiffusionBackbone):
    family = "svd"
    title = "Stable Video Diffusion"
    pipeline_classes = ("StableVideoDiffusionPipeline",)
    published = {  # noqa: RUF012  (as the next)
        "stabilityai/stable-video-diffusion-img2vid": 1_524_623_082,
        "stabilityai/stable-video-diffusion-img2vid-xt": 1_524_623_082,
    }
    denoiser_class = "UNetSpatioTemporalConditionModel"
    vae_class = "AutoencoderKLTemporalDecoder"
    components = {  # noqa: RUF012  (declared as a ClassVar in the base class)
        "unet": "network",
        "vae": "network",
        "image_encoder": "network",
        "feature_extractor": "settings",
        "scheduler": "settings",
    }

    def default_sampler(self) -> FrameSampler:
        frames = self.setting(self.denoiser, "num_frames", 14)
        return recommended_sampler(self.source, frames, 576, 1024)

    def default_prompt_length(self) -> int:
        """There is no prompt."""
        return 0

    def condition_shapes(
        self, latents_cfhw: tuple[int, ...], prompt_length: int
    ) -> dict[str, tuple[int, ...]]:
        channels, _, *plane = latents_cfhw
        width = int(self.setting(self.denoiser, "cross_attention_dim", 1024))
        return {"image": (channels, 1, *plane), "seen": (1, width)}

    # Encoding.

    def load_vae(self) -> None:
        import torch
        from diffusers import StableVideoDiffusionPipeline
        from transformers import CLIPImageProcessor, CLIPVisionModelWithProjection

        super().load_vae()
        encoder = load_component(
            CLIPVisionModelWithProjection, self.source, "image_encoder", torch.float32
        )
        # The pipeline's own method resizes, normalises and encodes, so ours cannot drift from it.
        self._pipeline: Any = StableVideoDiffusionPipeline(
            image_encoder=encoder.to(self.device).eval().requires_grad_(False),
            feature_extractor=load_component(
                CLIPImageProcessor, self.source, "feature_extractor", None
            ),
            vae=None,
            unet=None,
            scheduler=None,
        )

    def encode_pixels(self, video_bcfhw: "torch.Tensor") -> "dict[str, torch.Tensor]":
        from PIL import Image

        means_cfhw, std_cfhw = self.encode_images(video_bcfhw)
        first_hw3 = ((video_bcfhw[0, :, 0] + 1) * 127.5).round().byte().permute(1, 2, 0)
        # A list of images, as users give them: tensors are taken for resized ones.
        image = [Image.fromarray(first_hw3.cpu().numpy())]
        seen = self._pipeline._encode_image(image, self.device, 1, False)
        return {
            "latents": float(self._vae.config.scaling_factor) * self.drawn(means_cfhw, std_cfhw),
            "image": means_cfhw[:, :1].clone(),
            "seen": seen[0].float(),
        }

    def load_text_encoder(self) -> None:
        """There is none."""

    def encode_text(self, caption: str, prompt_length: int) -> "dict[str, torch.Tensor]":
        return {}

    def unload(self) -> None:
        self._pipeline = None
        super().unload()

    # The training objective.

    @cached_property
    def schedule(self) -> Any:
        """The scheduler, with the trajectory of 1000 steps.

        Raises UserError when its configuration makes none, or another than v-prediction.
        """
        from diffusers import EulerDiscreteScheduler

        try:
            schedule = EulerDiscreteScheduler.from_config(self.source.config("scheduler"))
            schedule.set_timesteps(TIMESTEPS)
        except (TypeError, ValueError, NotImplementedError) as error:
            raise UserError(
                f"the scheduler of {self.source.name} has no noise to train with ({error}): {AGAIN}"
            ) from None
        if schedule.config.prediction_type != "v_prediction":
            raise UserError(
                f"the scheduler of {self.source.name} predicts {schedule.config.prediction_type}, "
                "not v_prediction: use another checkpoint"
            )
        return schedule

    def sigma(self, timestep: float) -> float:
        """The standard deviation of the noise at `timestep` of 1..1000."""
        return float(self.schedule.sigmas[TIMESTEPS - round(timestep)])

    def default_timestep(self) -> int:
        """The middle of the trajectory: entry 500 of 1000."""
        return TIMESTEPS // 2

    def add_noise(
        self, latents_cfhw: "torch.Tensor", noise_cfhw: "torch.Tensor", timestep: float
    ) -> "torch.Tensor":
        return latents_cfhw + self.sigma(timestep) * noise_cfhw

    def target(
        self, latents_cfhw: "torch.Tensor", noise_cfhw: "torch.Tensor", timestep: float
    ) -> "torch.Tensor":
        sigma = self.sigma(timestep)
        return (noise_cfhw - sigma * latents_cfhw) / (sigma**2 + 1) ** 0.5

    def predict(
        self,
        denoiser: "torch.nn.Module",
        noisy_cfhw: "torch.Tensor",
        timestep: float,
        conditions: "Mapping[str, torch.Tensor]",
        prompt_length: int,
    ) -> "torch.Tensor":
        import torch

        scaled_cfhw = noisy_cfhw / (self.sigma(timestep) ** 2 + 1) ** 0.5
        beside_cfhw = torch.cat([scaled_cfhw, conditions["image"].expand_as(noisy_cfhw)])
        told = self.schedule.timesteps[TIMESTEPS - round(timestep)]
        output_bfchw = denoiser(
            sample=beside_cfhw.transpose(0, 1)[None].to(self.device, self.dtype),
            timestep=told.reshape(1).to(self.device),
            encoder_hidden_states=conditions["seen"][None].to(self.device, self.dtype),
            added_time_ids=torch.tensor([TIME_IDS], device=self.device, dtype=self.dtype),
            return_dict=False,
        )[0]
        prediction: torch.Tensor = output_bfchw[0].transpose(0, 1).float()
        return prediction
