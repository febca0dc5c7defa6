"""An adapter for a private video model, in one file outside the package.

HouseVideo is an invented model: Wan's VAE, a text encoder of which it takes the mean, and a network that
no library knows. The network is trained to predict the clean latents, not the velocity. Everything that
`motive` has to know of it stands here.

    motive --adapter house_video.py:HouseVideoBackbone curate --model my-house-video ...
"""

from collections.abc import Mapping
from typing import Any

import torch
from safetensors.torch import load_file

from motive.backbones.diffusers_backbone import DiffusersBackbone
from motive.backbones.flow import FlowBackbone
from motive.backbones.frames import causal_frame_map
from motive.backbones.latents import standardised
from motive.clips.sampling import FrameSampler


class HouseVideoNetwork(torch.nn.Module):
    """Clean latents from noisy ones, the share of noise, and one vector of text."""

    def __init__(self, channels: int, width: int, text: int) -> None:
        super().__init__()
        self.begin = torch.nn.Conv3d(channels, width, 3, padding=1)
        self.of_noise = torch.nn.Linear(1, width)
        self.of_text = torch.nn.Linear(text, width)
        self.end = torch.nn.Conv3d(width, channels, 3, padding=1)

    def forward(
        self, noisy_bcfhw: torch.Tensor, sigma_b: torch.Tensor, text_bd: torch.Tensor
    ) -> tuple[torch.Tensor]:
        told_bw = self.of_noise(sigma_b[:, None]) + self.of_text(text_bd)
        hidden = self.begin(noisy_bcfhw) + told_bw[:, :, None, None, None]
        # A tuple, with the clips on axis 0: so several clips may share one call.
        return (self.end(torch.nn.functional.silu(hidden)),)


class HouseVideoBackbone(FlowBackbone, DiffusersBackbone):
    family = "house-video"
    title = "HouseVideo"
    pipeline_classes = ("HouseVideoPipeline",)  # `_class_name` in model_index.json
    denoiser = "network"  # the folder of what is fine-tuned
    denoiser_class = ""  # diffusers does not know it: it is loaded below
    vae_class = "AutoencoderKLWan"
    components = {  # noqa: RUF012
        "network": "network",
        "vae": "network",
        "text_encoder": "network",
        "tokenizer": "tokenizer",
    }
    tested = "by examples/private_adapter"

    # What the model is: answered from its configurations, without weights.

    def empty_denoiser(self) -> torch.nn.Module:
        with torch.device("meta"):
            return self._network().to(self.dtype)

    def _network(self) -> torch.nn.Module:
        config = self.source.config("network")
        return HouseVideoNetwork(**{name: config[name] for name in ("channels", "width", "text")})

    def default_sampler(self) -> FrameSampler:
        return FrameSampler(max_frames=9, height=32, width=32, length_step=4)

    def size_multiples(self) -> tuple[int, int]:
        return 8, 8

    def spatial_stride(self) -> int:
        return 8

    def frame_map(self, frames: int) -> list[range]:
        return causal_frame_map(frames, 4)

    def default_timestep(self) -> int:
        return 500

    def default_prompt_length(self) -> int:
        return 16

    # Encoding. The base class brings the clip to −1..1 and keeps gradients off.

    def encode_pixels(self, video_bcfhw: torch.Tensor) -> dict[str, torch.Tensor]:
        config = self._vae.config
        latents_cfhw = self.latents_of(self._vae.encode(video_bcfhw).latent_dist)
        return {"latents": standardised(latents_cfhw, config.latents_mean, config.latents_std)}

    def latent_channels(self) -> int:
        return int(self.setting("vae", "z_dim", 16))

    def condition_shapes(
        self, latents_cfhw: tuple[int, ...], prompt_length: int
    ) -> dict[str, tuple[int, ...]]:
        return {"text": (int(self.setting("network", "text", 16)),)}

    def load_text_encoder(self) -> None:
        from transformers import UMT5EncoderModel

        self._text = (self.tokenizer(), self.text_model(UMT5EncoderModel))

    def encode_text(self, caption: str, prompt_length: int) -> dict[str, torch.Tensor]:
        tokenizer, encoder = self._text
        tokens = tokenizer(caption, truncation=True, max_length=prompt_length, return_tensors="pt")
        with torch.no_grad():
            embedded_bld = encoder(**tokens.to(self.device)).last_hidden_state
        return {"text": embedded_bld[0].mean(0).float()}

    # The training objective. z = (1 − σ) h + σ ε is FlowBackbone's; the target is the model's own.

    def load_denoiser(self) -> torch.nn.Module:
        (file,) = self.source.weights("network")
        network = self._network()
        network.load_state_dict(load_file(file))  # every name, or an error
        return network.to(self.device, self.dtype).eval()

    def target(
        self, latents_cfhw: torch.Tensor, noise_cfhw: torch.Tensor, timestep: float
    ) -> torch.Tensor:
        return latents_cfhw

    def predict(
        self,
        denoiser: torch.nn.Module,
        noisy_cfhw: torch.Tensor,
        timestep: float,
        conditions: Mapping[str, torch.Tensor],
        prompt_length: int,
    ) -> torch.Tensor:
        kind: dict[str, Any] = {"device": self.device, "dtype": self.dtype}
        prediction_bcfhw = denoiser(
            noisy_cfhw[None].to(**kind),
            torch.tensor([timestep / 1000], **kind),
            conditions["text"][None].to(**kind),
        )[0]
        return prediction_bcfhw[0].float()
