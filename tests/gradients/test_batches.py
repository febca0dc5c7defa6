"""Batches in the gradient stage: the same rows as one by one, and one by one wherever they are not."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from motive.backbones import load_backbone
from motive.backbones.encode import as_row
from motive.backbones.source import find_model
from motive.gradients import stage as stage_module
from motive.gradients.objective import Objective
from motive.gradients.stage import GradientStage
from motive.motion.field import MotionField
from motive.motion.masks import reduce_field
from motive.motion.track import row_of
from motive.runs.stage import Failure
from motive.runs.tables import Row

OBJECTIVE = Objective(
    model="m", sampler="s", tracker="dis", mask="paper", mask_trusted=False, static_below=0.1,
    timesteps=(751,), noise_seed=5, prompt_length=24, parameters="*", length_factor=True,
    projection="fastfood", dim=64, projection_seed=0, dtype="float32",
)  # fmt: skip


def clip(seed: int, frames: int = 9, *, moving: bool = True) -> Row:
    rng = np.random.default_rng(seed)
    moved = rng.normal(0, 3 * moving, (frames, 32, 32, 2)).astype(np.float32)
    ones = np.ones((frames, 32, 32), np.float32)
    shape = (16, 1 + frames // 4, 4, 4)
    return {
        "key": f"{seed}:c", "clip_id": str(seed), "caption_id": "c", "frames": frames,
        "motion": row_of(reduce_field(MotionField(moved, ones, ones, "from_previous"), 8)),
        "video": as_row({"latents": torch.from_numpy(rng.normal(size=shape).astype(np.float32))}),
        "text": as_row({"text": torch.from_numpy(rng.normal(size=(4 + seed, 16)))}),
    }  # fmt: skip


def opened(small_wan: Path, batch: int | None = None, **changes: Any) -> GradientStage:
    dtype = changes.pop("dtype", "float32")
    backbone = load_backbone(find_model(str(small_wan)), dtype=dtype, device="cpu")
    stage = GradientStage(backbone, dataclasses.replace(OBJECTIVE, **changes), batch)
    stage.open()
    return stage


@pytest.fixture(scope="module")
def alone(small_wan: Path) -> list[Row]:
    stage = opened(small_wan, batch=1)
    return [stage.process(clip(seed)) for seed in range(6)]


def together(stage: GradientStage, rows: list[Row]) -> list[Row | Failure]:
    return stage.attempt_batch([(row, row) for row in rows])


def assert_same(found: Row | Failure, expected: Row) -> None:
    assert not isinstance(found, Failure), found.reason
    error = np.linalg.norm(
        found["norm"] * found["feature"].astype(float)
        - expected["norm"] * expected["feature"].astype(float)
    )
    assert error <= 1e-5 * expected["norm"]
    assert found["loss"] == pytest.approx(expected["loss"], rel=1e-5)
    for name in ("clip_id", "caption_id", "static"):
        assert found[name] == expected[name]


@pytest.fixture
def model_calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The clips of each call of the model."""
    calls: list[int] = []
    call = stage_module.predict_together

    def counting(denoiser: Any, predictions: Any) -> Any:
        calls.append(len(predictions))
        return call(denoiser, predictions)

    monkeypatch.setattr(stage_module, "predict_together", counting)
    return calls


@pytest.mark.parametrize("members", [(0, 1), (5, 2, 0, 3), (0, 1, 2, 3, 4, 5)])
def test_rows_do_not_depend_on_the_batch(
    small_wan: Path, alone: list[Row], model_calls: list[int], members: tuple[int, ...]
) -> None:
    stage = opened(small_wan)
    found = together(stage, [clip(seed) for seed in members])
    assert model_calls == [len(members)]
    for row, seed in zip(found, members, strict=True):
        assert_same(row, alone[seed])
        assert not isinstance(row, Failure)
        assert row["key"] == f"{seed}:c"
        assert row["made_by"] == stage.fingerprint()
    assert stage.notes == []


def test_several_timesteps(small_wan: Path) -> None:
    changes = {"timesteps": (900, 300), "projection": "identity"}
    one_by_one = opened(small_wan, batch=1, **changes)
    stage = opened(small_wan, **changes)
    rows = [clip(0), clip(1)]
    for found, row in zip(together(stage, rows), rows, strict=True):
        assert_same(found, one_by_one.process(row))
    assert stage.notes == []


