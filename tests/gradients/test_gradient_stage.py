"""The gradient stage against a plain implementation: diffusers, one autograd call, one dot product."""

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, WanTransformer3DModel

from motive.backbones import load_backbone
from motive.backbones.encode import as_row
from motive.backbones.source import find_model
from motive.errors import UserError
from motive.gradients.noise import shared_noise
from motive.gradients.objective import Objective
from motive.gradients.stage import GradientStage, average_of_units
from motive.motion.field import MotionField
from motive.motion.masks import reduce_field
from motive.motion.track import row_of
from motive.runs.tables import Row

FRAMES, LATENT_SHAPE = 9, (16, 3, 4, 4)
OBJECTIVE = Objective(
    model="m", sampler="s", tracker="dis", mask="paper", mask_trusted=False, static_below=0.1,
    timesteps=(751,), noise_seed=5, prompt_length=24, parameters="*", length_factor=True,
    projection="identity", dim=1, projection_seed=0, dtype="float32",
)  # fmt: skip


class Clip:
    """Latents, text and true motion of an invented clip, and the row that the stage gets of it."""

    def __init__(self, seed: int, *, moving: bool = True) -> None:
        rng = np.random.default_rng(seed)
        self.latents = rng.normal(size=LATENT_SHAPE).astype(np.float32)
        self.text = rng.normal(size=(6, 16)).astype(np.float32)
        self.displacement = np.zeros((FRAMES, 32, 32, 2), np.float32)
        if moving:
            self.displacement[1:, 8:24, 8:24] = rng.normal(0, 3, (FRAMES - 1, 16, 16, 2))
        self.trust = rng.uniform(size=(FRAMES, 32, 32)).astype(np.float32)

    def row(self) -> Row:
        ones = np.ones_like(self.trust)
        maps = reduce_field(MotionField(self.displacement, ones, self.trust, "from_previous"), 8)
        return {
            "key": "clip:caption", "clip_id": "clip", "caption_id": "caption", "frames": FRAMES,
            "motion": row_of(maps),
            "video": as_row({"latents": torch.from_numpy(self.latents)}),
            "text": as_row({"text": torch.from_numpy(self.text)}),
        }  # fmt: skip

    def mask(self) -> np.ndarray:
        """W̃ of the paper, from the displacement at full resolution."""
        magnitude = np.sqrt((self.displacement.astype(float) ** 2).sum(-1))
        weight = (magnitude - magnitude.min()) / (magnitude.max() - magnitude.min() + 1e-6)
        small = np.stack([cv2.resize(w, (4, 4), interpolation=cv2.INTER_LINEAR) for w in weight])
        return np.stack([small[0], small[1:5].mean(0), small[5:9].mean(0)])


@pytest.fixture(scope="module")
def transformer(small_wan: Path) -> WanTransformer3DModel:
    return WanTransformer3DModel.from_pretrained(small_wan / "transformer").eval()


def stage_of(small_wan: Path, **changes: object) -> GradientStage:
    backbone = load_backbone(find_model(str(small_wan)), dtype="float32", device="cpu")
    stage = GradientStage(backbone, dataclasses.replace(OBJECTIVE, **changes))  # type: ignore[arg-type]
    stage.open()
    return stage


@pytest.fixture(scope="module")
def stage(small_wan: Path) -> GradientStage:
    return stage_of(small_wan)


def plain_gradient(
    model: WanTransformer3DModel, clip: Clip, *, mask: np.ndarray | None = None,
    timestep: int = 751, draw: int = 0, factor: float = 1 / FRAMES, names: str = "",
) -> tuple[np.ndarray, float]:  # fmt: skip
    """Gradient and loss with nothing of ours but the noise."""
    latents = torch.from_numpy(clip.latents)
    noise = shared_noise(5, LATENT_SHAPE, draw)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=1.0)
    noisy = scheduler.scale_noise(latents[None], torch.tensor([float(timestep)]), noise[None])
    prompt = torch.cat([torch.from_numpy(clip.text), torch.zeros(18, 16)])[None]
    prediction = model(noisy, torch.tensor([timestep]), prompt).sample[0]
    weight = torch.from_numpy(clip.mask() if mask is None else mask).float()
    loss = factor * (weight[None] * (prediction - (noise - latents)) ** 2).sum() / noise.numel()
    parameters = {n: p for n, p in model.named_parameters() if names in n}
    gradients = torch.autograd.grad(loss, list(parameters.values()))
    by_name = dict(zip(parameters, gradients, strict=True))
    return np.concatenate([by_name[n].flatten().numpy() for n in sorted(by_name)]), loss.item()


