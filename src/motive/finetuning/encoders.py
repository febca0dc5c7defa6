"""Whose encoders make a model's latents and embeddings: the run's own, or the model's."""

from typing import TYPE_CHECKING

from motive.backbones.source import ModelSource, file_digest
from motive.errors import UserError
from motive.plan import Plan
from motive.runs.config import Finetuned, Gradients, Motion

if TYPE_CHECKING:
    from motive.pipeline import Run

_DENOISERS = ("transformer", "unet")
_UNREAD = ("scheduler", "motion_adapter")  # parts that encode nothing
_ABOUT = ("_diffusers_version", "_name_or_path")


def encoding_plan(run: "Run", source: ModelSource) -> Plan:
    """The plan whose encode stages give what the model in `source` takes.

    The run's, where the model is the run's or has the very same encoders: a model that was fine-tuned from
    the run's. Otherwise one of the model's own, for the clips as the run samples them.

    Raises UserError when the model does not take the clips that the run has.
    """
    if source.path == run.plan.source.path or have_same_encoders(run.plan.source, source):
        return run.plan
    return own_plan(run, source)


def own_plan(run: "Run", source: ModelSource) -> Plan:
    """The plan of the model in `source` for the clips as the run samples them.

    Raises UserError when the model does not take them.
    """
    sampler = run.sampler
    sampling = run.config.sampling.model_copy(
        update={"frames": sampler.max_frames, "height": sampler.height, "width": sampler.width}
    )
    config = run.config.model_copy(
        update={
            "model": source.name,
            "sampling": sampling,
            # Of the attribution's objective, which may not be one of this model.
            "gradients": Gradients(),
            "finetuned": Finetuned(),
            "motion": Motion(),
        }
    )
    plan = Plan(run.path, config, source=source)
    if plan.sampler.fingerprint() != sampler.fingerprint():
        raise UserError(
            f"{source.name} takes other frames of a clip than {run.plan.source.name}, which {run.path} "
            f"was made with: make a run with --model {source.name}, or fine-tune another model"
        )
    return plan


def have_same_encoders(one: ModelSource, other: ModelSource) -> bool:
    """Whether two models' files agree in everything but what is trained, and what samples from it."""
    if _of_index(one) != _of_index(other):
        return False
    mine, theirs = _encoder_files(one), _encoder_files(other)
    if mine != theirs:
        return False
    for name in mine:
        here, there = one.path / name, other.path / name
        if not here.samefile(there) and (
            here.stat().st_size != there.stat().st_size or file_digest(here) != file_digest(there)
        ):
            return False
    return True


def _of_index(source: ModelSource) -> dict[str, object]:
    return {name: value for name, value in source.index.items() if name not in _ABOUT}


def _encoder_files(source: ModelSource) -> set[str]:
    names = {file.relative_to(source.path).as_posix() for file in source.files()}
    return {n for n in names if not n.startswith((*_DENOISERS, *_UNREAD))}
