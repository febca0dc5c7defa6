"""SkyReels-V2: text-to-video, image-to-video, and diffusion forcing (`SkyReelsV2*Pipeline`).

Wan 2.1's latents, text and flow matching with another transformer. A diffusion-forcing model is told one
timestep for each latent frame, which its training draws apart from each other; here all frames have the
objective's timestep, as the pipeline's synchronous mode has, so that clips are compared at one noise. It
is also told 24 frames a second, the pipeline's default, where it takes a rate.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from motive.backbones.flow import shifted_middle
from motive.backbones.frames import patch_size
from motive.backbones.wan import WanBackbone
from motive.backbones.wan_image import WanImageBackbone
from motive.clips.sampling import FrameSampler

if TYPE_CHECKING:
    import torch

# What the authors sample with; the published schedulers leave it at 1.
TEXT_SHIFT, IMAGE_SHIFT = 8.0, 5.0
FRAMES_AND_SIZE = (97, 544, 960)  # the defaults of the pipelines' `__call__`
FPS_24 = 1  # index of the frame rate's embedding: 0 for 16 a second, 1 for 24


class SkyReelsV2Backbone(WanBackbone):
    family = "skyreels-v2"
    title = "SkyReels-V2"
    pipeline_classes = ("SkyReelsV2Pipeline", "SkyReelsV2DiffusionForcingPipeline")
    denoiser_class = "SkyReelsV2Transformer3DModel"
    published = {  # noqa: RUF012  (declared as a ClassVar in the base class)
        "Skywork/SkyReels-V2-T2V-14B-540P-Diffusers": 14_288_491_584,
        "Skywork/SkyReels-V2-T2V-14B-720P-Diffusers": 14_288_491_584,
        "Skywork/SkyReels-V2-DF-1.3B-540P-Diffusers": 1_435_525_696,
        "Skywork/SkyReels-V2-DF-14B-540P-Diffusers": 14_288_491_584,
        "Skywork/SkyReels-V2-DF-14B-720P-Diffusers": 14_288_491_584,
    }

    def default_sampler(self) -> FrameSampler:
        return self._sampler(*FRAMES_AND_SIZE)

    def default_timestep(self) -> int:
        return middle_of(self, TEXT_SHIFT)

    def _timesteps(self, noisy_cfhw: "torch.Tensor", timestep: float) -> "torch.Tensor":
        """One timestep for the clip, `(1,)`, or one for each latent frame of the tokens, `(1, F)`."""
        import torch

        if not self._forcing():
            return super()._timesteps(noisy_cfhw, timestep)
        frames = noisy_cfhw.shape[1] // patch_size(self.source, self.denoiser)[0]
        return torch.full((1, frames), float(timestep), device=self.device)

    def _further_inputs(self, conditions: "Mapping[str, torch.Tensor]") -> dict[str, Any]:
        if not self._forcing():
            return {}
        return {"enable_diffusion_forcing": True, "fps": [FPS_24]}

    def _forcing(self) -> bool:
        return "DiffusionForcing" in self.source.pipeline_class


class SkyReelsV2ImageBackbone(WanImageBackbone):
    family = "skyreels-v2-image"
    title = "SkyReels-V2 image-to-video"
    pipeline_classes = ("SkyReelsV2ImageToVideoPipeline",)
    denoiser_class = "SkyReelsV2Transformer3DModel"
    published = {  # noqa: RUF012  (declared as a ClassVar in the base class)
        "Skywork/SkyReels-V2-I2V-1.3B-540P-Diffusers": 1_564_428_608,
        "Skywork/SkyReels-V2-I2V-14B-540P-Diffusers": 16_394_878_784,
        "Skywork/SkyReels-V2-I2V-14B-720P-Diffusers": 16_394_878_784,
    }

    def default_sampler(self) -> FrameSampler:
        return self._sampler(*FRAMES_AND_SIZE)

    def default_timestep(self) -> int:
        return middle_of(self, IMAGE_SHIFT)


def middle_of(backbone: WanBackbone, authors_shift: float) -> int:
    """The middle of the trajectory under the scheduler's shift, or the authors' where it has none."""
    own = float(backbone.setting("scheduler", "flow_shift", 1.0))
    return shifted_middle(own if own != 1 else authors_shift)
