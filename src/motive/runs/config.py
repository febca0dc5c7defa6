"""A run's configuration: one typed tree, from YAML plus dotted overrides plus flags."""

from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from motive.errors import UserError
from motive.runs.remote import RunPath


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Sampling(_Section):
    """Which frames of a file are its clip; None takes what the model was made for."""

    frames: int | None = Field(None, ge=1)
    height: int | None = Field(None, ge=8)
    width: int | None = Field(None, ge=8)
    fps: float | None = Field(None, gt=0)
    mode: Literal["first", "spread"] = "first"
    fit: Literal["crop", "stretch"] = "crop"


class Motion(_Section):
    """The tracker and the mask's recipe (`motive.motion.masks.motion_mask`).

    checkpoint: file or hub id of the tracker's weights; None takes the published ones.
    camera: the global model of the camera's motion (`motive.motion.camera.estimate_camera`).
    """

    tracker: str = "dis"
    checkpoint: str | None = None
    camera: Literal["translation", "similarity", "homography"] = "similarity"
    mask: Literal["paper", "object", "camera", "none"] = "paper"
    mask_trusted: bool = False
    static_below: float = Field(0.1, ge=0)


class Gradients(_Section):
    """The objective's points and the projection.

    estimator: whose gradients are compared, and how (`motive.influence.estimators`).
    timestep: of the paper's objective, 1..1000; several are averaged.
    trainer: whose loss is differentiated (`motive.gradients.trainers`).
    draws: how many of a trainer's timesteps are averaged; 1 is the estimator's own number.
    shift: of a trainer's timesteps; None takes the trainer's own.
    timestep_range: the part of a trainer's timesteps that counts, as experts are trained.
    parameters: name pattern of those that are differentiated; None takes what the family's training changes.
    posterior: what of the VAE's posterior the latents are, its mean or a draw; None takes the trainer's own.
    """

    estimator: Literal["paper", "no-mask", "centred", "ridge", "effect", "motion-effect"] = "paper"
    timestep: Literal["auto"] | int | tuple[int, ...] = "auto"
    trainer: Literal["paper", "diffsynth", "musubi", "finetrainers", "diffusion-pipe"] = "paper"
    draws: int = Field(1, ge=1, le=1000)
    shift: float | None = Field(None, gt=0)
    timestep_range: tuple[float, float] | None = None
    parameters: str | None = None
    posterior: Literal["mean", "sample"] | None = None
    length_factor: bool = True
    projection: str = "fastfood"
    dim: int = Field(512, ge=1)


class Finetuned(_Section):
    """What was fine-tuned of the model: a full checkpoint instead of the base's, a LoRA over it, or both.

    checkpoint, lora: files or folders (`motive.backbones.finetuned`).
    train: what the gradients are of: the denoiser's own weights, with the LoRA fused in, or the LoRA's
        factors alone.
    """

    checkpoint: str | None = None
    lora: str | None = None
    train: Literal["base", "lora"] = "base"


class Selection(_Section):
    """Votes, how many clips to take, and which motion keeps a clip out.

    max_camera_share, min_speed: bounds on `motive.motion.statistics.MotionStatistics`' camera_share
        and mean_speed; a clip beyond them is ranked and never selected. None is no bound.
    """

    fraction: float = Field(0.10, gt=0, le=1)
    percentile: float = Field(90.0, ge=0, lt=100)
    max_camera_share: float | None = Field(None, ge=0, le=1)
    min_speed: float | None = Field(None, ge=0)


