"""What attribution needs of a video model: the seam between diffusers' families and everything else.

A family is one file with one subclass of `Backbone`. It loads one component at a time, so that the VAE
and the text encoder are gone from memory before gradients begin. Shapes: latents are `(C, F, H, W)`
without a batch axis, float32; noise and loss live in float32 whatever the model's dtype.
"""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from motive.backbones.source import ModelSource
from motive.clips.sampling import FrameSampler

if TYPE_CHECKING:
    import torch


class Backbone(ABC):
    """One diffusers video model.

    source: where its files are.
    dtype: of the denoiser's weights and activations; the VAE and the text encoder decide for themselves.
    device: where components are put.
    """

    family: ClassVar[str]
    pipeline_classes: ClassVar[tuple[str, ...]]  # `_class_name` in model_index.json

    def __init__(self, source: ModelSource, dtype: "torch.dtype", device: "torch.device") -> None:
        self.source, self.dtype, self.device = source, dtype, device

    # What the model is, without loading weights.

    @abstractmethod
    def default_sampler(self) -> FrameSampler:
        """The frames, size and lengths that the model was made for."""

    @abstractmethod
    def default_timestep(self) -> int:
        """The mid-point of the model's own sampling trajectory, 1..1000 (paper, section 4: t_fix)."""

    @abstractmethod
    def default_prompt_length(self) -> int:
        """Tokens that captions are padded to, as the pipeline's `__call__` pads them."""

    @abstractmethod
    def spatial_stride(self) -> int:
        """Pixels to a latent cell, in height and width."""

    @abstractmethod
    def frame_map(self, frames: int) -> list[range]:
        """The pixel frames that each latent frame covers, for a clip of `frames` frames."""

    def text_dtype(self) -> "torch.dtype":
        """Of the text encoder: bfloat16 on CUDA, where it would not fit otherwise, else float32."""
        import torch

        return torch.bfloat16 if self.device.type == "cuda" else torch.float32

    # Encoding. `load_*` may be called again after `unload`.

    @abstractmethod
    def load_vae(self) -> None:
        """Make `encode_video` ready."""

    @abstractmethod
    def encode_video(self, frames_fhw3: np.ndarray) -> "torch.Tensor":
        """RGB uint8 frames to normalised latents `(C, F, H, W)`: the posterior's mean."""

    @abstractmethod
    def load_text_encoder(self) -> None:
        """Make `encode_text` ready."""

    @abstractmethod
    def encode_text(self, caption: str, prompt_length: int) -> "torch.Tensor":
        """The caption as the pipeline's `__call__` encodes it, `(tokens, D)`, without its padding."""

    @abstractmethod
    def unload(self) -> None:
        """Forget every loaded component."""

    # The training objective.

    @abstractmethod
    def load_denoiser(self) -> "torch.nn.Module":
        """The network that is fine-tuned, in eval mode, on the device."""

    @abstractmethod
    def add_noise(
        self, latents_cfhw: "torch.Tensor", noise_cfhw: "torch.Tensor", timestep: int
    ) -> "torch.Tensor":
        """z(t, ε) = α_t h + σ_t ε (paper, section 3.1)."""

    @abstractmethod
    def target(
        self, latents_cfhw: "torch.Tensor", noise_cfhw: "torch.Tensor", timestep: int
    ) -> "torch.Tensor":
        """What the denoiser is trained to predict."""

    @abstractmethod
    def predict(
        self,
        denoiser: "torch.nn.Module",
        noisy_cfhw: "torch.Tensor",
        timestep: int,
        text_ld: "torch.Tensor",
        prompt_length: int,
    ) -> "torch.Tensor":
        """The denoiser's prediction, float32, of the shape of `noisy_cfhw`."""
