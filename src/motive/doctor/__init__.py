"""What attribution with a model costs, before any of it is paid: `motive doctor`.

Counts come from the model's own configuration on the `meta` device, so that a model that is too large for
this machine, or whose weights are not there, is examined all the same. Seconds are estimated from a short
calibration of this device. A small model of the same classes shows whether gradients in batches are those
of clips alone.
"""

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from motive.errors import UserError
from motive.plan import MOMENT_DRAWS, Plan
from motive.runs.config import RunConfig

if TYPE_CHECKING:
    from motive.doctor.counting import ForwardCost
    from motive.doctor.machine import Speed

# Of the device's memory: the rest is Python's, torch's and other programs'.
_USABLE_SHARE = 0.9


@dataclass(frozen=True)
class Memory:
    """Bytes at the peak of the gradient stage, by part.

    weights: by dtype, counted. activations: kept for the backward pass, counted. working: gradients of
    activations while they are computed, modelled as twice the largest activation. gradient: the largest
    parameter's, counted. projection: state and sums, as allocated. second_moments: those that the
    estimator scales gradients by, 4 bytes a parameter, and the largest gradient scaled; counted.
    """

    weights: dict[str, int]
    activations: int
    working: int
    gradient: int
    projection: int
    second_moments: int = 0

    @property
    def total(self) -> int:
        parts = (self.activations, self.working, self.gradient, self.projection)
        return self.second_moments + sum(self.weights.values()) + sum(parts)


@dataclass(frozen=True)
class Diagnosis:
    """Everything that `motive doctor` says. Bytes, seconds and floating point operations.

    missing: sentences on what the model's folder lacks; empty when all is there.
    flop_forward, flop_per_clip: of one forward pass, attention included; and of forward and backward of
        all timesteps, activations computed again where `recomputes`.
    estimator: by name. query_passes: forward and backward passes of a query, a clip's being as many as
        there are timesteps. moments_passes: of each of up to 256 clips before, for second moments.
    other_networks: weights of the networks that are loaded before the denoiser, each alone.
    seconds_per_clip: an estimate of the gradient stage; None without a calibration.
    hours: of `clips` clips.
    batch_difference: how far a clip's gradient moves, relative to its norm, with another clip in its
        batch, on this device in this dtype; None where it could not be tried.
    advice: what to change, in sentences.
    """

    model: str
    pipeline: str
    family: str
    device: str
    dtype: str
    missing: list[str]
    frames: int
    height: int
    width: int
    timesteps: list[float]
    latent_cells: int
    tokens: int
    parameters: int
    tensors: int
    chosen_parameters: int
    flop_forward: int
    flop_attention: int
    flop_per_clip: int
    recomputes: bool
    memory: Memory
    other_networks: dict[str, int]
    memory_there: int
    fits: bool
    clips: int
    seconds_per_clip: float | None
    hours: float | None
    batch_difference: float | None
    estimator: str = "paper"
    query_passes: int = 1
    moments_passes: int = 0
    advice: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The fields, with the memory's total."""
        return {**asdict(self), "memory": {**asdict(self.memory), "total": self.memory.total}}


