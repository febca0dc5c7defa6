"""What every family's tests ask of its adapter. The objectives themselves stand in the families' tests.

An adapter is taken as `GradientStage` takes it: latents and conditions of a clip, the shared noise, one
call of the denoiser, the loss.
"""

import fnmatch
import json
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from motive import Run
from motive.backbones import load_backbone
from motive.backbones.base import Backbone
from motive.backbones.source import ModelSource, find_model
from motive.gradients.loss import motion_weighted_loss
from motive.gradients.noise import shared_noise
from motive.motion.field import MotionField
from motive.motion.masks import motion_mask, pool_frames, reduce_field

CAPTION = "a ball rolls"
Mutation = Callable[[pytest.MonkeyPatch, Backbone], None]


@dataclass
class Family:
    """A loaded adapter: its VAE, its text encoder and its denoiser are all there."""

    backbone: Backbone
    denoiser: Any
    path: Path
    timestep: int
    caption: str = CAPTION

    def loss(self, frames_fhw3: np.ndarray) -> torch.Tensor:
        """The unmasked loss, by the adapter."""
        backbone, length = self.backbone, self.backbone.default_prompt_length()
        conditions = backbone.encode_video(frames_fhw3) | backbone.encode_text(self.caption, length)
        latents = conditions.pop("latents")
        noise = shared_noise(0, tuple(latents.shape))
        noisy = backbone.add_noise(latents, noise, self.timestep)
        target = backbone.target(latents, noise, self.timestep)
        prediction = backbone.predict(self.denoiser, noisy, self.timestep, conditions, length)
        assert prediction.dtype == torch.float32
        assert prediction.shape == target.shape == latents.shape
        weights = backbone.loss_weights(latents)
        return motion_weighted_loss(
            prediction, target, torch.ones(latents.shape[1:]) if weights is None else weights
        )


def load_family(path: Path, timestep: int | None = None) -> Family:
    backbone = load_backbone(find_model(str(path)), dtype="float32", device="cpu")
    timestep = backbone.default_timestep() if timestep is None else timestep
    backbone.settle((timestep,))
    backbone.require_components()
    backbone.load_vae()
    backbone.load_text_encoder()
    return Family(backbone, backbone.load_denoiser(), path, timestep)


def clip_for(backbone: Backbone, seed: int = 0, size: int | None = None) -> np.ndarray:
    """RGB noise, of the length that the model's folder asks for; its size too, unless there is another."""
    sampler = backbone.default_sampler()
    shape = (sampler.max_frames, size or sampler.height, size or sampler.width, 3)
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def pixels_of(frames_fhw3: np.ndarray) -> torch.Tensor:
    """`(1, 3, F, H, W)` in −1..1, written apart from the adapters'."""
    scaled = torch.from_numpy(frames_fhw3.astype(np.float64) / 255 * 2 - 1).float()
    return torch.stack([scaled[..., c] for c in range(3)])[None]


# --- check 1: as a user's


def check_run(path: Path, clips: Path, out: Path, **settings: Any) -> Run:
    """A whole run on real mp4 files: a finite unit feature for each, none failed."""
    run = Run.create(
        out, clips=str(clips), queries=str(clips), model=str(path),
        **{"compute.device": "cpu", "gradients.dim": 32} | settings,
    )  # fmt: skip
    run.curate()
    assert run.failures() == []
    features = run.features("clip")
    assert len(features.members) == len(list((clips / "clips").glob("*.mp4")))
    assert np.isfinite(features.features_nd).all()
    assert np.allclose(np.linalg.norm(features.features_nd, axis=1), 1, atol=1e-5)
    assert not features.static.any()
    assert run.objective.denoiser == run.plan.backbone.denoiser
    return run


# --- checks 2 and 3: the loss, and what would make it another


def check_loss(family: Family, expected: torch.Tensor, frames_fhw3: np.ndarray) -> None:
    with torch.no_grad():
        loss = family.loss(frames_fhw3).item()
    assert loss == pytest.approx(expected.item(), rel=1e-5)


def check_caught(
    mutation: Mutation, family: Family, expected: torch.Tensor, frames_fhw3: np.ndarray
) -> None:
    """`check_loss` fails for a mutant of the adapter, and does not once that is undone."""
    with pytest.MonkeyPatch.context() as patch:
        mutation(patch, family.backbone)
        with pytest.raises(AssertionError):
            check_loss(family, expected, frames_fhw3)
    check_loss(family, expected, frames_fhw3)


def result(method: str, change: Callable[[Any], Any]) -> Mutation:
    """What `method` gives is changed."""

    def mutate(patch: pytest.MonkeyPatch, backbone: Backbone) -> None:
        original = getattr(backbone, method)
        patch.setattr(backbone, method, lambda *args, **kw: change(original(*args, **kw)))

    return mutate


