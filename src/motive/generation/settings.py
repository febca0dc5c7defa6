"""What one video is made with: asked for, or else what the model is for."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from motive.errors import UserError

if TYPE_CHECKING:
    from motive.backbones.base import Backbone

# Frames per second that the published models of a family were trained at; any other is 16.
_RATES = {
    "AllegroPipeline": 15,
    "AnimateDiffPipeline": 8,
    "CogVideoXImageToVideoPipeline": 8,
    "CogVideoXPipeline": 8,
    "HunyuanVideo15Pipeline": 24,
    "HunyuanVideoPipeline": 24,
    "LTXImageToVideoPipeline": 25,
    "LTXPipeline": 25,
    "MochiPipeline": 30,
    "SkyReelsV2DiffusionForcingPipeline": 24,
    "SkyReelsV2ImageToVideoPipeline": 24,
    "SkyReelsV2Pipeline": 24,
    "StableVideoDiffusionPipeline": 7,
    "TextToVideoSDPipeline": 8,
}
_DEFAULT_RATE = 16

# What pipelines call the same thing, in the order in which they are looked for.
_GUIDANCE = ("guidance_scale", "max_guidance_scale")
_RATE = ("frame_rate", "fps")


@dataclass(frozen=True)
class Asked:
    """What the user says of every video; None is what the model is for."""

    steps: int | None = None
    frames: int | None = None
    height: int | None = None
    width: int | None = None
    guidance: float | None = None
    negative_prompt: str | None = None
    fps: float | None = None


@dataclass(frozen=True)
class VideoSettings:
    """What every video is made with. None: the pipeline has no such setting, or its default is None."""

    steps: int
    frames: int
    height: int
    width: int
    guidance: float | None
    negative_prompt: str | None
    fps: float


def settle(asked: Asked, backbone: "Backbone", parameters: Mapping[str, Any]) -> VideoSettings:
    """The settings of every video: what is asked for, else the model folder's `motive.json` (frames,
    height, width, steps, guidance, fps), else the pipeline's and the family's own.

    parameters: defaults by name of the pipeline's `__call__`.

    Raises UserError for what the model or its pipeline does not take.
    """
    for name in ("steps", "frames", "fps"):
        value = getattr(asked, name)
        if value is not None and not value > 0:
            raise UserError(f"--{name} {value:g} is wrong: give a number above 0")
    source, sampler = backbone.source, backbone.default_sampler()
    advice = source.recommended()
    own_steps = advice.get("steps", parameters["num_inference_steps"])
    own_rate = advice.get("fps", _RATES.get(source.pipeline_class, _DEFAULT_RATE))
    frames = asked.frames or sampler.usable_length(sampler.max_frames)
    if sampler.usable_length(frames) != frames:
        raise UserError(
            f"{source.name} makes videos of {sampler.length_offset} + {sampler.length_step}k frames, "
            f"not of {frames}: use another --frames, such as "
            f"{sampler.usable_length(frames) or sampler.length_offset}"
        )
    height, width = asked.height or sampler.height, asked.width or sampler.width
    rows, columns = backbone.size_multiples()
    if height % rows or width % columns:
        raise UserError(
            f"the size {height}x{width} does not suit {source.name}, which takes multiples of "
            f"{rows}x{columns} pixels: use another --size"
        )
    return VideoSettings(
        steps=asked.steps or int(str(own_steps)),
        frames=frames,
        height=height,
        width=width,
        guidance=_guidance(asked.guidance, advice.get("guidance"), parameters, source.name),
        negative_prompt=_negative_prompt(asked.negative_prompt, parameters, source.name),
        fps=float(asked.fps or str(own_rate)),
    )


def call_arguments(settings: VideoSettings, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The settings by the names of the pipeline's `__call__`."""
    arguments: dict[str, Any] = {
        "height": settings.height,
        "width": settings.width,
        "num_frames": settings.frames,
        "num_inference_steps": settings.steps,
    }
    if (guidance := _first(_GUIDANCE, parameters)) and settings.guidance is not None:
        arguments[guidance] = settings.guidance
    if "negative_prompt" in parameters:
        arguments["negative_prompt"] = settings.negative_prompt
    if rate := _first(_RATE, parameters):
        # Embedded by some models as a whole number.
        arguments[rate] = int(settings.fps) if settings.fps.is_integer() else settings.fps
    return arguments


def call_parameters(pipeline_class: type) -> dict[str, Any]:
    """Name and default of everything that a pipeline's `__call__` takes; None where it has no default."""
    signature = inspect.signature(pipeline_class.__call__)
    return {
        name: None if p.default is inspect.Parameter.empty else p.default
        for name, p in signature.parameters.items()
        if name != "self"
    }


def _guidance(
    asked: float | None, advice: object, parameters: Mapping[str, Any], model: str
) -> float | None:
    name = _first(_GUIDANCE, parameters)
    if name is None:
        if asked is not None:
            raise UserError(f"the pipeline of {model} takes no guidance: leave out --guidance")
        return None
    default = parameters[name]
    value = asked if asked is not None else advice if advice is not None else default
    return None if value is None else float(str(value))


def _negative_prompt(asked: str | None, parameters: Mapping[str, Any], model: str) -> str | None:
    if "negative_prompt" not in parameters:
        if asked is not None:
            raise UserError(
                f"the pipeline of {model} takes no negative prompt: leave out --negative-prompt"
            )
        return None
    return asked if asked is not None else parameters["negative_prompt"]


def _first(names: tuple[str, ...], parameters: Mapping[str, Any]) -> str | None:
    return next((name for name in names if name in parameters), None)