def examine(config: RunConfig, *, clips: int = 1000, calibrate: bool = True) -> Diagnosis:
    """Examine the model of a configuration; its datasets are not looked at.

    clips: that the hours are projected for.
    calibrate: whether to run anything on the device, for a few seconds.

    Raises UserError for a model, a setting or a device that is not there.
    """
    from motive.backbones import load_backbone
    from motive.backbones.finetuned import empty_network
    from motive.backbones.source import find_model
    from motive.doctor.counting import count_forward
    from motive.doctor.machine import memory_bytes
    from motive.gradients.parameters import trained_parameters
    from motive.gradients.projection import make_projection
    from motive.gradients.stage import CHECKPOINT_CELLS

    plan = Plan(Path(), config, source=find_model(config.model, weights=False))
    backbone, sampler, timesteps = plan.backbone, plan.sampler, plan.timesteps
    frames, height, width = sampler.max_frames, sampler.height, sampler.width
    empty = load_backbone(
        plan.source,
        dtype=backbone.dtype_name,
        text_dtype=backbone.text_dtype_name,
        device="meta",
    )
    empty.settle(timesteps)
    denoiser = empty_network(empty, plan.finetuned)
    everything = list(denoiser.parameters())
    chosen = trained_parameters(denoiser, plan.parameters, plan.finetuned.train)
    prompt_length = empty.default_prompt_length()
    latents, conditions = empty.example_inputs(frames, height, width, prompt_length)
    cost = count_forward(
        denoiser, lambda d: empty.predict(d, latents, timesteps[0], conditions, prompt_length)
    )
    cells = latents[0].numel()
    can_recompute = bool(getattr(denoiser, "_supports_gradient_checkpointing", False))
    recomputes = can_recompute and cells >= CHECKPOINT_CELLS
    kind, dim = config.gradients.projection, config.gradients.dim
    shapes = {name: tuple(p.shape) for name, p in chosen.items()}
    projection = make_projection(kind, dim, config.seed, shapes)
    weights: dict[str, int] = {}
    for parameter in everything:
        name = str(parameter.dtype).removeprefix("torch.")
        weights[name] = weights.get(name, 0) + parameter.numel() * parameter.itemsize
    memory = Memory(
        weights=weights,
        activations=cost.recomputed_bytes if recomputes else cost.kept_bytes,
        working=2 * cost.largest_bytes,
        gradient=max(p.numel() * p.itemsize for p in chosen.values()),
        projection=int(getattr(projection, "nbytes", 0)),
        second_moments=_second_moments(chosen) if plan.estimator.preconditioned else 0,
    )
    there = memory_bytes(backbone.device)
    passes = len(timesteps) * (
        4 if recomputes else 3
    )  # the backward pass is two forward passes' work
    speed = _speed(plan, denoiser, cost) if calibrate else None
    seconds = None
    if speed is not None:
        seconds = passes * speed.seconds(cost.linear_flop, cost.attention_flop)
    others = _other_networks(plan, empty.denoiser)
    missing = _missing(plan)
    fits = memory.total <= _USABLE_SHARE * there

    def total_of(new_cells: int) -> float:
        """About, of a clip of so many latent cells: activations go with the cells."""
        again = can_recompute and new_cells >= CHECKPOINT_CELLS
        kept = (cost.recomputed_bytes if again else cost.kept_bytes) + memory.working
        fixed = memory.total - memory.activations - memory.working
        return fixed + kept * new_cells / cells

    advice = _advice(plan, memory, others, there, fits, total_of)
    return Diagnosis(
        model=config.model,
        pipeline=plan.source.pipeline_class,
        family=backbone.family,
        device=str(backbone.device),
        dtype=backbone.dtype_name,
        missing=missing,
        frames=frames,
        height=height,
        width=width,
        timesteps=list(timesteps),
        latent_cells=cells,
        tokens=cost.tokens,
        parameters=sum(p.numel() for p in everything),
        tensors=len(everything),
        chosen_parameters=sum(math.prod(shape) for shape in shapes.values()),
        flop_forward=cost.flop,
        flop_attention=cost.attention_flop,
        flop_per_clip=passes * cost.flop,
        recomputes=recomputes,
        memory=memory,
        other_networks=others,
        memory_there=there,
        fits=fits,
        clips=clips,
        seconds_per_clip=seconds,
        hours=None if seconds is None else seconds * clips / 3600,
        batch_difference=_batch_difference(plan) if calibrate else None,
        estimator=plan.estimator.name,
        query_passes=len(timesteps) * (plan.estimator.queries.draws // plan.estimator.clips.draws),
        moments_passes=MOMENT_DRAWS if plan.estimator.preconditioned else 0,
        advice=advice,
    )


def _second_moments(parameters: dict[str, Any]) -> int:
    """Bytes of the scale, float32, and of the largest gradient that was multiplied by it."""
    sizes = [4 * parameter.numel() for parameter in parameters.values()]
    return sum(sizes) + max(sizes)


def _speed(plan: Plan, denoiser: Any, cost: "ForwardCost") -> "Speed | None":
    """At the shapes of the model's own blocks."""
    import torch

    from motive.doctor.counting import repeated_blocks
    from motive.doctor.machine import calibrate

    blocks = repeated_blocks(denoiser)
    layers = [m for b in blocks for m in b.modules() if isinstance(m, torch.nn.Linear)]
    if not layers:
        return None
    largest = max(layers, key=lambda layer: layer.weight.numel())
    width = min(largest.in_features, largest.out_features)
    heads = denoiser.config.get("num_attention_heads")
    heads = heads if isinstance(heads, int) else max(1, width // 128)  # a U-Net has several
    backbone = plan.backbone
    return calibrate(
        backbone.device,
        backbone.dtype,
        tokens=cost.tokens,
        width=width,
        inner=max(largest.in_features, largest.out_features),
        heads=heads if width % heads == 0 else 1,
    )


# What makes a model of any family small, where its configuration has such a field.
_SMALL = {"num_layers": 2, "num_attention_heads": 2, "ffn_dim": 256}


def _batch_difference(plan: Plan) -> float | None:
    """Tried with a small model of the denoiser's class, with random weights."""
    import torch

    from motive.doctor.machine import batch_difference
    from motive.gradients.per_sample import BatchError
    from motive.gradients.together import predict_together

    backbone = plan.backbone
    empty = backbone.empty_denoiser()
    cls, whole = type(empty), dict(getattr(empty, "config", {}))
    config = plan.source.config(backbone.denoiser)
    small = {k: min(v, whole[k]) for k, v in _SMALL.items() if isinstance(whole.get(k), int)}
    if not small:
        return None  # a U-Net, say, which would be as large as it is
    rows, columns = backbone.size_multiples()
    sampler = plan.sampler
    frames = sampler.length_offset + sampler.length_step
    generator = torch.Generator().manual_seed(0)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            denoiser: torch.nn.Module = cls.from_config({**config, **small})  # type: ignore[attr-defined]
        # The parts that a loaded model keeps in float32 are cast too: the question is of the batch.
        torch.nn.Module.to(denoiser, backbone.device, backbone.dtype).eval()
        length = 16
        inputs = []
        for _ in range(2):
            zeros, conditions = backbone.example_inputs(frames, 4 * rows, 4 * columns, length)
            drawn = {
                name: torch.ones(shape)
                if "mask" in name
                else torch.randn(shape, generator=generator)
                for name, shape in ((n, tensor.shape) for n, tensor in conditions.items())
            }
            inputs.append((torch.randn(zeros.shape, generator=generator), drawn))

        def predict(clip: int, network: torch.nn.Module) -> torch.Tensor:
            latents, drawn = inputs[clip]
            return backbone.predict(network, latents, plan.timesteps[0], drawn, length)

        return batch_difference(
            denoiser,
            lambda network: predict(0, network),
            lambda network: predict_together(
                network, [lambda n: predict(0, n), lambda n: predict(1, n)]
            )[0],
        )
    except (BatchError, RuntimeError, TypeError, ValueError):
        return None


def _other_networks(plan: Plan, denoiser: str) -> dict[str, int]:
    """Bytes of the weights of the networks beside the denoiser, from their configurations."""
    import diffusers
    import torch
    import transformers

    found: dict[str, int] = {}
    for component, kind in plan.backbone.components.items():
        entry, config = plan.source.index.get(component), plan.source.config(component)
        if kind != "network" or component == denoiser or not config:
            continue
        if not (isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], str)):
            continue
        itemsize = 4
        # A component of one pipeline alone is listed under that pipeline's own package.
        own = getattr(diffusers.pipelines, str(entry[0]), None)
        try:
            with torch.device("meta"):
                if entry[0] == "diffusers" or own is not None:
                    cls = getattr(own or diffusers, entry[1])
                    model = cls.from_config(config)
                elif entry[0] == "transformers":
                    folder = plan.source.path / component
                    settings = transformers.AutoConfig.from_pretrained(folder)
                    model = getattr(transformers, entry[1])(settings)
                    itemsize = plan.backbone.text_dtype().itemsize
                else:
                    continue
        except (AttributeError, TypeError, ValueError, OSError, LookupError):
            continue  # it is said by what loads it
        found[component] = itemsize * sum(p.numel() for p in model.parameters())
    return found


