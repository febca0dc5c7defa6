"""What video models on top of Stable Diffusion share: a VAE for single images, and CLIP's text encoder.

Each frame is encoded by itself, so a latent frame is a pixel frame. Latents are the posterior's mean times
the VAE's scaling factor.
"""

from typing import TYPE_CHECKING, Any, ClassVar

from motive.backbones.diffusion import DiffusionBackbone
from motive.backbones.frames import recommended_sampler
from motive.clips.sampling import FrameSampler

if TYPE_CHECKING:
    import torch

CHUNK = 8  # frames that the VAE encodes at a time


class StableDiffusionBackbone(DiffusionBackbone):
    """A video model with the VAE of Stable Diffusion. frames, size: of a clip, unless the model says."""

    vae_class = "AutoencoderKL"
    denoiser = "unet"
    frames: ClassVar[int]
    size: ClassVar[int]  # latent rows and columns

    def spatial_stride(self) -> int:
        return 2 ** (len(self.setting("vae", "block_out_channels", (0, 0, 0, 0))) - 1)

    def size_multiples(self) -> tuple[int, int]:
        return self.spatial_stride(), self.spatial_stride()

    def frame_map(self, frames: int) -> list[range]:
        return [range(f, f + 1) for f in range(frames)]

    def default_sampler(self) -> FrameSampler:
        size = self.setting(self.denoiser, "sample_size", None) or self.size
        rows, columns = (size, size) if isinstance(size, int) else size
        stride = self.spatial_stride()
        return recommended_sampler(self.source, self.frames, rows * stride, columns * stride)

    def encode_pixels(self, video_bcfhw: "torch.Tensor") -> "dict[str, torch.Tensor]":
        mean_cfhw, std_cfhw = self.encode_images(video_bcfhw)
        return {"latents": float(self._vae.config.scaling_factor) * self.drawn(mean_cfhw, std_cfhw)}

    def encode_images(self, video_bcfhw: "torch.Tensor") -> "tuple[torch.Tensor, torch.Tensor]":
        """Mean and standard deviation of every frame's posterior, each `(C, F, H, W)`, not scaled."""
        import torch

        images_fchw = video_bcfhw[0].transpose(0, 1)
        posteriors = [self._vae.encode(part).latent_dist for part in images_fchw.split(CHUNK)]
        mean_fchw = torch.cat([posterior.mean for posterior in posteriors])
        std_fchw = torch.cat([posterior.std for posterior in posteriors])
        return mean_fchw.transpose(0, 1), std_fchw.transpose(0, 1)


class PromptedBackbone(StableDiffusionBackbone):
    """One that takes a prompt, by the `encode_prompt` of its pipeline.

    pipeline, absent: the class in diffusers, and the components that it is made without.
    """

    pipeline: ClassVar[str]
    absent: ClassVar[tuple[str, ...]]

    def default_prompt_length(self) -> int:
        return int(self.setting("tokenizer", "model_max_length", 77))

    def condition_shapes(
        self, latents_cfhw: tuple[int, ...], prompt_length: int
    ) -> dict[str, tuple[int, ...]]:
        width = int(self.setting(self.denoiser, "cross_attention_dim", 1024))
        return {"text": (prompt_length, width)}

    def load_text_encoder(self) -> None:
        import diffusers
        from transformers import CLIPTextModel

        nothing: dict[str, Any] = dict.fromkeys(self.absent)
        # The pipeline's own method tokenises and encodes, so ours cannot drift from it.
        self._text = getattr(diffusers, self.pipeline)(
            tokenizer=self.tokenizer(), text_encoder=self.text_model(CLIPTextModel), **nothing
        )

    def encode_text(self, caption: str, prompt_length: int) -> "dict[str, torch.Tensor]":
        import torch

        assert self._text is not None, "load_text_encoder first"
        with torch.no_grad():
            text_bld, _ = self._text.encode_prompt(caption, self.device, 1, False)
        # With its padding, which is not masked: the end token repeated, or another.
        return {"text": text_bld[0].float()}
