"""Which latents a run has: the mean of the VAE's posterior, or a draw, by the setting or by the trainer."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from motive import Run
from motive.backbones.encode import tensors_of
from motive.errors import UserError
from motive.gradients.noise import posterior_noise, shared_noise
from motive.gradients.objective import Objective
from motive.gradients.trainers import TRAINERS, trainer_posterior
from motive.plan import Plan
from motive.runs.config import make_config


def plan_of(small_wan: Path, **settings: Any) -> Plan:
    values = {"clips": "", "queries": "", "model": str(small_wan), "compute.device": "cpu"}
    return Plan(Path(), make_config({**values, **settings}))


def test_the_mean_is_the_default_and_what_most_trainers_take(small_wan: Path) -> None:
    assert plan_of(small_wan).posterior == "mean"
    assert plan_of(small_wan).objective.posterior == "mean"
    drawing = {
        (trainer, family)
        for trainer in TRAINERS
        for family in TRAINERS[trainer].shifts
        if trainer_posterior(trainer, family) == "sample"
    }
    # As read in their sources.
    assert drawing == {
        ("finetrainers", "wan"), ("finetrainers", "wan-image"), ("finetrainers", "hunyuan-video"),
        ("musubi", "hunyuan-video"), ("diffusion-pipe", "hunyuan-video"),
    }  # fmt: skip


def test_a_trainer_decides_unless_the_user_does(small_wan: Path) -> None:
    its_own = {"gradients.trainer": "finetrainers"}
    assert plan_of(small_wan, **its_own).objective.posterior == "sample"
    asked = plan_of(small_wan, **its_own, **{"gradients.posterior": "mean"})
    assert asked.objective.posterior == "mean"
    papers = plan_of(small_wan, **{"gradients.posterior": "sample"})
    assert (papers.objective.posterior, papers.objective.trainer) == ("sample", "paper")
    with pytest.raises(UserError, match=r"the setting gradients.posterior is wrong"):
        plan_of(small_wan, **{"gradients.posterior": "mode"})


def test_latents_of_one_posterior_are_never_taken_for_those_of_another(small_wan: Path) -> None:
    mean = plan_of(small_wan)
    draw = plan_of(small_wan, **{"gradients.posterior": "sample"})
    other = plan_of(small_wan, **{"gradients.posterior": "sample", "seed": 1})
    stages = {plan.encode_stage.fingerprint() for plan in (mean, draw, other)}
    assert len(stages) == 3
    assert len({plan.objective.id for plan in (mean, draw, other)}) == 3
    assert mean.objective.differences(draw.objective) == {"posterior": ("mean", "sample")}
    assert Objective.from_json(draw.objective.to_json()) == draw.objective


def test_a_runs_draws_depend_on_no_order_and_on_the_seed(
    small_wan: Path, few_clips: Path, tmp_path: Path
) -> None:
    def latents(name: str, **settings: Any) -> dict[str, np.ndarray]:
        run = Run.create(
            tmp_path / name, clips=str(few_clips), queries=str(few_clips), model=str(small_wan), **settings
        )  # fmt: skip
        run.ingest()
        run.encode()
        stage = run.plan.encode_stage
        rows = run.store.results(stage).rows(stage.fingerprint())
        return {row["key"]: tensors_of(row)["latents"].numpy() for row in rows}

    mean = latents("mean")
    draw = latents("draw", gradients__posterior="sample")
    again = latents("again", gradients__posterior="sample")
    assert mean.keys() == draw.keys() == again.keys()
    assert len(mean) == 3
    for clip_id, latents_cfhw in draw.items():
        assert np.array_equal(latents_cfhw, again[clip_id])
        moved = latents_cfhw - mean[clip_id]
        noise = posterior_noise(0, moved.shape).numpy()
        assert np.array_equal(np.sign(moved), np.sign(noise))  # std is positive


def test_the_noise_of_a_draw_is_a_prefix_and_not_that_of_a_timestep() -> None:
    small, large = (posterior_noise(3, shape) for shape in ((4, 2, 3, 2), (5, 4, 4, 6)))
    assert torch.equal(small, large[:4, :2, :3, :2])
    shape = (16, 5, 16, 16)
    draw, step = posterior_noise(3, shape), shared_noise(3, shape)
    correlation = torch.corrcoef(torch.stack([draw.flatten(), step.flatten()]))[0, 1]
    assert abs(correlation) < 4 / draw.numel() ** 0.5
    assert not torch.equal(draw, posterior_noise(4, shape))


def test_a_family_without_draws_says_so(small_wan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one of the user's own that takes the mean by itself, whose latents would be called draws."""
    from motive.backbones.base import Backbone
    from motive.backbones.wan import WanBackbone

    with monkeypatch.context() as patch:
        patch.setattr(WanBackbone, "sample_posterior", Backbone.sample_posterior)
        with pytest.raises(UserError, match="are the posterior's mean only: use --posterior mean"):
            plan_of(small_wan, **{"gradients.posterior": "sample"}).objective  # noqa: B018
    backbone = plan_of(small_wan, **{"gradients.posterior": "sample"}).backbone
    backbone.load_vae()
    monkeypatch.setattr(WanBackbone, "latents_of", lambda self, posterior: posterior.mean[0])
    with pytest.raises(UserError, match="are the posterior's mean only: use --posterior mean"):
        backbone.encode_video(np.zeros((9, 32, 32, 3), np.uint8))
