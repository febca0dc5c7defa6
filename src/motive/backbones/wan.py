"""Wan 2.1 text-to-video (`WanPipeline` with one transformer).

Flow matching: z = (1 − σ) h + σ ε with σ = t / 1000, target ε − h, and the transformer sees t itself.
Latents are (z − mean) / std by the VAE's own configuration. Latent frame 0 is pixel frame 0, latent
frame k covers pixel frames 4k − 3 … 4k.
"""

import gc
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan, WanPipeline, WanTransformer3DModel
from safetensors import SafetensorError
from transformers import AutoTokenizer, UMT5EncoderModel
from transformers.utils import logging as transformers_logging

from motive.backbones.base import Backbone
from motive.backbones.source import ModelSource
from motive.clips.sampling import FrameSampler
from motive.errors import ClipError, UserError

TRAIN_STEPS = 1000


class WanBackbone(Backbone):
    family = "wan"
    pipeline_classes = ("WanPipeline",)

    def __init__(self, source: ModelSource, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__(source, dtype, device)
        if source.index.get("expand_timesteps") or source.index.get("boundary_ratio"):
            raise UserError(
                f"{source.name} is a Wan 2.2 pipeline, which has no adapter yet: use a Wan 2.1 one"
            )
        self._vae_config = source.config("vae")
        self._vae: AutoencoderKLWan | None = None
        self._text: WanPipeline | None = None

    def default_sampler(self) -> FrameSampler:
        advice = {"frames": 81, "height": 480, "width": 832, **self.source.recommended()}
        return FrameSampler(
            max_frames=int(str(advice["frames"])),
            height=int(str(advice["height"])),
            width=int(str(advice["width"])),
            length_step=self._temporal_stride(),
            length_offset=1,
        )

    def default_timestep(self) -> int:
        """The middle entry of the 1000-step trajectory, shifted by the scheduler's own shift: 751 at 3."""
        scheduler = self.source.config("scheduler")
        shift = float(str(scheduler.get("flow_shift") or scheduler.get("shift") or 1.0))
        middle = (TRAIN_STEPS // 2 + 1) / TRAIN_STEPS
        return round(TRAIN_STEPS * shift * middle / (1 + (shift - 1) * middle))

    def default_prompt_length(self) -> int:
        longest = self.source.config("tokenizer").get("model_max_length", 512)
        return int(min(512.0, float(str(longest))))

    def spatial_stride(self) -> int:
        return int(str(self._vae_config.get("scale_factor_spatial", 8)))

    def _temporal_stride(self) -> int:
        return int(str(self._vae_config.get("scale_factor_temporal", 4)))

    def frame_map(self, frames: int) -> list[range]:
        stride = self._temporal_stride()
        if (frames - 1) % stride:
            raise ValueError(f"{frames} frames are not 1 + {stride}k: the VAE would drop some")
        return [range(1)] + [range(k - stride + 1, k + 1) for k in range(stride, frames, stride)]

    def load_vae(self) -> None:
        # The VAE is small and its errors go straight into the latents: float32 everywhere.
        vae = _load(AutoencoderKLWan, self.source, "vae", torch.float32)
        self._vae = vae.to(self.device).eval().requires_grad_(False)
        mean, std = vae.config.latents_mean, vae.config.latents_std
        self._mean = torch.tensor(mean, device=self.device).view(1, -1, 1, 1, 1)
        self._std = torch.tensor(std, device=self.device).view(1, -1, 1, 1, 1)

    @torch.no_grad()
    def encode_video(self, frames_fhw3: np.ndarray) -> torch.Tensor:
        assert self._vae is not None, "load_vae first"
        stride = self.spatial_stride() * 2  # the transformer's patches are 2 × 2 latent cells
        if frames_fhw3.shape[1] % stride or frames_fhw3.shape[2] % stride:
            raise ClipError(f"height and width must be multiples of {stride} pixels")
        video = torch.from_numpy(np.ascontiguousarray(frames_fhw3)).to(self.device)
        video = video.permute(3, 0, 1, 2)[None].float() / 127.5 - 1
        mean = self._vae.encode(video).latent_dist.mode()
        return ((mean - self._mean) / self._std)[0]

    def load_text_encoder(self) -> None:
        encoder = _load(UMT5EncoderModel, self.source, "text_encoder", self.text_dtype())
        tokenizer = _load(AutoTokenizer, self.source, "tokenizer", None)
        # The pipeline's own method cleans, tokenises and encodes, so ours cannot drift from it.
        self._text = WanPipeline(
            tokenizer=tokenizer,
            text_encoder=encoder.to(self.device).eval().requires_grad_(False),
            vae=None,
            scheduler=None,
        )

    @torch.no_grad()
    def encode_text(self, caption: str, prompt_length: int) -> torch.Tensor:
        assert self._text is not None, "load_text_encoder first"
        padded, _ = self._text.encode_prompt(
            caption,
            do_classifier_free_guidance=False,
            max_sequence_length=prompt_length,
            device=self.device,
        )
        used = padded[0].abs().sum(-1).nonzero()
        return padded[0, : int(used.max()) + 1].float()

    def unload(self) -> None:
        self._vae = self._text = None
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def load_denoiser(self) -> torch.nn.Module:
        model = _load(WanTransformer3DModel, self.source, "transformer", self.dtype)
        return model.to(self.device).eval()

    def add_noise(
        self, latents_cfhw: torch.Tensor, noise_cfhw: torch.Tensor, timestep: int
    ) -> torch.Tensor:
        sigma = timestep / TRAIN_STEPS
        return (1 - sigma) * latents_cfhw + sigma * noise_cfhw

    def target(
        self, latents_cfhw: torch.Tensor, noise_cfhw: torch.Tensor, timestep: int
    ) -> torch.Tensor:
        return noise_cfhw - latents_cfhw

    def predict(
        self,
        denoiser: torch.nn.Module,
        noisy_cfhw: torch.Tensor,
        timestep: int,
        text_ld: torch.Tensor,
        prompt_length: int,
    ) -> torch.Tensor:
        text = torch.nn.functional.pad(text_ld, (0, 0, 0, prompt_length - len(text_ld)))
        output = denoiser(
            hidden_states=noisy_cfhw[None].to(self.device, self.dtype),
            timestep=torch.tensor([timestep], device=self.device, dtype=torch.float32),
            encoder_hidden_states=text[None].to(self.device, self.dtype),
            return_dict=False,
        )[0]
        return output[0].float()


def _load(cls: Any, source: ModelSource, component: str, dtype: torch.dtype | None) -> Any:
    """`from_pretrained` of one component, safetensors only, with a user's sentence when it fails.

    dtype: of the weights; None for a component without weights.
    """
    again = "download or save the model again"
    folder = source.path / component
    if not folder.is_dir():
        raise UserError(f"{source.name} has no folder {component}: {again}")
    options: dict[str, object] = {}
    if dtype is not None:
        is_diffusers = cls.__module__.startswith("diffusers")
        options = {"use_safetensors": True, "output_loading_info": True}
        options["torch_dtype" if is_diffusers else "dtype"] = dtype
    # Progress is the stage's to show; a second bar for a few weight files only tears it.
    transformers_logging.disable_progress_bar()
    try:
        loaded = cls.from_pretrained(folder, **options)
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"the {component} of {source.name} cannot be loaded ({reason}): {again}"
        ) from None
    if dtype is None:
        return loaded
    model, info = loaded
    # Both libraries would go on with random numbers. A weight that shares a loaded one's memory is there.
    parameters = dict(model.named_parameters(remove_duplicate=False))
    there = {id(p) for name, p in parameters.items() if name not in info["missing_keys"]}
    missing = sorted(n for n in info["missing_keys"] if id(parameters.get(n)) not in there)
    if missing:
        raise UserError(
            f"the {component} of {source.name} lacks {len(missing)} of its weights, "
            f"such as {missing[0]}: {again}"
        )
    return model
