"""Wan image-to-video (`WanImageToVideoPipeline`), conditioned on the clip's own first frame.

Wan 2.1 and Wan 2.2 A14B see, beside the noisy latents, four mask channels and the latents of a clip that
is grey after its first frame; Wan 2.1 also sees CLIP's view of that frame. All latent frames are noised
and count in the loss. Wan 2.2 TI2V-5B (`expand_timesteps`) is given latent frame 0 itself, clean and at
timestep 0, and its loss leaves that frame out. DiffSynth-Studio trains both so.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from motive.backbones.loading import load_component
from motive.backbones.source import ModelSource
from motive.backbones.wan import WanBackbone
from motive.errors import UserError

if TYPE_CHECKING:
    import torch
    from diffusers import WanImageToVideoPipeline

PROMPT_LENGTH = 512  # where the transformer's attention parts image tokens from text tokens


class WanImageBackbone(WanBackbone):
    family = "wan-image"
    title = "Wan image-to-video"
    pipeline_classes = ("WanImageToVideoPipeline",)
    components = {  # noqa: RUF012  (declared as a ClassVar in the base class, as the others)
        **WanBackbone.components,
        "image_encoder": "network",
        "image_processor": "settings",
    }
    optional = WanBackbone.optional | {"image_encoder", "image_processor"}
    published = {  # noqa: RUF012
        "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers": 16_394_878_784,
        "Wan-AI/Wan2.1-I2V-14B-720P-Diffusers": 16_394_878_784,
        "Wan-AI/Wan2.2-I2V-A14B-Diffusers": 14_288_901_184,  # each of its two experts
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
        config = source.config(self.denoiser)
        if config.get("pos_embed_seq_len") is not None:
            raise UserError(
                f"{source.name} is conditioned on first and last frames, which has no adapter yet: "
                "use a model that is conditioned on the first frame"
            )
        self._sees_image = config.get("image_dim") is not None
        self._image: WanImageToVideoPipeline | None = None

    def require_components(self, *, weights: bool = True) -> None:
        super().require_components(weights=weights)
        if self._sees_image:
            for component in ("image_encoder", "image_processor"):
                self.source.require(component, self.components[component], weights=weights)

    def default_prompt_length(self) -> int:
        return PROMPT_LENGTH if self._sees_image else super().default_prompt_length()

    def load_vae(self) -> None:
        """The VAE, and the image encoder where the model has one: both look at pixels."""
        import torch
        from diffusers import WanImageToVideoPipeline
        from transformers import CLIPImageProcessor, CLIPVisionModel

        super().load_vae()
        encoder = processor = None
        if self._sees_image:
            encoder = load_component(CLIPVisionModel, self.source, "image_encoder", torch.float32)
            encoder = encoder.to(self.device).eval().requires_grad_(False)
            processor = load_component(CLIPImageProcessor, self.source, "image_processor", None)
        # Its own methods make the conditions, so ours cannot drift from them.
        self._image = WanImageToVideoPipeline(
            tokenizer=None,
            text_encoder=None,
            vae=self._vae,
            scheduler=None,
            image_encoder=encoder,
            image_processor=processor,
            expand_timesteps=self._expand_timesteps,
        )

    def encode_pixels(self, video_bcfhw: "torch.Tensor") -> "dict[str, torch.Tensor]":
        """Beside the latents `first_frame` `(C, 1, H, W)`, or else `image_latents`, the mask channels and
        the latents of the first frame, `(4 + C, F, H, W)`, and `image` `(L, D)` if the model sees it.
        """
        from PIL import Image

        encoded = super().encode_pixels(video_bcfhw)
        latents_cfhw = encoded["latents"]
        if self._expand_timesteps:
            # The VAE is causal: frame 0 of a clip's latents is the latent of its first frame alone.
            return {**encoded, "first_frame": latents_cfhw[:, :1]}
        assert self._image is not None
        first_bchw = video_bcfhw[:, :, 0]
        _, condition_bcfhw = self._image.prepare_latents(
            first_bchw,
            batch_size=1,
            num_channels_latents=len(latents_cfhw),
            height=first_bchw.shape[2],
            width=first_bchw.shape[3],
            num_frames=video_bcfhw.shape[2],
            dtype=latents_cfhw.dtype,
            device=self.device,
            latents=latents_cfhw[None],
        )
        encoded["image_latents"] = condition_bcfhw[0]
        if self._sees_image:
            first_hw3 = ((first_bchw[0].permute(1, 2, 0) + 1) * 127.5).round().byte().cpu().numpy()
            embedded_bld = self._image.encode_image(Image.fromarray(first_hw3), self.device)
            encoded["image"] = embedded_bld[0].float()
        return encoded

    def condition_shapes(
        self, latents_cfhw: tuple[int, ...], prompt_length: int
    ) -> dict[str, tuple[int, ...]]:
        shapes = super().condition_shapes(latents_cfhw, prompt_length)
        channels, frames, *plane = latents_cfhw
        if self._expand_timesteps:
            return {**shapes, "first_frame": (channels, 1, *plane)}
        masks = self._temporal_stride()  # of each pixel frame of a latent one
        shapes["image_latents"] = (masks + channels, frames, *plane)
        if self._sees_image:
            shapes["image"] = (
                self._image_tokens(),
                int(self.setting(self.denoiser, "image_dim", 0)),
            )
        return shapes

    def _image_tokens(self) -> int:
        """Patches that CLIP sees, and its class token."""
        side = int(self.setting("image_encoder", "image_size", 224))
        return (side // int(self.setting("image_encoder", "patch_size", 14))) ** 2 + 1

    def unload(self) -> None:
        self._image = None
        super().unload()

    def loss_weights(self, latents_cfhw: "torch.Tensor") -> "torch.Tensor | None":
        return self._noise_share(latents_cfhw) if self._expand_timesteps else None

    def _noise_share(self, noisy_cfhw: "torch.Tensor") -> "torch.Tensor":
        share_fhw = super()._noise_share(noisy_cfhw)
        if self._expand_timesteps:
            share_fhw[0] = 0
        return share_fhw

    def _seen(
        self, noisy_cfhw: "torch.Tensor", conditions: "Mapping[str, torch.Tensor]"
    ) -> "torch.Tensor":
        import torch

        if self._expand_timesteps:
            return torch.cat([conditions["first_frame"], noisy_cfhw[:, 1:]], dim=1)
        return torch.cat([noisy_cfhw, conditions["image_latents"]], dim=0)

    def _further_inputs(self, conditions: "Mapping[str, torch.Tensor]") -> dict[str, Any]:
        if not self._sees_image:
            return {}
        image_bld = conditions["image"][None].to(self.device, self.dtype)
        return {"encoder_hidden_states_image": image_bld}