def test_the_feature_is_the_plain_gradient_normalised(
    stage: GradientStage, transformer: WanTransformer3DModel
) -> None:
    for seed in range(3):
        row = stage.process(Clip(seed).row())
        gradient, loss = plain_gradient(transformer, Clip(seed))
        norm = float(np.linalg.norm(gradient.astype(float)))
        assert row["loss"] == pytest.approx(loss, rel=1e-5)
        assert row["norm"] == pytest.approx(norm, rel=1e-5)
        assert np.abs(row["feature"] - gradient / norm).max() < 1e-6
        assert np.linalg.norm(row["feature"]) == pytest.approx(1, rel=1e-6)
        assert (row["clip_id"], row["caption_id"], row["static"]) == ("clip", "caption", False)


def test_scores_are_those_of_a_plain_implementation(
    stage: GradientStage, transformer: WanTransformer3DModel
) -> None:
    features = [stage.process(Clip(seed).row())["feature"] for seed in range(4)]
    plain = [plain_gradient(transformer, Clip(seed))[0].astype(float) for seed in range(4)]
    scores = np.array([[float(np.dot(a, b)) for a in features] for b in features])
    expected = np.array(
        [[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a in plain] for b in plain]
    )
    assert np.abs(scores - expected).max() < 1e-5
    assert np.ptp(expected[~np.eye(4, dtype=bool)]) > 1e-3


def test_without_a_mask_it_is_the_plain_loss(
    small_wan: Path, transformer: WanTransformer3DModel
) -> None:
    row = stage_of(small_wan, mask="none").process(Clip(0).row())
    gradient, loss = plain_gradient(transformer, Clip(0), mask=np.ones((3, 4, 4)))
    assert row["loss"] == pytest.approx(loss, rel=1e-5)
    assert np.abs(row["feature"] - gradient / np.linalg.norm(gradient)).max() < 1e-6


def test_the_length_factor_is_in_the_norm_and_cancels_in_the_feature(
    small_wan: Path, stage: GradientStage
) -> None:
    without = stage_of(small_wan, length_factor=False).process(Clip(0).row())
    with_factor = stage.process(Clip(0).row())
    assert without["norm"] == pytest.approx(FRAMES * with_factor["norm"], rel=1e-5)
    assert np.abs(without["feature"] - with_factor["feature"]).max() < 1e-6


def test_several_timesteps_are_averaged_as_units(
    small_wan: Path, transformer: WanTransformer3DModel
) -> None:
    row = stage_of(small_wan, timesteps=(900, 300)).process(Clip(1).row())
    gradients = [
        plain_gradient(transformer, Clip(1), timestep=t, draw=i)[0].astype(float)
        for i, t in enumerate((900, 300))
    ]
    norms = [np.linalg.norm(g) for g in gradients]
    mean = sum(g / n for g, n in zip(gradients, norms, strict=True)) / 2
    assert np.abs(row["feature"] - mean / np.linalg.norm(mean)).max() < 1e-6
    assert row["norm"] == pytest.approx(np.mean(norms), rel=1e-5)


def test_a_subset_of_the_parameters(small_wan: Path, transformer: WanTransformer3DModel) -> None:
    row = stage_of(small_wan, parameters="blocks.1.*").process(Clip(0).row())
    gradient, _ = plain_gradient(transformer, Clip(0), names="blocks.1.")
    assert np.abs(row["feature"] - gradient / np.linalg.norm(gradient)).max() < 1e-6
    with pytest.raises(UserError, match="no parameter is called like 'nothing'"):
        stage_of(small_wan, parameters="nothing")


def test_trust_weighs_the_mask(small_wan: Path, transformer: WanTransformer3DModel) -> None:
    row = stage_of(small_wan, mask_trusted=True).process(Clip(0).row())
    clip = Clip(0)
    magnitude = np.sqrt((clip.displacement.astype(float) ** 2).sum(-1))
    weight = magnitude / (magnitude.max() + 1e-6)

    def small(maps: np.ndarray) -> np.ndarray:
        return np.stack([cv2.resize(m, (4, 4), interpolation=cv2.INTER_LINEAR) for m in maps])

    both = small(weight) * small(clip.trust)
    mask = np.stack([both[0], both[1:5].mean(0), both[5:9].mean(0)])
    gradient, _ = plain_gradient(transformer, clip, mask=mask)
    assert np.abs(row["feature"] - gradient / np.linalg.norm(gradient)).max() < 1e-6


