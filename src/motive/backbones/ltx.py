"""LTX-Video, text-to-video and image-to-video.

Flow matching on packed tokens: latents (C, F, H, W) become one sequence, frame by frame, row by row, and
the prediction is unpacked again. Latents are (z − mean) · scaling_factor / std by the VAE's own buffers.
The position of a token is in seconds, for which the clip is taken to have the pipeline's 25 frames per
second whatever its file says.

`LTXImageToVideoPipeline` is given latent frame 0 itself, clean and at timestep 0, and its training loss
leaves that frame out. `LTXConditionPipeline` (0.9.5 and later) takes images as an option, and is taken
without: it differs from `LTXPipeline` in longer prompts, whose padding the text encoder does not see, in a
schedule of its own, and in positions that begin with the single pixel frame of latent frame 0.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from motive.backbones.diffusers_backbone import DiffusersBackbone
from motive.backbones.flow import LINEAR_QUADRATIC_MIDDLE, TRAIN_STEPS, FlowBackbone, shifted
from motive.backbones.frames import causal_frame_map, causal_sampler
from motive.backbones.latents import first_frame_given
from motive.backbones.text import padded
from motive.clips.sampling import FrameSampler

if TYPE_CHECKING:
    import torch

FRAME_RATE = 25.0
PROMPT_LENGTH = 128
CONDITION_PROMPT_LENGTH = 256


class LTXBackbone(DiffusersBackbone, FlowBackbone):
    family = "ltx"
    title = "LTX-Video"
    pipeline_classes: ClassVar[tuple[str, ...]] = (
        "LTXPipeline",
        "LTXImageToVideoPipeline",
        "LTXConditionPipeline",
    )
    published = {  # noqa: RUF012  (as the next)
        "Lightricks/LTX-Video": 1_923_385_472,
        "Lightricks/LTX-Video-0.9.5": 1_923_385_472,
        "Lightricks/LTX-Video-0.9.7-dev": 13_042_569_344,
    }
    denoiser = "transformer"
    denoiser_class = "LTXVideoTransformer3DModel"
    vae_class = "AutoencoderKLLTXVideo"
    components = {  # noqa: RUF012  (declared as a ClassVar in the base class)
        "transformer": "network",
        "vae": "network",
        "text_encoder": "network",
        "tokenizer": "tokenizer",
        "scheduler": "settings",
    }

    # What the model is.

    def _takes_image(self) -> bool:
        return "ImageToVideo" in self.source.pipeline_class

    def _takes_conditions(self) -> bool:
        return self.source.pipeline_class == "LTXConditionPipeline"

    def _patch(self) -> tuple[int, int]:
        """Rows (and columns), and latent frames to a token."""
        return (
            int(self.setting(self.denoiser, "patch_size", 1)),
            int(self.setting(self.denoiser, "patch_size_t", 1)),
        )

    def _halvings(self) -> int:
        return 2 ** sum(self.setting("vae", "spatio_temporal_scaling", (True, True, True, False)))

    def spatial_stride(self) -> int:
        whole = int(self.setting("vae", "patch_size", 4)) * self._halvings()
        return int(self.setting("vae", "spatial_compression_ratio", whole))

    def _temporal_stride(self) -> int:
        whole = int(self.setting("vae", "patch_size_t", 1)) * self._halvings()
        return int(self.setting("vae", "temporal_compression_ratio", whole))

    def size_multiples(self) -> tuple[int, int]:
        multiple = self.spatial_stride() * self._patch()[0]
        return multiple, multiple

    def default_sampler(self) -> FrameSampler:
        return causal_sampler(
            self.source,
            161,
            512,
            704,
            stride=self._temporal_stride(),
            patch_frames=self._patch()[1],
        )

    def default_timestep(self) -> int:
        """The middle entry of the 1000-step trajectory, as the scheduler shifts it for the default clip.

        The shift grows with the number of tokens, and the trajectory is stretched to `shift_terminal`.
        `LTXConditionPipeline` has a linear-quadratic trajectory instead.
        """
        settings = self.source.config("scheduler")
        if self._takes_conditions():
            shift = self.setting("scheduler", "shift", 1.0)
            return round(TRAIN_STEPS * shifted(LINEAR_QUADRATIC_MIDDLE, shift))
        if not settings.get("use_dynamic_shifting"):
            return super().default_timestep()
        sampler, stride = self.default_sampler(), self.spatial_stride()
        frames = (sampler.max_frames - 1) // self._temporal_stride() + 1
        tokens = frames * (sampler.height // stride) * (sampler.width // stride)
        low, high = (
            self.setting("scheduler", "base_image_seq_len", 256),
            self.setting("scheduler", "max_image_seq_len", 4096),
        )
        base, most = (
            self.setting("scheduler", "base_shift", 0.5),
            self.setting("scheduler", "max_shift", 1.15),
        )
        shift = math.exp(base + (most - base) * (tokens - low) / (high - low))
        middle = shifted((TRAIN_STEPS // 2 + 1) / TRAIN_STEPS, shift)
        if terminal := self.setting("scheduler", "shift_terminal", None):
            middle = 1 - (1 - middle) * (1 - terminal) / (1 - shifted(1 / TRAIN_STEPS, shift))
        return round(TRAIN_STEPS * middle)

    def default_prompt_length(self) -> int:
        longest = CONDITION_PROMPT_LENGTH if self._takes_conditions() else PROMPT_LENGTH
        return min(longest, int(self.setting("tokenizer", "model_max_length", longest)))

    def latent_channels(self) -> int:
        return int(self.setting("vae", "latent_channels", 128))

    def condition_shapes(
        self, latents_cfhw: tuple[int, ...], prompt_length: int
    ) -> dict[str, tuple[int, ...]]:
        width = int(self.setting(self.denoiser, "caption_channels", 4096))
        return {"text": (prompt_length, width), **self._image_shape(latents_cfhw)}

    def _image_shape(self, latents_cfhw: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        channels, _, *plane = latents_cfhw
        return {"image": (channels, 1, *plane)} if self._takes_image() else {}

    def frame_map(self, frames: int) -> list[range]:
        return causal_frame_map(frames, self._temporal_stride())

    # Encoding.

    def encode_pixels(self, video_bcfhw: "torch.Tensor") -> "dict[str, torch.Tensor]":
        vae = self._vae
        mean, std = (
            values.view(-1, 1, 1, 1).float() for values in (vae.latents_mean, vae.latents_std)
        )
        z_cfhw = self.latents_of(vae.encode(video_bcfhw).latent_dist)
        latents_cfhw = (z_cfhw - mean) * float(vae.config.scaling_factor) / std
        if self._takes_image():
            return {"latents": latents_cfhw, "image": latents_cfhw[:, :1].clone()}
        return {"latents": latents_cfhw}

    def load_text_encoder(self) -> None:
        import diffusers
        from transformers import T5EncoderModel

        # The pipeline's own method tokenises and encodes, so ours cannot drift from it: they differ in
        # whether the encoder sees the padding.
        self._text = getattr(diffusers, self.source.pipeline_class)(
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
            text_bld, mask_bl, _, _ = self._text.encode_prompt(
                caption,
                do_classifier_free_guidance=False,
                max_sequence_length=prompt_length,
                device=self.device,
            )
        # The transformer masks the padding.
        return {"text": text_bld[0, : int(mask_bl.sum())].float()}

    # The training objective.

    def loss_weights(self, latents_cfhw: "torch.Tensor") -> "torch.Tensor | None":
        if not self._takes_image():
            return None
        return first_frame_given(latents_cfhw)

    def predict(
        self,
        denoiser: "torch.nn.Module",
        noisy_cfhw: "torch.Tensor",
        timestep: float,
        conditions: "Mapping[str, torch.Tensor]",
        prompt_length: int,
    ) -> "torch.Tensor":
        text_ld = conditions["text"]
        mask_l = padded(text_ld.new_ones(len(text_ld)), prompt_length)
        output_bsc = denoiser(
            hidden_states=self._packed(self._seen(noisy_cfhw, conditions)),
            encoder_hidden_states=padded(text_ld, prompt_length)[None].to(self.device, self.dtype),
            timestep=self._told(noisy_cfhw, timestep),
            encoder_attention_mask=mask_l[None].to(self.device, self.dtype),
            **self._positions(*noisy_cfhw.shape[1:]),
            return_dict=False,
        )[0]
        return self._unpacked(output_bsc, *noisy_cfhw.shape[1:])

    def _seen(
        self, noisy_cfhw: "torch.Tensor", conditions: "Mapping[str, torch.Tensor]"
    ) -> "torch.Tensor":
        """The latents that the transformer takes, with the given frame in its place."""
        import torch

        if not self._takes_image():
            return noisy_cfhw
        return torch.cat([conditions["image"], noisy_cfhw[:, 1:]], 1)

    def _told(self, noisy_cfhw: "torch.Tensor", timestep: float) -> "torch.Tensor":
        """The clip's timestep, `(1,)`, or one for each token, `(1, S)`, 0 where the frame is given."""
        import torch
        from diffusers import LTXPipeline

        if not self._takes_image():
            return torch.full((1,), float(timestep), device=self.device)
        told_fhw = float(timestep) * first_frame_given(noisy_cfhw)
        told_bsc = LTXPipeline._pack_latents(told_fhw[None, None], *self._patch())
        return told_bsc[:, :, 0].to(self.device)

    def _packed(self, latents_cfhw: "torch.Tensor") -> "torch.Tensor":
        """Tokens, `(1, S, C)`."""
        from diffusers import LTXPipeline

        tokens_bsc = LTXPipeline._pack_latents(latents_cfhw[None], *self._patch())
        return tokens_bsc.to(self.device, self.dtype)

    def _unpacked(
        self, tokens_bsc: "torch.Tensor", frames: int, rows: int, columns: int
    ) -> "torch.Tensor":
        """`(C, F, H, W)`, float32."""
        from diffusers import LTXPipeline

        patch, patch_t = self._patch()
        latents_bcfhw: torch.Tensor = LTXPipeline._unpack_latents(
            tokens_bsc.float(), frames // patch_t, rows // patch, columns // patch, patch, patch_t
        )
        return latents_bcfhw[0]

    def _positions(self, frames: int, rows: int, columns: int) -> dict[str, Any]:
        """What tells the transformer where and when each token of a latent grid is."""
        from diffusers import LTXConditionPipeline

        patch, patch_t = self._patch()
        stride, stride_t = self.spatial_stride(), self._temporal_stride()
        if not self._takes_conditions():
            return {
                "num_frames": frames // patch_t,
                "height": rows // patch,
                "width": columns // patch,
                "rope_interpolation_scale": (stride_t / FRAME_RATE, stride, stride),
            }
        ids_b3s = LTXConditionPipeline._prepare_video_ids(
            1, frames, rows, columns, patch_size=patch, patch_size_t=patch_t, device=self.device
        )
        coords_b3s = LTXConditionPipeline._scale_video_ids(ids_b3s, stride, stride_t).float()
        coords_b3s[:, 0] /= FRAME_RATE
        return {"video_coords": coords_b3s}
