"""Whole runs over fine-tuned weights."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import WanTransformer3DModel
from finetuned_wan import NAME, as_adapter, saved, with_lora

from motive import Run
from motive.backbones.finetuned import is_factor
from motive.cli import main
from motive.errors import UserError


def run_of(small_wan: Path, few_clips: Path, path: Path, **settings: Any) -> Run:
    named = {f"finetuned__{name}": str(value) for name, value in settings.items()}
    run = Run.create(
        path, clips=str(few_clips), queries=str(few_clips), model=str(small_wan), **named
    )
    for stage in ("ingest", "track", "encode", "gradients"):
        getattr(run, stage)()
    return run


def test_features_are_of_the_fine_tuned_model(
    small_wan: Path, few_clips: Path, tuned: WanTransformer3DModel, tmp_path: Path
) -> None:
    """The base's with a LoRA of zeros; others with a LoRA or a checkpoint that changes the weights."""
    zeros = as_adapter(with_lora(small_wan, zero=True), tmp_path / "zeros")
    lora = as_adapter(with_lora(small_wan), tmp_path / "lora")
    tuned.save_pretrained(tmp_path / "tuned")
    runs = {
        "base": run_of(small_wan, few_clips, tmp_path / "1"),
        "zeros": run_of(small_wan, few_clips, tmp_path / "2", lora=zeros),
        "lora": run_of(small_wan, few_clips, tmp_path / "3", lora=lora),
        "tuned": run_of(small_wan, few_clips, tmp_path / "4", checkpoint=tmp_path / "tuned"),
    }
    features = {name: run.features("clip").features_nd for name, run in runs.items()}
    assert np.array_equal(features["zeros"], features["base"])
    for name in ("lora", "tuned"):
        assert np.abs(features[name] - features["base"]).max() > 1e-3
    assert len({run.objective.model for run in runs.values()}) == 4
    assert len({run.plan.model_fingerprint for run in runs.values()}) == 1

    # The file's content counts, not its name.
    copy = shutil.copytree(lora, tmp_path / "copy")
    settings = {"clips": str(few_clips), "queries": str(few_clips), "model": str(small_wan)}
    moved = Run.create(tmp_path / "5", **settings, finetuned__lora=str(copy))
    assert moved.objective == runs["lora"].objective
    with pytest.raises(UserError, match=r"finetuned\.lora is .* there and .* now"):
        Run.create(tmp_path / "5", **settings, finetuned__lora=str(zeros))
    shutil.copy(zeros / NAME, copy / NAME)
    changed = Run.open(tmp_path / "5")
    assert changed.objective.model == runs["zeros"].objective.model


def test_features_of_the_factors_under_a_trainers_objective_from_the_command_line(
    small_wan: Path, few_clips: Path, tmp_path: Path
) -> None:
    model = with_lora(small_wan)
    words = ["--clips", few_clips, "--queries", few_clips, "--model", small_wan, "--quiet"]
    words += ["--lora", as_adapter(model, tmp_path / "lora"), "--train", "lora"]
    words += ["--trainer", "diffsynth", "--draws", 2, "--timestep-range", "300,900", "--shift", 4]
    words += ["--projection", "identity", "--out", tmp_path / "run"]
    with pytest.raises(SystemExit) as outcome:
        main(["curate", *map(str, words)])
    assert outcome.value.code == 0
    run = Run.open(tmp_path / "run")
    features = run.features("clip").features_nd
    factors = [p.numel() for n, p in model.named_parameters() if is_factor(n)]
    assert features.shape[1] == sum(factors)
    moving = features.any(axis=1)
    assert moving.sum() > 1
    assert np.abs(np.linalg.norm(features[moving], axis=1) - 1).max() < 1e-5
    assert (run.objective.train, run.objective.trainer) == ("lora", "diffsynth")
    assert len(run.objective.timesteps) == 2
    assert all(300 <= t < 900 for t in run.objective.timesteps)
    assert (tmp_path / "run" / "selection.csv").is_file()


def test_a_run_is_not_begun_with_files_that_do_not_fit(
    small_wan: Path, few_clips: Path, tmp_path: Path
) -> None:
    file = saved({"x.lora_A.weight": torch.zeros(1, 2)}, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="is not one of this model"):
        run_of(small_wan, few_clips, tmp_path / "run", lora=file)
    with pytest.raises(UserError, match="there is no LoRA to train"):
        run_of(small_wan, few_clips, tmp_path / "run", train="lora")
    assert not (tmp_path / "run").exists()