class Compute(_Section):
    """Where and in which precision the model runs; `threads` of the CPU, None for torch's choice.

    batch: clips of one shape whose gradients are computed together, at most; None chooses by size
        (`motive.gradients.stage.GradientStage`). Features do not depend on it.
    engine, address: `local` for this process, or `ray` for workers of the cluster at `address`
        (`motive.runs.ray_engine`), None for the one that is found or else started on this machine.
    clip_seconds, clip_memory, decoders: what the first decoding of a clip may take, in seconds and MB, and
        in how many processes (`motive.clips.isolation.DecodingLimits`).
    """

    device: str = "auto"
    dtype: str = "auto"
    threads: int | None = Field(None, ge=1)
    batch: int | None = Field(None, ge=1)
    engine: Literal["local", "ray"] = "local"
    address: str | None = None
    clip_seconds: float = Field(60.0, gt=0)
    clip_memory: int = Field(2048, ge=1)
    decoders: int | None = Field(None, ge=1)


class RunConfig(_Section):
    """Everything that a user says about a run.

    clips, queries: a folder or a metadata file of any format in `motive.clips.formats`.
    media_root: folder below which metadata may name files outside its own folder.
    model: a diffusers folder, `tiny-wan`, or a hub id.
    seed: of the shared noise and of the projection.
    """

    clips: str
    queries: str
    media_root: str | None = None
    model: str
    seed: int = Field(0, ge=0)
    sampling: Sampling = Sampling()
    motion: Motion = Motion()
    gradients: Gradients = Gradients()
    finetuned: Finetuned = Finetuned()
    selection: Selection = Selection()
    compute: Compute = Compute()


# What may change in a run that exists: the tables take account of it, or do not depend on it.
CHANGEABLE = (
    "clips",
    "queries",
    "media_root",
    "selection",
    "compute.device",
    "compute.threads",
    "compute.batch",
    "compute.engine",
    "compute.address",
    "compute.clip_seconds",
    "compute.clip_memory",
    "compute.decoders",
)


def make_config(values: dict[str, Any]) -> RunConfig:
    """A configuration from nested or dotted names; None means that nothing was said.

    Raises UserError, naming the field, when a value is not of its kind.
    """
    tree: dict[str, Any] = {}
    for name, value in flatten(values).items():
        if value is None:
            continue
        *sections, last = name.split(".")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
            if not isinstance(node, dict):
                raise UserError(f"the setting {name} is wrong: {section} is no section")
        if isinstance(node.get(last), dict):
            raise UserError(f"the setting {name} is wrong: {last} is a section, name what is in it")
        node[last] = value
    try:
        return RunConfig(**tree)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][:2])
        if first["type"] == "extra_forbidden":
            raise UserError(f"there is no setting {where}: see a run.yaml for the names") from None
        raise UserError(f"the setting {where} is wrong: {first['msg'].lower()}") from None


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted name."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[prefix + name] = value
    return flat


def refuse_changes(old: RunConfig, new: RunConfig, run: RunPath) -> None:
    """Raise UserError, naming the fields, when `new` would need other features than `old`.

    Features of two objectives are never mixed in one run.
    """
    before, after = flatten(old.model_dump(mode="json")), flatten(new.model_dump(mode="json"))
    changed = [
        f"{name} is {before[name]} there and {after[name]} now"
        for name in before
        if before[name] != after[name] and not name.startswith(CHANGEABLE)
    ]
    if changed:
        raise UserError(
            f"{run} was made with other settings ({'; '.join(changed)}): "
            "choose another --out, or the settings of that run"
        )


def parse_overrides(words: list[str]) -> dict[str, Any]:
    """`selection.fraction=0.2` and the like to values.

    Raises UserError for a word without a name or a value.
    """
    values = {}
    for word in words:
        name, equals, text = word.partition("=")
        try:
            value = yaml.safe_load(text) if name and equals else None
        except yaml.YAMLError:
            value = None
        if value is None:
            raise UserError(f"'{word}' is no override: write it as name=value, as in seed=1")
        values[name] = value
    return values


def read_yaml(path: RunPath) -> dict[str, Any]:
    """The content of a YAML file.

    Raises UserError when there is none or it holds no mapping.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = getattr(error, "strerror", None) or "it is not YAML"
        raise UserError(
            f"{path} cannot be read ({reason}): give a run.yaml that motive wrote"
        ) from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no settings: give a run.yaml that motive wrote")
    return content
