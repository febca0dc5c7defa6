"""CogVideoX 2B and 5B, CogVideoX 1.5, text-to-video and image-to-video.

The transformer predicts v = √ᾱ ε − √(1 − ᾱ) h. Trainers turn it into a prediction of h by the scheduler's
`get_velocity` and weight the squared error by 1 / (1 − ᾱ), which is the squared error of v itself: no
further weight is left, whatever the timestep.

Latents are the posterior's mean times the VAE's scaling factor (of the video always, as `decode_latents`
divides by it; `invert_scale_latents` is about an image-to-video model's image alone). CogVideoX 1.5 takes
latent frames in pairs: copies of the first one are put in front, as its trainer does, and count in the
loss. An image-to-video model sees the clip's first frame without the noise that its trainer adds to it.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

from motive.backbones.diffusion import DiffusionBackbone
from motive.backbones.frames import causal_frame_map, recommended_sampler
from motive.clips.sampling import FrameSampler

if TYPE_CHECKING:
    import torch

# Offset embedding of CogVideoX 1.5 image-to-video, a constant of its pipeline.
OFFSET = 2.0


class CogVideoXBackbone(DiffusionBackbone):
    family = "cogvideox"
    title = "CogVideoX"
    pipeline_classes = ("CogVideoXPipeline", "CogVideoXImageToVideoPipeline")
    published = {  # noqa: RUF012  (as the next)
        "THUDM/CogVideoX-2b": 1_693_783_872,
        "THUDM/CogVideoX-5b": 5_570_283_072,
        "THUDM/CogVideoX-5b-I2V": 5_570_479_680,
        "THUDM/CogVideoX1.5-5B": 5_570_676_352,
        "THUDM/CogVideoX1.5-5B-I2V": 5_571_594_880,
    }
    denoiser = "transformer"
    denoiser_class = "CogVideoXTransformer3DModel"
    vae_class = "AutoencoderKLCogVideoX"
    own_schedulers = ("CogVideoXDDIMScheduler", "CogVideoXDPMScheduler")
    components = {  # noqa: RUF012  (declared as a ClassVar in the base class)
        "transformer": "network",
        "vae": "network",
        "text_encoder": "network",
        "tokenizer": "tokenizer",
        "scheduler": "settings",
    }

    # What the model is.

    def _takes_image(self) -> bool:
        return self.source.pipeline_class == "CogVideoXImageToVideoPipeline"

    def _patch_frames(self) -> int:
        """Latent frames to a token; more than one in CogVideoX 1.5."""
        return int(self.setting(self.denoiser, "patch_size_t", 1))

    def _temporal_stride(self) -> int:
        # The VAE's configuration says 4 as a float.
        return int(self.setting("vae", "temporal_compression_ratio", 4.0))

    def spatial_stride(self) -> int:
        return 2 ** (len(self.setting("vae", "block_out_channels", (0, 0, 0, 0))) - 1)

    def size_multiples(self) -> tuple[int, int]:
        multiple = self.spatial_stride() * int(self.setting(self.denoiser, "patch_size", 2))
        return multiple, multiple

    def default_sampler(self) -> FrameSampler:
        if self._patch_frames() > 1:
            size = (81, 768, 1360)
        else:
            size = (49, 480, 720)
        # So that every clip has as many copies in front, and noise stays that of the same frames.
        step = self._temporal_stride() * self._patch_frames()
        return recommended_sampler(self.source, *size, length_step=step)

    def default_prompt_length(self) -> int:
        return int(self.setting(self.denoiser, "max_text_seq_length", 226))

    def _copies(self, latent_frames: int) -> int:
        return -latent_frames % self._patch_frames()

    def frame_map(self, frames: int) -> list[range]:
        causal = causal_frame_map(frames, self._temporal_stride())
        return [range(1)] * self._copies(len(causal)) + causal

    def latent_channels(self) -> int:
        return int(self.setting("vae", "latent_channels", 16))

    def condition_shapes(
        self, latents_cfhw: tuple[int, ...], prompt_length: int
    ) -> dict[str, tuple[int, ...]]:
        channels, _, *plane = latents_cfhw
        width = int(self.setting(self.denoiser, "text_embed_dim", 4096))
        image = {"image": (channels, 1, *plane)} if self._takes_image() else {}
        return {"text": (prompt_length, width), **image}

    # Encoding.

    def encode_pixels(self, video_bcfhw: "torch.Tensor") -> "dict[str, torch.Tensor]":
        import torch

        scale = float(self._vae.config.scaling_factor)
        latents_cfhw = scale * self.latents_of(self._vae.encode(video_bcfhw).latent_dist)
        copies = [latents_cfhw[:, :1]] * self._copies(latents_cfhw.shape[1])
        encoded = {"latents": torch.cat([*copies, latents_cfhw], 1)}
        if self._takes_image():
            image_cfhw = self._vae.encode(video_bcfhw[:, :, :1]).latent_dist.mode()[0]
            inverse = self._vae.config.invert_scale_latents
            encoded["image"] = image_cfhw / scale if inverse else image_cfhw * scale
        return encoded

    def load_text_encoder(self) -> None:
        from diffusers import CogVideoXPipeline
        from transformers import T5EncoderModel

        # The pipeline's own method tokenises and encodes, so ours cannot drift from it.
        self._text = CogVideoXPipeline(
            tokenizer=self.tokenizer(),
            text_encoder=self.text_model(T5EncoderModel),
            vae=None,
            transformer=None,
            scheduler=None,
        )

    def encode_text(self, caption: str, prompt_length: int) -> "dict[str, torch.Tensor]":
        import torch

        assert self._text is not None, "load_text_encoder first"
        with torch.no_grad():
            text_bld, _ = self._text.encode_prompt(
                caption,
                do_classifier_free_guidance=False,
                max_sequence_length=prompt_length,
                device=self.device,
            )
        # With its padding, which the encoder does not mask: those embeddings are not zero.
        return {"text": text_bld[0].float()}

    # The training objective.

    def predict(
        self,
        denoiser: "torch.nn.Module",
        noisy_cfhw: "torch.Tensor",
        timestep: float,
        conditions: "Mapping[str, torch.Tensor]",
        prompt_length: int,
    ) -> "torch.Tensor":
        import torch

        sample_cfhw, offset = noisy_cfhw, None
        if self._takes_image():
            given_cfhw = torch.zeros_like(noisy_cfhw)
            given_cfhw[:, :1] = conditions["image"]
            sample_cfhw = torch.cat([noisy_cfhw, given_cfhw])
            if self.setting(self.denoiser, "ofs_embed_dim", None) is not None:
                offset = torch.full((1,), OFFSET, device=self.device, dtype=self.dtype)
        rotary = None
        if self.setting(self.denoiser, "use_rotary_positional_embeddings", False):
            rotary = self._rotary(*noisy_cfhw.shape[1:])
        output_bfchw = denoiser(
            hidden_states=sample_cfhw.transpose(0, 1)[None].to(self.device, self.dtype),
            encoder_hidden_states=conditions["text"][None].to(self.device, self.dtype),
            timestep=self.index(timestep),
            ofs=offset,
            image_rotary_emb=rotary,
            return_dict=False,
        )[0]
        prediction: torch.Tensor = output_bfchw[0].transpose(0, 1).float()
        return prediction

    def _rotary(self, frames: int, rows: int, columns: int) -> "tuple[torch.Tensor, torch.Tensor]":
        """Rotary embeddings of a latent grid, the same tensors whenever the grid is the same."""
        patch = int(self.setting(self.denoiser, "patch_size", 2))
        return _rotary_embedding(
            int(self.setting(self.denoiser, "attention_head_dim", 64)),
            (-(-frames // self._patch_frames()), rows // patch, columns // patch),
            (
                int(self.setting(self.denoiser, "sample_height", 60)) // patch,
                int(self.setting(self.denoiser, "sample_width", 90)) // patch,
            ),
            self._patch_frames() > 1,
            str(self.device),
        )


@lru_cache(maxsize=8)
def _rotary_embedding(
    head_dim: int,
    grid_fhw: tuple[int, int, int],
    base_hw: tuple[int, int],
    sliced: bool,
    device: str,
) -> "tuple[torch.Tensor, torch.Tensor]":
    """Cosines and sines for tokens on `grid_fhw`.

    base_hw: the grid that the model was trained for. sliced: CogVideoX 1.5 takes a corner of that grid,
        the models before it stretch the clip's grid over its middle.
    """
    import torch
    from diffusers.models.embeddings import get_3d_rotary_pos_embed
    from diffusers.pipelines.cogvideo.pipeline_cogvideox import get_resize_crop_region_for_grid

    frames, rows, columns = grid_fhw
    if sliced:
        where = {"crops_coords": None, "grid_type": "slice", "max_size": base_hw}
    else:
        height, width = base_hw
        where = {"crops_coords": get_resize_crop_region_for_grid((rows, columns), width, height)}
    cosines, sines = get_3d_rotary_pos_embed(
        embed_dim=head_dim,
        grid_size=(rows, columns),
        temporal_size=frames,
        device=torch.device(device),
        **where,
    )
    return cosines, sines