def encoded(method: str, name: str, change: Callable[[Any], Any]) -> Mutation:
    """The tensor `name` of those that `method` gives is changed."""
    return result(method, lambda tensors: {**tensors, name: change(tensors[name])})


def argument(name: str, change: Callable[[Any], Any]) -> Mutation:
    """The denoiser is called with another `name`."""

    def mutate(patch: pytest.MonkeyPatch, backbone: Backbone) -> None:
        predict = backbone.predict

        def mutant(denoiser: Any, *rest: Any) -> torch.Tensor:
            def call(**kwargs: Any) -> Any:
                return denoiser(**{**kwargs, name: change(kwargs[name])})

            return predict(call, *rest)  # type: ignore[arg-type]

        patch.setattr(backbone, "predict", mutant)

    return mutate


def swapped_noise(patch: pytest.MonkeyPatch, backbone: Backbone) -> None:
    """Noise where the latents belong."""
    original = backbone.add_noise
    patch.setattr(backbone, "add_noise", lambda latents, noise, t: original(noise, latents, t))


# Of flow matching, whatever the model.
FLOW_MUTANTS: dict[str, Mutation] = {
    "the target's sign": result("target", lambda x: -x),
    "the prediction's sign": result("predict", lambda x: -x),
    "noise and latents exchanged": swapped_noise,
    "latent rows and columns exchanged": argument(
        "hidden_states", lambda x: x.transpose(-1, -2).contiguous()
    ),
    "latent frames in reverse": argument("hidden_states", lambda x: x.flip(2)),
}


# --- check 4: every parameter has a gradient


def check_gradients(family: Family, absent: Collection[str] = ()) -> None:
    """Exactly the parameters that the adapter names are left without a gradient.

    absent: patterns for which this model of the family has no parameter.
    """
    denoiser = family.denoiser.requires_grad_(True)
    denoiser.zero_grad(set_to_none=True)
    family.loss(clip_for(family.backbone)).backward()
    without = {
        name for name, p in denoiser.named_parameters() if p.grad is None or not p.grad.any()
    }
    denoiser.zero_grad(set_to_none=True)
    last = str(family.denoiser.config.get("num_layers", 0) - 1)
    patterns = [p.replace("{last}", last) for p in family.backbone.unreached]
    names = [name for name, _ in denoiser.named_parameters()]
    named = {n for n in names for p in patterns if fnmatch.fnmatchcase(n, p)}
    assert without == named
    for pattern in patterns:
        there = bool(fnmatch.filter(names, pattern))
        assert there == (pattern not in absent), pattern


# --- in half precision, and with activations recomputed


def check_precisions(family: Family) -> None:
    """bfloat16 gives nearly the same loss, and its empty denoiser is the loaded one without its numbers."""
    frames_fhw3 = clip_for(family.backbone)
    half = load_backbone(
        find_model(str(family.path)), dtype="bfloat16", text_dtype="bfloat16", device="cpu"
    )
    half.settle((family.timestep,))
    half.load_vae()
    half.load_text_encoder()
    rounded = Family(half, half.load_denoiser(), family.path, family.timestep, family.caption)
    with torch.no_grad():
        assert rounded.loss(frames_fhw3).item() == pytest.approx(
            family.loss(frames_fhw3).item(), rel=0.02
        )
    empty, loaded = (
        [(name, tuple(p.shape), p.dtype) for name, p in network.named_parameters()]
        for network in (half.empty_denoiser(), rounded.denoiser)
    )
    assert empty == loaded
    assert torch.bfloat16 in {dtype for _, _, dtype in loaded}


def check_recomputing(family: Family) -> None:
    """Activations that are recomputed in the backward pass change no gradient."""
    denoiser, frames_fhw3 = family.denoiser.requires_grad_(True), clip_for(family.backbone)

    def gradients() -> dict[str, torch.Tensor]:
        denoiser.zero_grad(set_to_none=True)
        family.loss(frames_fhw3).backward()
        return {n: p.grad for n, p in denoiser.named_parameters() if p.grad is not None}

    kept = gradients()
    denoiser.enable_gradient_checkpointing()
    try:
        again = gradients()
    finally:
        denoiser.disable_gradient_checkpointing()
        denoiser.zero_grad(set_to_none=True)
    assert kept.keys() == again.keys()
    assert all(torch.allclose(kept[n], again[n], rtol=1e-5, atol=1e-7) for n in kept)


# --- check 5: the mask lies on the latents of what moves


