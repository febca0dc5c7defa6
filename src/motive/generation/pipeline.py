"""A diffusers pipeline that makes one video at a time, from a seed that is the same on every device."""

import warnings
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np

from motive.backbones.finetuned import Finetuned, load_network
from motive.backbones.source import AGAIN, ModelSource
from motive.errors import UserError
from motive.generation.settings import VideoSettings, call_arguments, call_parameters

if TYPE_CHECKING:
    from motive.backbones.base import Backbone

# Wan's and SkyReels' VAE loses detail in half precision; their pipelines hand it latents in its own dtype.
_FLOAT32_VAE = "AutoencoderKLWan"


class VideoPipeline:
    """A model with its weights loaded.

    finetuned: a checkpoint in place of the denoiser's weights, a LoRA fused into them, or neither.

    Raises UserError when a part is missing or does not fit, and for a LoRA of a model with two experts.
    """

    def __init__(self, backbone: "Backbone", finetuned: Finetuned, settings: VideoSettings) -> None:
        self.settings = settings
        self._pipeline = _load(backbone, finetuned)
        self._parameters = call_parameters(type(self._pipeline))
        self._arguments = call_arguments(settings, self._parameters)
        if "max_sequence_length" in self._parameters:
            self._arguments["max_sequence_length"] = backbone.default_prompt_length()

    def video(self, prompt: str, seed: int, image: Any = None) -> np.ndarray:
        """RGB frames, uint8, `(F, H, W, 3)`.

        image: the PIL picture that an image-to-video model begins with.

        The noise is drawn on the CPU from `noise_seed`, so it depends neither on the device nor on
        what else is made.

        Raises UserError when the pipeline refuses the settings, or what it makes is not what was asked
        for.
        """
        import torch

        arguments = {**self._arguments, "output_type": "np"}
        if "prompt" in self._parameters:
            arguments["prompt"] = prompt
        if image is not None:
            arguments["image"] = image
        generator = torch.Generator("cpu").manual_seed(noise_seed(prompt, seed))
        try:
            with torch.inference_mode():
                made = self._pipeline(**arguments, generator=generator).frames[0]
        except ValueError as error:
            raise UserError(
                f"the pipeline refuses these settings ({_reason(error)}): change them"
            ) from error
        return self._checked(np.asarray(made))

    def _checked(self, frames_fhw3: np.ndarray) -> np.ndarray:
        wanted = (self.settings.frames, self.settings.height, self.settings.width, 3)
        if frames_fhw3.shape != wanted:
            raise UserError(
                f"the pipeline made a video of shape {frames_fhw3.shape} where {wanted} was asked "
                "for: use --frames and --size that suit the model"
            )
        if not np.isfinite(frames_fhw3).all():
            raise UserError("the video has values that are no numbers: use --dtype float32")
        return np.rint(np.clip(frames_fhw3, 0, 1) * 255).astype(np.uint8)


def noise_seed(prompt: str, seed: int) -> int:
    """The generator's seed for one video: a function of the prompt and its number alone."""
    digest = blake2b(f"{seed}\0{prompt}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1  # torch takes 63 bits


def takes_image(source: ModelSource) -> bool:
    """Whether the model's pipeline begins with a picture."""
    return "image" in call_parameters(pipeline_class(source))


def pipeline_class(source: ModelSource) -> type:
    """The class of diffusers that the model's folder names.

    Raises UserError when diffusers has none of the name, or it makes no videos.
    """
    import diffusers

    cls = getattr(diffusers, source.pipeline_class, None)
    if cls is None:
        raise UserError(
            f"diffusers has no {source.pipeline_class}, which {source.name} is: "
            "update diffusers, or generate with the model's own program"
        )
    if "num_frames" not in call_parameters(cls):
        raise UserError(f"{source.name} is a {source.pipeline_class}, which makes no videos")
    return cls


def _load(backbone: "Backbone", finetuned: Finetuned) -> Any:
    import diffusers
    import torch
    from safetensors import SafetensorError
    from transformers.utils import logging as transformers_logging

    source = backbone.source
    if (finetuned.checkpoint or finetuned.lora) and source.names("transformer_2"):
        raise UserError(
            f"{source.name} has two networks, and it is not said which of them to replace: "
            "save the fine-tuned one in the model's own folder and give that as --model"
        )
    dtypes: dict[str, Any] = {"default": backbone.dtype}
    if source.config("vae").get("_class_name") == _FLOAT32_VAE:
        dtypes["vae"] = torch.float32
    # Progress is ours to show.
    transformers_logging.disable_progress_bar()
    diffusers.utils.logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            # `torch_dtype` is the name that every version takes.
            warnings.simplefilter("ignore", FutureWarning)
            pipeline = diffusers.DiffusionPipeline.from_pretrained(
                source.path, torch_dtype=dtypes, use_safetensors=True, local_files_only=True
            )
    except (
        OSError, ValueError, RuntimeError, KeyError, ImportError, AttributeError, SafetensorError,
    ) as error:  # fmt: skip
        raise UserError(
            f"the pipeline of {source.name} cannot be loaded ({_reason(error)}): {AGAIN}"
        ) from error
    if finetuned.checkpoint or finetuned.lora:
        # Not by `from_pretrained`, which overlooks components that the pipeline can do without.
        network = load_network(backbone, finetuned)
        pipeline.register_modules(**{backbone.denoiser: network})
    pipeline.set_progress_bar_config(disable=True)
    return pipeline.to(backbone.device)


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