def test_a_static_clip_has_no_direction(small_wan: Path, stage: GradientStage) -> None:
    row = stage.process(Clip(0, moving=False).row())
    assert row["static"] is True
    assert not row["feature"].any()
    assert (row["norm"], row["loss"]) == (0, 0)
    plain = stage_of(small_wan, mask="none").process(Clip(0, moving=False).row())
    assert plain["static"] is False
    assert np.linalg.norm(plain["feature"]) == pytest.approx(1, rel=1e-6)


def test_motion_too_small_for_the_latent_grid_counts_as_none(stage: GradientStage) -> None:
    # Of each cell of 8 × 8 pixels the bilinear reduction reads the four in the middle.
    clip = Clip(0, moving=False)
    clip.displacement[1:, 16:19, 16:19] = (5, 0)
    row = stage.process(clip.row())
    assert row["static"] is True
    assert not row["feature"].any()


def test_recomputed_activations_give_the_same_gradient(
    stage: GradientStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = stage.process(Clip(1).row())
    calls: list[bool] = []
    monkeypatch.setattr("motive.gradients.stage.CHECKPOINT_CELLS", 1)
    block = stage._denoiser.blocks[0]
    handle = block.register_forward_pre_hook(lambda *_: calls.append(True))
    recomputed = stage.process(Clip(1).row())
    handle.remove()
    assert len(calls) == 2  # once forward, once in the backward pass
    assert np.array_equal(recomputed["feature"], kept["feature"])
    assert (recomputed["norm"], recomputed["loss"]) == (kept["norm"], kept["loss"])
    # A short clip after a long one keeps its activations again.
    monkeypatch.undo()
    handle = block.register_forward_pre_hook(lambda *_: calls.append(True))
    stage.process(Clip(1).row())
    handle.remove()
    assert len(calls) == 3


def test_features_do_not_depend_on_the_clips_before(stage: GradientStage) -> None:
    alone = stage.process(Clip(3).row())
    for seed in (0, 1):
        stage.process(Clip(seed).row())
    stage.process(Clip(0, moving=False).row())
    again = stage.process(Clip(3).row())
    assert np.array_equal(alone["feature"], again["feature"])
    assert (alone["norm"], alone["loss"]) == (again["norm"], again["loss"])


def test_latents_that_are_not_finite_fail_the_clip_and_not_the_next(stage: GradientStage) -> None:
    before = stage.process(Clip(2).row())
    row = Clip(0).row()
    row["video"]["values"][0][7] = np.nan
    outcome = stage.attempt(row)
    assert "the loss is nan" in getattr(outcome, "reason", "")
    assert np.array_equal(stage.process(Clip(2).row())["feature"], before["feature"])


def test_fastfood_features_are_unit_vectors_of_the_asked_length(small_wan: Path) -> None:
    fastfood = stage_of(small_wan, projection="fastfood", dim=64)
    row = fastfood.process(Clip(0).row())
    assert row["feature"].shape == (64,)
    assert row["feature"].dtype == np.float32
    assert np.linalg.norm(row["feature"]) == pytest.approx(1, rel=1e-6)
    assert (
        fastfood.fingerprint() == dataclasses.replace(OBJECTIVE, projection="fastfood", dim=64).id
    )


def test_the_average_of_units() -> None:
    a, b, zero = np.array([3.0, 0.0]), np.array([0.0, 0.5]), np.zeros(2)
    mean, norm = average_of_units([a, b])
    assert np.allclose(mean, [0.5**0.5, 0.5**0.5])
    assert norm == pytest.approx(1.75)
    mean, norm = average_of_units([a])
    assert np.allclose(mean, [1, 0])
    assert norm == 3
    mean, norm = average_of_units([zero])
    assert not mean.any()
    assert norm == 0
    mean, norm = average_of_units([a, zero])
    assert np.allclose(mean, [1, 0])
    assert norm == 1.5
    mean, _ = average_of_units([a, -a])  # they cancel: no direction, and no division by zero
    assert not mean.any()


def test_checkpointing_changes_no_bit(
    small_wan: Path, zoo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from motive import Run
    from motive.gradients import stage as stage_module

    features = {}
    for name, cells in (("kept", 10**9), ("recomputed", 1)):
        monkeypatch.setattr(stage_module, "CHECKPOINT_CELLS", cells)
        run = Run.create(tmp_path / name, clips=str(zoo), queries=str(zoo), model=str(small_wan))
        for stage in ("ingest", "track", "encode", "gradients"):
            getattr(run, stage)()
        features[name] = run.features("clip").features_nd
    assert np.array_equal(features["kept"], features["recomputed"])
