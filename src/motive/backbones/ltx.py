"""LTX-Video, text-to-video and image-to-video.

Flow matching on packed tokens: latents (C, F, H, W) become one sequence, frame by frame, row by row, and
the prediction is unpacked again. Latents are (z − mean) · scaling_factor / std by the VAE's own buffers.
The position of a token is in seconds, for which the clip is taken to have the pipeline's 25 frames per
second whatever its file says.

The image-to-video pipeline is given latent frame 0 itself, clean and at timestep 0, and its training loss
leaves that frame out.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from motive.backbones.diffusers_backbone import DiffusersBackbone
from motive.backbones.flow import TRAIN_STEPS, FlowBackbone, shifted
from motive.backbones.frames import causal_frame_map, causal_sampler
from motive.backbones.latents import first_frame_given
from motive.backbones.text import padded, tokenised
from motive.clips.sampling import FrameSampler

if TYPE_CHECKING:
    import torch

FRAME_RATE = 25.0
PROMPT_LENGTH = 128


class LTXBackbone(DiffusersBackbone, FlowBackbone):
    family = "ltx"
    title = "LTX-Video"
    pipeline_classes = ("LTXPipeline", "LTXImageToVideoPipeline")
    published = {  # noqa: RUF012  (as the next)
        "Lightricks/LTX-Video": 1_923_385_472,
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
        return self.source.pipeline_class == "LTXImageToVideoPipeline"

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
        """
        settings = self.source.config("scheduler")
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
        return min(PROMPT_LENGTH, int(self.setting("tokenizer", "model_max_length", PROMPT_LENGTH)))

    def frame_map(self, frames: int) -> list[range]:
        return causal_frame_map(frames, self._temporal_stride())

    # Encoding.

    def encode_pixels(self, video_bcfhw: "torch.Tensor") -> "dict[str, torch.Tensor]":
        vae = self._vae
        mean, std = (
            values.view(1, -1, 1, 1, 1).float() for values in (vae.latents_mean, vae.latents_std)
        )
        z_bcfhw = vae.encode(video_bcfhw).latent_dist.mode()
        latents_cfhw = ((z_bcfhw - mean) * float(vae.config.scaling_factor) / std)[0]
        if self._takes_image():
            return {"latents": latents_cfhw, "image": latents_cfhw[:, :1].clone()}
        return {"latents": latents_cfhw}

    def load_text_encoder(self) -> None:
        from transformers import T5EncoderModel

        self._tokens = self.tokenizer()
        self._text = self.text_model(T5EncoderModel)

    def encode_text(self, caption: str, prompt_length: int) -> "dict[str, torch.Tensor]":
        import torch

        assert self._text is not None, "load_text_encoder first"
        tokens = tokenised(self._tokens, caption, prompt_length)
        with torch.no_grad():
            # The encoder sees the padding unmasked, as in the pipeline; the transformer masks it.
            text_bld = self._text(tokens.input_ids.to(self.device))[0]
        return {"text": text_bld[0, : int(tokens.attention_mask.sum())].float()}

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
        import torch
        from diffusers import LTXPipeline

        patch, patch_t = self._patch()
        frames, rows, columns = noisy_cfhw.shape[1:]
        told_bs = torch.full((1, 1), float(timestep), device=self.device)
        if self._takes_image():
            noisy_cfhw = torch.cat([conditions["image"], noisy_cfhw[:, 1:]], 1)
            told_fhw = torch.full((1, 1, frames, rows, columns), float(timestep))
            told_fhw[:, :, 0] = 0
            told_bs = LTXPipeline._pack_latents(told_fhw, patch, patch_t)[:, :, 0].to(self.device)
        text_ld = conditions["text"]
        mask_l = padded(text_ld.new_ones(len(text_ld)), prompt_length)
        stride, stride_t = self.spatial_stride(), self._temporal_stride()
        output_bsc = denoiser(
            hidden_states=LTXPipeline._pack_latents(noisy_cfhw[None], patch, patch_t).to(
                self.device, self.dtype
            ),
            encoder_hidden_states=padded(text_ld, prompt_length)[None].to(self.device, self.dtype),
            timestep=told_bs if self._takes_image() else told_bs[0],
            encoder_attention_mask=mask_l[None].to(self.device, self.dtype),
            num_frames=frames // patch_t,
            height=rows // patch,
            width=columns // patch,
            rope_interpolation_scale=(stride_t / FRAME_RATE, stride, stride),
            return_dict=False,
        )[0]
        prediction: torch.Tensor = LTXPipeline._unpack_latents(
            output_bsc.float(), frames // patch_t, rows // patch, columns // patch, patch, patch_t
        )
        return prediction[0]
