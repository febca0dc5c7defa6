"""What adapters of diffusers' own classes share: loading and freeing components, pixels, configurations."""

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from motive.backbones.base import Backbone
from motive.backbones.loading import empty_network, free_memory, load_component
from motive.backbones.source import AGAIN, ModelSource
from motive.errors import ClipError, UserError

if TYPE_CHECKING:
    import torch


class DiffusersBackbone(Backbone):
    """A backbone whose denoiser and VAE are classes of diffusers, named by the family."""

    title: ClassVar[str]  # what users call the model
    denoiser_class: ClassVar[str]
    vae_class: ClassVar[str]

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
        self._vae: Any = None
        self._text: Any = None
        self._posterior_noise: Callable[[tuple[int, ...]], torch.Tensor] | None = None
        self._drew = False

    def setting(self, component: str, name: str, default: Any) -> Any:
        """An entry of a component's configuration, of the default's type where it has one.

        Raises UserError when it cannot be of that type.
        """
        value = self.source.config(component).get(name)
        if value is None or default is None:
            return default if value is None else value
        try:
            return type(default)(value)
        except (TypeError, ValueError):
            raise UserError(
                f"the {component} of {self.source.name} has a {name} of {value}, "
                f"not {type(default).__name__}: {AGAIN}"
            ) from None

    def empty_denoiser(self) -> "torch.nn.Module":
        cls = _diffusers(self.denoiser_class)
        return empty_network(cls, self.source, self.denoiser, self.dtype, self.title)

    def load_denoiser(self) -> "torch.nn.Module":
        cls = _diffusers(self.denoiser_class)
        model: torch.nn.Module = load_component(cls, self.source, self.denoiser, self.dtype)
        return model.to(self.device).eval()

    def load_vae(self) -> None:
        import torch

        # The VAE is small and its errors go straight into the latents: float32 everywhere.
        vae = load_component(_diffusers(self.vae_class), self.source, "vae", torch.float32)
        self._vae = vae.to(self.device).eval().requires_grad_(False)

    def encode_video(self, frames_fhw3: np.ndarray) -> "dict[str, torch.Tensor]":
        import torch

        assert self._vae is not None, "load_vae first"
        rows, columns = self.size_multiples()
        if frames_fhw3.shape[1] % rows or frames_fhw3.shape[2] % columns:
            raise ClipError(f"height and width must be multiples of {rows} and {columns} pixels")
        self._drew = False
        with torch.no_grad():
            video = torch.from_numpy(np.ascontiguousarray(frames_fhw3)).to(self.device)
            encoded = self.encode_pixels(video.permute(3, 0, 1, 2)[None].float() / 127.5 - 1)
        if self._posterior_noise is not None and not self._drew:
            # An adapter that takes the mean by itself, whose latents would be called draws.
            super().sample_posterior(self._posterior_noise)
        return encoded

    @abstractmethod
    def encode_pixels(self, video_bcfhw: "torch.Tensor") -> "dict[str, torch.Tensor]":
        """`encode_video` of one clip in −1..1, with the VAE loaded and without gradients.

        Its latents are made of what `latents_of` takes from the VAE's posterior.
        """

    def sample_posterior(self, noise: "Callable[[tuple[int, ...]], torch.Tensor]") -> None:
        self._posterior_noise = noise

    def latents_of(self, posterior: Any) -> "torch.Tensor":
        """`(C, F, H, W)` from the posterior that the VAE gives for one clip: its mean, or a draw."""
        return self.drawn(posterior.mean[0], posterior.std[0])

    def drawn(self, mean_cfhw: "torch.Tensor", std_cfhw: "torch.Tensor") -> "torch.Tensor":
        """The mean, or after `sample_posterior` a draw around it."""
        if self._posterior_noise is None:
            return mean_cfhw
        self._drew = True
        return mean_cfhw + std_cfhw * self._posterior_noise(tuple(mean_cfhw.shape)).to(mean_cfhw)

    def example_inputs(
        self, frames: int, height: int, width: int, prompt_length: int
    ) -> "tuple[torch.Tensor, dict[str, torch.Tensor]]":
        import torch

        stride = self.spatial_stride()
        shape = (len(self.frame_map(frames)), height // stride, width // stride)
        latents_cfhw = torch.zeros(self.latent_channels(), *shape, device=self.device)
        shapes = self.condition_shapes(tuple(latents_cfhw.shape), prompt_length)
        return latents_cfhw, {n: torch.zeros(s, device=self.device) for n, s in shapes.items()}

    def latent_channels(self) -> int:
        return int(self.setting("vae", "latent_channels", 4))

    def condition_shapes(
        self, latents_cfhw: tuple[int, ...], prompt_length: int
    ) -> dict[str, tuple[int, ...]]:
        """Shapes of what `encode_text` gives for a caption of full length, and `encode_video` beside latents.

        latents_cfhw: shape of the latents.

        Raises UserError when the family cannot say.
        """
        raise self.unknown_cost()

    def text_model(self, cls: Any, component: str = "text_encoder") -> Any:
        """A text encoder on the device, frozen."""
        encoder = load_component(cls, self.source, component, self.text_dtype())
        return encoder.to(self.device).eval().requires_grad_(False)

    def tokenizer(self, component: str = "tokenizer") -> Any:
        from transformers import AutoTokenizer

        return load_component(AutoTokenizer, self.source, component, None)

    def unload(self) -> None:
        self._vae = self._text = None
        free_memory(self.device)


def _diffusers(name: str) -> Any:
    import diffusers

    return getattr(diffusers, name)
