"""AnimateDiff (`AnimateDiffPipeline`): a Stable Diffusion U-Net with motion modules between its layers.

The pipeline's folder, as `save_pretrained` writes it, holds both as one `UNetMotionModel`. AnimateDiff's
own training leaves the image model alone and trains the motion modules (`trained`); `--parameters "*"`
differentiates the image model too. A motion module has positions for so many frames and no more.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from motive.backbones.stable_diffusion import PromptedBackbone

if TYPE_CHECKING:
    import torch


class AnimateDiffBackbone(PromptedBackbone):
    family = "animatediff"
    title = "AnimateDiff"
    pipeline_classes = ("AnimateDiffPipeline",)
    published = {  # noqa: RUF012  (as the next)
        # With the U-Net of Stable Diffusion 1.5.
        "guoyww/animatediff-motion-adapter-v1-5-2": 1_312_730_244,
    }
    trained = "*.motion_modules.*"
    denoiser_class = "UNetMotionModel"
    pipeline = "AnimateDiffPipeline"
    absent = ("vae", "unet", "motion_adapter", "scheduler")
    frames, size = 16, 64
    components = {  # noqa: RUF012  (declared as a ClassVar in the base class)
        "unet": "network",
        "vae": "network",
        "text_encoder": "network",
        "tokenizer": "tokenizer",
        "scheduler": "settings",
    }

    def longest_clip(self) -> int:
        return int(self.setting(self.denoiser, "motion_max_seq_length", 32))

    def predict(
        self,
        denoiser: "torch.nn.Module",
        noisy_cfhw: "torch.Tensor",
        timestep: float,
        conditions: "Mapping[str, torch.Tensor]",
        prompt_length: int,
    ) -> "torch.Tensor":
        frames = noisy_cfhw.shape[1]
        text_fld = conditions["text"].expand(frames, -1, -1)  # the caller repeats it for each frame
        output_bcfhw = denoiser(
            sample=noisy_cfhw[None].to(self.device, self.dtype),
            timestep=self.index(timestep),
            encoder_hidden_states=text_fld.to(self.device, self.dtype),
            return_dict=False,
        )[0]
        prediction: torch.Tensor = output_bcfhw[0].float()
        return prediction
