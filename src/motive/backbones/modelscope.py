"""ModelScope's text-to-video model and ZeroScope (`TextToVideoSDPipeline`).

A U-Net over (C, F, H, W) that predicts ε, or v where the scheduler says so.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from motive.backbones.stable_diffusion import PromptedBackbone

if TYPE_CHECKING:
    import torch


class ModelScopeBackbone(PromptedBackbone):
    family = "modelscope"
    title = "ModelScope"
    pipeline_classes = ("TextToVideoSDPipeline",)
    published = {  # noqa: RUF012  (as the next)
        "ali-vilab/text-to-video-ms-1.7b": 1_411_233_860,
        "cerspense/zeroscope_v2_576w": 1_411_233_860,
    }
    denoiser_class = "UNet3DConditionModel"
    pipeline = "TextToVideoSDPipeline"
    absent = ("vae", "unet", "scheduler")
    frames, size = 16, 32
    components = {  # noqa: RUF012  (declared as a ClassVar in the base class)
        "unet": "network",
        "vae": "network",
        "text_encoder": "network",
        "tokenizer": "tokenizer",
        "scheduler": "settings",
    }

    def predict(
        self,
        denoiser: "torch.nn.Module",
        noisy_cfhw: "torch.Tensor",
        timestep: float,
        conditions: "Mapping[str, torch.Tensor]",
        prompt_length: int,
    ) -> "torch.Tensor":
        output_bcfhw = denoiser(
            sample=noisy_cfhw[None].to(self.device, self.dtype),
            timestep=self.index(timestep),
            encoder_hidden_states=conditions["text"][None].to(self.device, self.dtype),
            return_dict=False,
        )[0]
        prediction: torch.Tensor = output_bcfhw[0].float()
        return prediction