def _missing(plan: Plan) -> list[str]:
    missing = []
    for component, kind in plan.backbone.components.items():
        unnamed = component in plan.backbone.optional and not plan.source.names(component)
        if unnamed and component != plan.backbone.denoiser:
            continue
        try:
            plan.source.require(component, kind)
        except UserError as error:
            missing.append(str(error))
    return missing


def _advice(
    plan: Plan,
    memory: Memory,
    others: dict[str, int],
    there: int,
    fits: bool,
    total_of: Any,
) -> list[str]:
    usable = _USABLE_SHARE * there
    advice = []
    for component, size in others.items():
        if size > usable:
            advice.append(
                f"the {component} alone has {gigabytes(size)} of weights: run motive encode on a "
                "machine with more memory, and the other stages here"
            )
    if fits:
        return advice
    backbone, sampler = plan.backbone, plan.sampler
    stride = backbone.spatial_stride()

    def cells(frames: int, height: int, width: int) -> int:
        return len(backbone.frame_map(frames)) * (height // stride) * (width // stride)

    if backbone.dtype_name == "float32" and memory.total / 2 <= usable:
        advice.append(f"--dtype bfloat16 needs about {gigabytes(memory.total // 2)}")
    lengths = range(sampler.max_frames - sampler.length_step, 0, -sampler.length_step)
    for frames in lengths:
        need = total_of(cells(frames, sampler.height, sampler.width))
        if need <= usable:
            advice.append(f"--frames {frames} needs about {gigabytes(need)}")
            break
    rows, columns = backbone.size_multiples()
    for percent in range(95, 5, -5):
        height = max(rows, sampler.height * percent // 100 // rows * rows)
        width = max(columns, sampler.width * percent // 100 // columns * columns)
        need = total_of(cells(sampler.max_frames, height, width))
        if need <= usable:
            advice.append(f"--size {height}x{width} needs about {gigabytes(need)}")
            break
    if not advice:
        advice.append(
            f"no length or size makes it fit: the weights alone are "
            f"{gigabytes(sum(memory.weights.values()))}, so use a machine with more memory or a "
            "smaller model"
        )
    return advice


def gigabytes(size: float) -> str:
    """Bytes in GB of 10⁹, or MB below one."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
