"""What a comparison is of, as a person writes it down.

```yaml
run: runs/mine                # whose clips and selection
model: tiny-wan               # what is fine-tuned
arms:
  base: base                  # the model itself
  all: all
  random: random              # another draw for each training seed
  magnitude: magnitude
  mine: {subset: mine.csv}    # a list of one's own
  motive: selection
reference: random             # what the others are measured against
training: {steps: 200, batch: 8, lr: 1.0e-4}
generation: {prompts: prompts.txt, seeds: 5}
evaluation: {dimensions: [dynamic_degree_dis, jerk]}
seeds: [0, 1, 2]              # of training; the intervals are over them
```
"""

import re
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from motive.errors import UserError

BASE = "base"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+ -]{0,63}")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Arm(_Section):
    """What one arm is trained on: a method of `motive.subsets`, a file, or `base`, which is not trained.

    seed: of a random subset; None is the training's own seed, so that the interval counts the draw.
    """

    subset: str
    fraction: float | None = Field(None, gt=0, le=1)
    seed: int | None = Field(None, ge=0)
    embedding_model: str | None = None

    def subset_seed(self, training_seed: int | None) -> int:
        """Of the random subset for a training."""
        return self.seed if self.seed is not None else training_seed or 0


class Training(_Section):
    """As `motive.finetuning.FinetuneSettings`.

    steps, repeats: one of them; `steps` compares at matched steps, `repeats` at matched repeats.
    """

    steps: int | None = Field(None, ge=1)
    repeats: int | None = Field(None, ge=1)
    batch: int = Field(1, ge=1)
    lr: float = Field(1e-5, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    lora: int | None = Field(None, ge=1)
    trainer: str = "uniform"
    shift: float | None = Field(None, gt=0)
    timestep_range: tuple[float, float] | None = None
    checkpoint_every: int = Field(200, ge=1)

    @model_validator(mode="after")
    def _one_length(self) -> "Training":
        if (self.steps is None) == (self.repeats is None):
            raise ValueError("give steps, to compare at matched steps, or repeats, but not both")
        return self


class Generation(_Section):
    """As `motive.generation.generate`. seeds: videos of each prompt, the same noise for every arm."""

    prompts: str | tuple[str, ...]
    seeds: int = Field(5, ge=1)
    steps: int | None = Field(None, ge=1)
    frames: int | None = Field(None, ge=1)
    height: int | None = Field(None, ge=8)
    width: int | None = Field(None, ge=8)
    guidance: float | None = None
    negative_prompt: str | None = None
    fps: float | None = Field(None, gt=0)
    images: str | None = None


class Networks(_Section):
    """As `motive.evaluation.Networks`; None is its default."""

    dino: str | None = None
    clip_base: str | None = None
    clip_large: str | None = None
    aesthetic_head: str | None = None
    raft: str | None = None
    plugins: dict[str, str] = {}


class Evaluation(_Section):
    """As `motive.evaluation.evaluate`. dimensions: None is all; those whose network is missing are named."""

    dimensions: tuple[str, ...] | None = None
    networks: Networks = Networks()
    vbench_python: str | None = None


class Compute(_Section):
    """Where training, generation and evaluation run. dtype: of the computation."""

    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    threads: int | None = Field(None, ge=1)


class Spec(_Section):
    """A whole comparison.

    reference: the arm that the others are measured against; None is `random` if there is such an arm,
        else the first that is trained.
    seeds: of the trainings of every arm.
    keep_models: whether the fine-tuned models stay after their videos are made.
    """

    run: str
    model: str
    arms: dict[str, Arm]
    reference: str | None = None
    training: Training
    generation: Generation
    evaluation: Evaluation = Evaluation()
    seeds: tuple[int, ...] = (0, 1, 2)
    keep_models: bool = True
    compute: Compute = Compute()

    @field_validator("arms", mode="before")
    @classmethod
    def _arms_by_a_word(cls, arms: Any) -> Any:
        if not isinstance(arms, dict):
            return arms
        return {
            name: {"subset": arm} if isinstance(arm, str) else arm for name, arm in arms.items()
        }

    @field_validator("arms")
    @classmethod
    def _arms_are_folders(cls, arms: dict[str, Arm]) -> dict[str, Arm]:
        if not arms:
            raise ValueError("name at least one arm")
        if bad := [name for name in arms if not _NAME.fullmatch(name)]:
            raise ValueError(f"'{bad[0]}' cannot be a folder's name: use letters, digits, . _ + -")
        if len({name.lower() for name in arms}) < len(arms):
            raise ValueError("two arms differ in their capitals alone: rename one")
        return arms

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, seeds: tuple[int, ...]) -> tuple[int, ...]:
        if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
            raise ValueError("give different numbers from 0 on, at least one")
        return seeds

    @model_validator(mode="after")
    def _reference_is_an_arm(self) -> "Spec":
        if self.reference is not None and self.reference not in self.arms:
            raise ValueError(f"the reference '{self.reference}' is none of the arms")
        return self

    @property
    def against(self) -> str:
        """The reference arm's name."""
        trained = [name for name, arm in self.arms.items() if arm.subset != BASE]
        if self.reference is not None:
            return self.reference
        return "random" if "random" in self.arms else [*trained, *self.arms][0]

    def seeds_of(self, arm: str) -> tuple[int | None, ...]:
        """The trainings of an arm; the base has none, and one set of videos."""
        return (None,) if self.arms[arm].subset == BASE else self.seeds


def make_spec(values: dict[str, Any]) -> Spec:
    """A specification from nested values.

    Raises UserError, naming the field, when a value is not of its kind.
    """
    try:
        return Spec(**values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "comparison"
        reason = first["msg"].removeprefix("Value error, ")
        raise UserError(f"the setting {where} is wrong: {reason[:1].lower()}{reason[1:]}") from None


def read_spec(path: Path) -> Spec:
    """The specification in a YAML file; the files that it names are relative to it.

    Raises UserError when it cannot be read or a value is not of its kind.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = getattr(error, "strerror", None) or "it is not YAML"
        raise UserError(f"{path} cannot be read ({reason}): give a comparison in YAML") from None
    if not isinstance(content, dict):
        raise UserError(f"{path} holds no comparison: see motive compare --help")
    return _resolved(make_spec(content), path.parent)


def _resolved(spec: Spec, folder: Path) -> Spec:
    """With the paths that exist beside the specification made absolute; other words are names."""

    def place(name: str | None) -> str | None:
        if name is None:
            return None
        there = folder / Path(name).expanduser()
        return str(there.absolute()) if there.exists() else name

    arms = {
        name: arm.model_copy(
            update={"subset": place(arm.subset) if "." in arm.subset else arm.subset,
                    "embedding_model": place(arm.embedding_model)}
        )
        for name, arm in spec.arms.items()
    }  # fmt: skip
    generation, networks = spec.generation, spec.evaluation.networks
    prompts = generation.prompts
    generation = generation.model_copy(
        update={
            "prompts": place(prompts) if isinstance(prompts, str) else prompts,
            "images": place(generation.images),
        }
    )
    found = {n: place(v) for n, v in networks.model_dump(exclude={"plugins"}).items()}
    evaluation = spec.evaluation.model_copy(update={"networks": networks.model_copy(update=found)})
    return spec.model_copy(
        update={
            "run": place(spec.run),
            "model": place(spec.model),
            "arms": arms,
            "generation": generation,
            "evaluation": evaluation,
        }
    )