def test_a_bad_clip_fails_alone_and_a_static_one_is_zero(small_wan: Path, alone: list[Row]) -> None:
    stage = opened(small_wan)
    rows = [clip(0), clip(1), clip(2), clip(3, moving=False), clip(4)]
    rows[1]["video"]["values"][0][7] = np.nan
    del rows[4]["motion"]
    found = together(stage, rows)
    assert_same(found[0], alone[0])
    assert_same(found[2], alone[2])
    assert isinstance(found[1], Failure)
    assert (found[1].key, found[1].reason) == ("1:c", "the loss is nan")
    assert not isinstance(found[3], Failure)
    assert found[3]["static"] is True
    assert (found[3]["norm"], found[3]["feature"].any()) == (0, False)
    assert isinstance(found[4], Failure)
    assert "KeyError" in found[4].reason
    assert stage.notes == []


def test_clips_of_one_shape_share_a_batch_that_fits(
    small_wan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = opened(small_wan)
    assert stage.batch_of(clip(0))[0] == stage.batch_of(clip(1))[0]
    assert stage.batch_of(clip(0))[0] != stage.batch_of(clip(0, frames=5))[0]
    assert stage.batch_of(clip(0))[1] == stage_module.BATCH_CLIPS
    monkeypatch.setattr(stage_module, "BATCH_CELLS", 48 * 5)  # a clip of 9 frames has 3 x 4 x 4
    assert stage.batch_of(clip(0))[1] == 5
    monkeypatch.setattr(stage_module, "BATCH_GRADIENT_BYTES", 3 * stage._largest)
    assert stage.batch_of(clip(0))[1] == 3
    monkeypatch.setattr(stage_module, "BATCH_CELLS", 40)
    assert stage.batch_of(clip(0))[1] == 1
    assert opened(small_wan, batch=7).batch_of(clip(0))[1] == 7
    assert opened(small_wan, batch=1).batch_of(clip(0)) == (None, 1)


def test_the_batch_is_no_part_of_the_objective(small_wan: Path) -> None:
    assert opened(small_wan, batch=4).fingerprint() == opened(small_wan).fingerprint()


def test_a_model_that_cannot_be_batched_goes_one_by_one_and_says_so(
    small_wan: Path, alone: list[Row], model_calls: list[int]
) -> None:
    stage = opened(small_wan)
    layer = stage._denoiser.blocks[0].ffn.net[2]
    layer.forward = lambda x: x @ layer.weight.t() + layer.bias
    rows = [clip(seed) for seed in range(3)]
    for _ in range(2):
        for found, expected in zip(together(stage, rows), alone, strict=False):
            assert_same(found, expected)
    assert model_calls == [3]  # it is not tried again
    assert stage.notes == ["one clip at a time (blocks.0.ffn.net.2.weight is used in t)"]
    assert stage.batch_of(clip(0))[1] == 1


def test_clips_that_mix_in_the_model_are_found_out(small_wan: Path) -> None:
    stage = opened(small_wan)
    layer = stage._denoiser.blocks[1].ffn.net[2]

    def normalised_over_the_batch(x: torch.Tensor) -> torch.Tensor:
        return F.linear(x / x.detach().std(), layer.weight, layer.bias)

    layer.forward = normalised_over_the_batch
    rows = [clip(seed) for seed in range(3)]
    expected = [stage.process(row) for row in rows]
    for found, row in zip(together(stage, rows), expected, strict=True):
        assert_same(found, row)
    assert len(stage.notes) == 1
    assert stage.notes[0].startswith("one clip at a time (in a batch, a feature is off by")


def test_too_little_memory_for_a_batch_is_enough_for_clips(
    small_wan: Path, alone: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhausted(*_: Any) -> Any:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(stage_module, "predict_together", exhausted)
    found = together(opened(small_wan), [clip(0), clip(1)])
    assert_same(found[0], alone[0])
    assert_same(found[1], alone[1])


def test_a_model_in_bfloat16_goes_one_by_one_and_says_so(small_wan: Path) -> None:
    stage = opened(small_wan, dtype="bfloat16")
    assert stage.batch_of(clip(0)) == (None, 1)
    assert stage.notes == ["one clip at a time (the model is not in float32)"]
