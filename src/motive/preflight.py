"""What is checked before a run is written: bad input is found here, not after hours of tracking."""

from pathlib import Path

from motive.clips.decoding import decode_clip
from motive.clips.sampling import FrameSampler
from motive.errors import ClipError, UserError
from motive.influence.estimated import require_ridge_dim
from motive.influence.estimators import ridge
from motive.plan import Plan
from motive.record import Record
from motive.rows import dataset_entries
from motive.runs.engine import require_engine
from motive.runs.members import Members


def require_sound_settings(plan: Plan, recorded: Record | None) -> None:
    """Check everything that a run's settings ask of its model.

    recorded: of the run, if there is one. The same settings for the same model, already recorded, were
        checked then; so a finished run need not wait for torch and diffusers to be imported.

    Raises UserError for a model that lacks a part, a size that it does not take, a device or a tracker
    that is not there, an objective that it is not trained with, fine-tuned weights that do not fit it, a
    name pattern that fits no parameter, or a projection that cannot be.
    """
    compute = plan.config.compute
    require_engine(compute.engine, compute.address)
    plan.backbone.require_components()
    plan.sampler  # noqa: B018  (refuses wrong ones, as the next)
    plan.draws  # noqa: B018
    if plan.estimator.geometry is ridge:
        require_ridge_dim(plan.objective.feature_length)
    plan.track_stage.fingerprint()  # finds the tracker's weights
    if (
        recorded is not None
        and recorded.objective_id == plan.objective.id
        and recorded.config.compute.device == plan.config.compute.device
    ):
        return
    from motive.backbones.finetuned import empty_network
    from motive.gradients.parameters import trained_parameters
    from motive.gradients.projection import make_projection

    if compute.engine == "local":
        plan.backbone.device  # noqa: B018  (refuses one that is not there)
    else:  # the workers' machines must have it
        from motive.runs.ray_cluster import require_room

        require_room(compute.address, plan.backbone.resources)
    wanted = plan.config.gradients
    network = empty_network(plan.backbone, plan.finetuned)  # refuses files that do not fit
    chosen = trained_parameters(network, plan.parameters, plan.objective.train)
    shapes = {name: tuple(parameter.shape) for name, parameter in chosen.items()}
    make_projection(wanted.projection, wanted.dim, plan.config.seed, shapes)


def require_readable_datasets(plan: Plan, media: Path) -> None:
    """Check that both datasets can be read and that one query decodes.

    media: as of `motive.rows.dataset_entries`.

    Raises UserError otherwise.
    """
    # Queries first: reading a dataset of tar files unpacks it, and clips are many.
    _one_must_decode(dataset_entries(plan.config, "query", media), plan.sampler)
    dataset_entries(plan.config, "clip", media)


def _one_must_decode(queries: Members, sampler: FrameSampler) -> None:
    reason = "the dataset names none"
    for query in queries:
        try:
            if query.usable:
                decode_clip(Path(query.path), sampler)
                return
            reason = f"{query.file_name}: {query.reason}"
        except (ClipError, OSError) as error:
            reason = f"{query.file_name}: {error}"
    raise UserError(
        f"none of the {len(queries)} queries can be used ({reason}): "
        "give --queries with videos that play"
    )
