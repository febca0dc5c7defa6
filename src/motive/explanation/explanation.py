"""An explanation of one clip's influence on one query, and the place in the run where it is kept."""

import hashlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc

from motive.errors import ClipError, UserError
from motive.explanation.interval import best_interval, curve_over_frames
from motive.runs.members import Member, Members, Role
from motive.runs.provenance import write_atomically
from motive.runs.texts import is_among

if TYPE_CHECKING:
    from motive.pipeline import Run

FOLDER = "explanations"
LOCATED = ("paper", "no-mask")  # estimators whose scores are cosines of gradients as they are


@dataclass(frozen=True)
class Explanation:
    """Where and when inside a clip its influence on a query comes from.

    clip_id, query_id: of the two.
    influence: the cosine of the whole gradients, -1..1, which the projected score estimates.
    heat_fhw: what each location of the latent's grid adds to it, float32; sums to `influence`.
    curve: the same for each pixel frame, float64.
    frame_map: the pixel frames `(first, after the last)` of each latent frame.
    best_interval: pixel frames `(first, after the last)` that stand out most (`interval.best_interval`).
    fps: frames per second.
    """

    clip_id: str
    query_id: str
    influence: float
    heat_fhw: np.ndarray
    curve: np.ndarray
    frame_map: tuple[tuple[int, int], ...]
    best_interval: tuple[int, int]
    fps: float

    def as_json(self) -> dict[str, Any]:
        """Everything, as JSON takes it."""
        return {**self._facts(), "heat_fhw": self.heat_fhw.tolist(), "curve": self.curve.tolist()}

    def _facts(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if not isinstance(v, np.ndarray)}


def explain(run: "Run", clip: str, query: str) -> Explanation:
    """The influence of a clip on a query, located; from the run directory when it was made before.

    clip, query: ids or file names.

    Takes two backward passes and a forward-mode derivative of the model, and memory for its weights and
    two gradients of them.

    Raises UserError when the run's estimator is none whose influence can be located, when it has no such
    clip or query, when they are not through the stages that come before gradients, or when one of them
    shows no motion.
    """
    if run.plan.estimator.name not in LOCATED:
        raise UserError(
            f"where influence comes from is not known of the estimator {run.plan.estimator.name}: "
            f"use a run of the estimator {' or '.join(LOCATED)}"
        )
    members = _find(run, "clip", clip), _find(run, "query", query)
    file = _file(run, *members)
    if file.is_file():
        return _read(file)
    made = _make(run, *members)
    file.parent.mkdir(exist_ok=True)
    _write(file, made)
    return made


def _find(run: "Run", role: Role, name: str) -> Member:
    same_role = run.members.usable(role)
    named = same_role.take(
        is_among(same_role.column("clip_id"), [name])
        | is_among(same_role.column("file_name"), [name])
    )
    if len(named):
        return named[0]
    ends = pc.ends_with(same_role.column("file_name"), "/" + name)
    named = same_role.take(ends.to_numpy(zero_copy_only=False))
    if len(named) == 1:
        return named[0]
    if len(named):
        raise UserError(f"several files are called {name}: give the {role}'s id of selection.csv")
    raise UserError(
        f"{run.path} has no {role} '{name}': give the name of a file or an id that scores.parquet has"
    )


def _file(run: "Run", clip: Member, query: Member) -> Path:
    about = "\n".join((run.objective.id, clip.feature_key, query.feature_key))
    return run.path / FOLDER / f"{hashlib.blake2b(about.encode(), digest_size=12).hexdigest()}.npz"


def _make(run: "Run", clip: Member, query: Member) -> Explanation:
    from motive.backbones.finetuned import load_network
    from motive.explanation.derivative import heat_map, unit_direction
    from motive.gradients.clip_loss import ClipLosses
    from motive.gradients.parameters import trained_parameters
    from motive.rows import gradient_rows, ready_for_gradients

    ready = ready_for_gradients(Members.of([clip, query]), run.plan, run.store)
    backbone, objective = run.plan.backbone, run.objective
    losses = ClipLosses(backbone, objective)
    inputs = []
    for member in (clip, query):
        if member not in ready:
            raise UserError(f"{member.file_name} failed before gradients: see failures.csv")
        (row,) = gradient_rows([member], run.plan, run.store)
        found = losses.inputs(row)
        if found.static:
            raise UserError(f"{member.file_name} shows no motion, so its gradient is zero")
        inputs.append(found)
    backbone.settle(objective.timesteps)
    denoiser = load_network(backbone, run.plan.finetuned)
    try:
        parameters = trained_parameters(denoiser, objective.parameters, objective.train)
        of_clip, of_query = inputs
        direction = unit_direction(denoiser, parameters, losses.draws(of_query))
        heat = heat_map(denoiser, parameters, losses.draws(of_clip), direction).numpy()
    except ClipError as error:
        raise UserError(f"{clip.file_name} or {query.file_name}: {error}") from None
    finally:
        backbone.unload()
    frame_map = backbone.frame_map(clip.frames)
    curve = curve_over_frames(heat, frame_map, clip.frames)
    return Explanation(
        clip.clip_id,
        query.clip_id,
        float(heat.sum(dtype=np.float64)),
        heat,
        curve,
        tuple((covered.start, covered.stop) for covered in frame_map),
        best_interval(curve),
        clip.fps,
    )


def _write(file: Path, made: Explanation) -> None:
    buffer = io.BytesIO()
    facts = np.array(json.dumps(made._facts()))
    np.savez_compressed(buffer, heat_fhw=made.heat_fhw, curve=made.curve, facts=facts)
    write_atomically(file, buffer.getvalue())


def _read(file: Path) -> Explanation:
    with np.load(file, allow_pickle=False) as stored:
        facts = json.loads(str(stored["facts"]))
        pairs = tuple((first, after) for first, after in facts.pop("frame_map"))
        first, after = facts.pop("best_interval")
        return Explanation(
            **facts,
            heat_fhw=stored["heat_fhw"],
            curve=stored["curve"],
            frame_map=pairs,
            best_interval=(first, after),
        )