def moving_patch(
    backbone: Backbone, latent_frame: int = -1, cells: int = 8
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A textured patch that moves in the frames of one latent frame, on a square of latent cells.

    It lies in a place that no turn and no mirror leaves alone: in rows 0 and 1, columns 4 and 5.
    Returns the clip, the true displacement (F, H, W, 2), and where the patch moves (F, H, W).
    """
    stride = backbone.spatial_stride()
    frames_fhw3 = clip_for(backbone, 1, cells * stride) // 4 + 96
    count, height, width = frames_fhw3.shape[:3]
    frames_fhw3[:] = frames_fhw3[:1]  # nothing moves
    top, left, side = 0, 4 * stride, 2 * stride
    texture = np.random.default_rng(2).integers(0, 256, (side, side, 3)).astype(np.uint8)
    where = np.zeros((count, height, width), bool)
    moves = backbone.frame_map(count)[latent_frame]
    for frame in range(count):
        x = left - sum(1 for f in moves if f <= frame)
        frames_fhw3[frame, top : top + side, x : x + side] = texture
        where[frame, top : top + side, x : x + side] = frame in moves
    displacement = np.zeros((count, height, width, 2), np.float32)
    displacement[where] = (-1, 0)
    return frames_fhw3, displacement, where


def check_mask(family: Family, floor: float = 1e-3, cells: int = 8) -> None:
    """The mask's weight lies where the VAE's latents depend on the pixels that move.

    floor: share of the largest response that is none; more for a VAE that normalises over frames.
    cells: rows and columns of the latents, for a VAE that does not take every size.
    """
    backbone = family.backbone
    frames_fhw3, displacement, where = moving_patch(backbone, cells=cells)
    ones = np.ones(where.shape, np.float32)
    field = MotionField(displacement, ones, ones, "from_previous")
    mask = motion_mask(reduce_field(field, backbone.spatial_stride()), "paper")
    weights_fhw = pool_frames(mask, backbone.frame_map(len(frames_fhw3)))
    changed = frames_fhw3.copy()
    changed[where] = 255 - changed[where]
    with torch.no_grad():
        before, after = (
            backbone.encode_video(frames)["latents"] for frames in (frames_fhw3, changed)
        )
    response_fhw = (after - before).abs().mean(0).numpy()
    assert weights_fhw.shape == response_fhw.shape
    # In time: the first latent frame with weight is the first that depends on those pixels.
    weighty = [bool(w.any()) for w in weights_fhw]
    responding = [bool(r.max() > floor * response_fhw.max()) for r in response_fhw]
    assert weighty == responding
    # In space: the response is centred where the mask is, and not where a mirrored or turned one would be.
    here, response = weights_fhw[-1], response_fhw[-1]
    assert float(np.corrcoef(here.ravel(), response.ravel())[0, 1]) > 0.25
    centre = _centre(np.where(response > floor * response.max(), response, 0) ** 2)
    placements = [np.rot90(m, k) for m in (here, here.T) for k in range(4)]
    distance, *others = (float(np.linalg.norm(_centre(m) - centre)) for m in placements)
    assert distance < min(1.5, *others)


def _centre(map_hw: np.ndarray) -> np.ndarray:
    """Row and column of its centre of mass."""
    return (np.indices(map_hw.shape) * map_hw).sum((1, 2)) / map_hw.sum()


# --- check 6: noise is a prefix in the layout that the model sees


@contextmanager
def calls_noted(family: Family) -> Iterator[list[dict[str, Any]]]:
    """What the denoiser is called with."""
    calls: list[dict[str, Any]] = []
    handle = family.denoiser.register_forward_pre_hook(
        lambda module, args, kwargs: calls.append(kwargs), with_kwargs=True
    )
    try:
        yield calls
    finally:
        handle.remove()


def noise_seen(
    family: Family, shape_cfhw: tuple[int, ...], conditions: dict[str, torch.Tensor]
) -> dict[str, Any]:
    """What the denoiser is called with for latents of zero at timestep 1000, that is for noise alone."""
    backbone, length = family.backbone, family.backbone.default_prompt_length()
    text = backbone.encode_text(family.caption, length)
    noise = shared_noise(0, shape_cfhw)
    noisy = backbone.add_noise(torch.zeros(shape_cfhw), noise, 1000)
    with calls_noted(family) as calls, torch.no_grad():
        backbone.predict(family.denoiser, noisy, 1000, text | conditions, length)
    (call,) = calls
    return call


# --- check 7: the published sizes


def check_published(
    path: Path, model: str, config: dict[str, Any], backbone_class: type[Backbone]
) -> int:
    """The denoiser of a published configuration, on `meta`, has the parameters that the adapter states.

    path: an empty folder. Returns the number of bytes of its weights in the files' own precision.
    """
    backbone = backbone_class(
        ModelSource(model, path, {"_class_name": backbone_class.pipeline_classes[0]}),
        "bfloat16",
        "cpu",
    )
    folder = path / backbone.denoiser
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    parameters = list(backbone.empty_denoiser().parameters())
    assert {p.device.type for p in parameters} == {"meta"}
    assert sum(p.numel() for p in parameters) == backbone_class.published[model]
    return sum(p.numel() * p.element_size() for p in parameters)
