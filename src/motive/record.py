"""A run's record, `run.yaml`: its resolved configuration, and everything that its numbers depend on."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from motive import __version__
from motive.errors import UserError
from motive.plan import Plan
from motive.runs.config import RunConfig, make_config, read_yaml
from motive.runs.provenance import now, revision, versions
from motive.runs.remote import RunPath

NAME = "run.yaml"


@dataclass(frozen=True)
class Record:
    """What a run.yaml says of its run.

    created: when the run was made; empty when a person wrote the file.
    objective_id: of the objective that the settings were found to give.
    dtypes: of the denoiser and of the text encoder, which `auto` was when the run was made. A run keeps
        them on every machine, so that all its features are of one objective.
    """

    config: RunConfig
    created: str = ""
    objective_id: str = ""
    dtypes: tuple[str, str] | None = None


def read_record(path: RunPath) -> Record:
    """The record in the file `path`.

    Raises UserError when it is none.
    """
    content = read_yaml(path)
    config = content.get("config")
    if not isinstance(config, dict):
        raise UserError(f"{path} has no config section: give a run.yaml that motive wrote")
    objective = content.get("objective")
    objective = objective if isinstance(objective, dict) else {}
    dtypes = objective.get("dtype"), objective.get("text_dtype")
    return Record(
        make_config(config),
        str(content.get("created", "")),
        str(content.get("objective_id", "")),
        (dtypes[0], dtypes[1])
        if isinstance(dtypes[0], str) and isinstance(dtypes[1], str)
        else None,
    )


def record_text(plan: Plan, old: Record | None) -> str:
    """The file's content for a run of `plan`, which may have been made before."""
    content: dict[str, Any] = {
        "motive": __version__,
        "revision": revision(),
        "created": (old.created if old else "") or now(),
        "versions": versions(),
        "model": {
            "name": plan.config.model,
            "path": str(plan.source.path),
            "pipeline": plan.source.pipeline_class,
            "family": plan.backbone.family,
            "fingerprint": plan.model_fingerprint,
        },
        "objective_id": plan.objective.id,
        "objective": json.loads(plan.objective.to_json()),
        **_of_queries(plan),
        "config": plan.config.model_dump(mode="json"),
    }
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def _of_queries(plan: Plan) -> dict[str, Any]:
    """Their objective, where the estimator gives them one of their own."""
    objective = plan.objective_of("query")
    if objective == plan.objective:
        return {}
    return {
        "query_objective_id": objective.id,
        "query_objective": json.loads(objective.to_json()),
    }


def with_absolute_paths(config: RunConfig) -> RunConfig:
    """So that a run can be replayed from anywhere.

    Raises UserError for clips, queries or a media root on an object store.
    """
    for name in ("clips", "queries", "media_root"):
        where = getattr(config, name)
        if where is not None and "://" in where:
            raise UserError(
                f"{name} cannot be read from {where}: files are decoded from a disk; copy them to one "
                "(aws s3 sync), or mount the bucket (mount-s3, rclone mount) and name the folder"
            )

    def absolute(path: str | None) -> str | None:
        return None if path is None else str(Path(path).expanduser().absolute())

    def absolute_if_there(name: str) -> str:
        place = Path(name).expanduser()
        return str(place.absolute()) if place.exists() else name

    motion, finetuned = config.motion, config.finetuned
    if motion.checkpoint is not None:
        motion = motion.model_copy(update={"checkpoint": absolute_if_there(motion.checkpoint)})
    finetuned = finetuned.model_copy(
        update={"checkpoint": absolute(finetuned.checkpoint), "lora": absolute(finetuned.lora)}
    )
    return config.model_copy(
        update={
            "clips": absolute(config.clips),
            "queries": absolute(config.queries),
            "media_root": absolute(config.media_root),
            "model": absolute_if_there(config.model),
            "motion": motion,
            "finetuned": finetuned,
        }
    )
