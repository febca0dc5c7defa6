"""`finetune` on a run: what is in the folder, who can load it, and when it is refused."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import WanPipeline
from invented import backbone_of, largest_difference, weights
from safetensors.torch import load_file, save_file

from motive import Run
from motive.backbones.finetuned import Finetuned, load_network
from motive.errors import UserError
from motive.finetuning import FinetuneSettings, finetune

SHORT = FinetuneSettings(steps=3, batch=2, lr=1e-3)


def record_of(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "training.json").read_text())
    return content


@pytest.fixture(scope="module")
def run(tuning_run: Path) -> Run:
    return Run.open(tuning_run)


@pytest.fixture(scope="module")
def tuned(run: Run, small_wan: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All weights, three steps."""
    out = tmp_path_factory.mktemp("tuned") / "model"
    return finetune(run, "selection", str(small_wan), out, SHORT)


@pytest.fixture(scope="module")
def lora(run: Run, small_wan: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tuned") / "lora"
    settings = FinetuneSettings(steps=3, batch=2, lr=1e-1, lora=4)
    return finetune(run, "selection", str(small_wan), out, settings)


@torch.no_grad()
def video(pipeline: WanPipeline) -> torch.Tensor:
    pipeline.set_progress_bar_config(disable=True)
    latents = torch.randn(1, 16, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    found = pipeline(
        "abc", height=32, width=32, num_frames=9, num_inference_steps=2, latents=latents,
        output_type="latent",
    )  # fmt: skip
    frames: torch.Tensor = found.frames
    return frames


def test_the_checkpoint_loads_in_diffusers_and_here(tuned: Path, small_wan: Path) -> None:
    pipeline, base = WanPipeline.from_pretrained(tuned), WanPipeline.from_pretrained(small_wan)
    trained, before = weights(pipeline.transformer), weights(base.transformer)
    assert 1e-4 < largest_difference(trained, before) < 3.5e-3  # three steps of 1e-3
    assert largest_difference(weights(pipeline.vae), weights(base.vae)) == 0
    assert largest_difference(weights(pipeline.text_encoder), weights(base.text_encoder)) == 0
    assert not torch.equal(video(pipeline), video(base))
    assert largest_difference(weights(backbone_of(tuned).load_denoiser()), trained) == 0
    assert backbone_of(tuned).default_sampler() == backbone_of(small_wan).default_sampler()
    assert not (tuned / "training_state.safetensors").exists()


def test_what_is_written_into_the_checkpoint_does_not_reach_the_source(
    tuned: Path, small_wan: Path
) -> None:
    for file in tuned.rglob("*.json"):
        twin = small_wan / file.relative_to(tuned)
        assert not (twin.exists() and twin.samefile(file)), file


def test_the_lora_loads_in_diffusers_and_changes_the_output(lora: Path, small_wan: Path) -> None:
    pipeline = WanPipeline.from_pretrained(small_wan)
    before = video(pipeline)
    pipeline.load_lora_weights(lora)
    assert pipeline.get_list_adapters() == {"transformer": ["default_0"]}
    after = video(pipeline)
    assert float((after - before).abs().max()) > 1e-3
    pipeline.unload_lora_weights()
    assert torch.equal(video(pipeline), before)
    # And it says the same to our own reader.
    pipeline.load_lora_weights(lora)
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    mine = load_network(backbone_of(small_wan), Finetuned(lora=str(lora)))
    assert largest_difference(weights(mine), weights(pipeline.transformer)) < 1e-6


def test_a_loras_factors_are_those_of_the_attention(lora: Path) -> None:
    factors = load_file(lora / "pytorch_lora_weights.safetensors")
    modules = {name.rpartition(".lora_")[0] for name in factors}
    assert modules == {
        f"transformer.blocks.{block}.{attention}.{matrix}"
        for block in (0, 1)
        for attention in ("attn1", "attn2")
        for matrix in ("to_q", "to_k", "to_v", "to_out.0")
    }
    assert all(f.dtype == torch.float32 and 4 in f.shape for f in factors.values())
    assert all(bool(f.any()) for f in factors.values())


def test_the_record_says_what_was_done(run: Run, tuned: Path) -> None:
    record, rows = record_of(tuned), run.selection()
    selected = sorted(row["clip_id"] for row in rows if row["selected"] == "true")
    assert record["finished"] is True
    assert record["matched"] == "steps"
    assert record["subset"]["name"] == "selection"
    assert record["subset"]["clip_ids"] == selected
    assert record["clips_shown"] == 6
    assert record["epochs"] == pytest.approx(6 / len(selected))
    assert len(record["loss"]) == 3
    assert record["parameters"] == sum(
        t.numel()
        for t in load_file(tuned / "transformer/diffusion_pytorch_model.safetensors").values()
    )


def test_repeats_give_each_clip_its_share(run: Run, small_wan: Path, tmp_path: Path) -> None:
    settings = FinetuneSettings(repeats=2, batch=3, lora=1)
    record = record_of(finetune(run, "all", str(small_wan), tmp_path / "out", settings))
    assert record["matched"] == "repeats"
    assert record["steps"] == -(-2 * record["subset"]["clips"] // 3)


def test_a_finished_training_is_not_done_again(run: Run, tuned: Path, small_wan: Path) -> None:
    before = {file: os.stat(file).st_mtime_ns for file in tuned.rglob("*")}
    finetune(run, "selection", str(small_wan), tuned, SHORT)
    assert {file: os.stat(file).st_mtime_ns for file in tuned.rglob("*")} == before


@pytest.mark.parametrize(
    ("subset", "settings", "named"),
    [
        ("random", SHORT, r"subset is selection there and random now"),
        ("selection", FinetuneSettings(steps=3, batch=2, lr=1e-4), r"lr is 0.001 there and 0.0001 now"),
        ("selection", FinetuneSettings(steps=3, batch=2, lr=1e-3, lora=2), r"lora is not set there"),
    ],
)  # fmt: skip
def test_other_settings_in_the_same_folder_are_refused(
    run: Run, tuned: Path, small_wan: Path, subset: str, settings: FinetuneSettings, named: str
) -> None:
    with pytest.raises(UserError, match=named):
        finetune(run, subset, str(small_wan), tuned, settings)


def test_another_base_in_the_same_folder_is_refused(run: Run, tuned: Path, lora: Path) -> None:
    with pytest.raises(UserError, match=r"model is .* there and"):
        finetune(
            run, "selection", str(tuned), lora, FinetuneSettings(steps=3, batch=2, lr=1e-1, lora=4)
        )


def test_files_of_another_origin_are_left_alone(run: Run, small_wan: Path, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(UserError, match="another origin"):
        finetune(run, "selection", str(small_wan), tmp_path, SHORT)
    with pytest.raises(UserError, match="is a file"):
        finetune(run, "selection", str(small_wan), tmp_path / "letter.txt", SHORT)


def test_a_tuned_model_is_tuned_on_without_encoding_again(
    run: Run, tuned: Path, tmp_path: Path
) -> None:
    encoded = run.store.results(run.plan.encode_stage).count()
    record = record_of(finetune(run, "selection", str(tuned), tmp_path / "out", SHORT))
    assert run.store.results(run.plan.encode_stage).count() == encoded
    assert record["settings"]["encoders"] == run.plan.encode_stage.fingerprint()


def test_a_model_with_another_vae_gets_latents_of_its_own(
    run: Run, small_wan: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(small_wan, tmp_path / "other"))
    file = other / "vae/diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    save_file({name: 1.1 * tensor for name, tensor in tensors.items()}, file)
    out = finetune(run, "selection", str(other), tmp_path / "out", SHORT)
    with_own = finetune(run, "selection", str(small_wan), tmp_path / "own", SHORT)
    record = record_of(out)
    made_by = record["settings"]["encoders"]
    assert made_by != run.plan.encode_stage.fingerprint()
    latents = run.store.results(run.plan.encode_stage).keys(made_by)
    assert latents == set(record["subset"]["clip_ids"])
    assert record["loss"] != record_of(with_own)["loss"]


def test_the_expert_of_the_timesteps_is_trained(
    run: Run, two_experts: Path, small_wan: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"two networks.*--timestep-range"):
        finetune(run, "selection", str(two_experts), tmp_path / "both", SHORT)
    settings = FinetuneSettings(steps=2, lr=1e-3, timestep_range=(0, 875))
    out = finetune(run, "selection", str(two_experts), tmp_path / "low", settings)
    pipeline, base = WanPipeline.from_pretrained(out), WanPipeline.from_pretrained(small_wan)
    assert largest_difference(weights(pipeline.transformer), weights(base.transformer)) == 0
    assert largest_difference(weights(pipeline.transformer_2), weights(base.transformer)) > 1e-4


def test_a_pattern_names_the_weights_that_are_trained(
    run: Run, small_wan: Path, tmp_path: Path
) -> None:
    settings = FinetuneSettings(steps=1, lr=1e-3, parameters="blocks.1.attn1.*")
    out = finetune(run, "selection", str(small_wan), tmp_path / "out", settings)
    mine, base = (weights(backbone_of(p).load_denoiser()) for p in (out, small_wan))
    changed = {name for name in base if not torch.equal(mine[name], base[name])}
    assert changed
    assert all(name.startswith("blocks.1.attn1.") for name in changed)
    with pytest.raises(UserError, match="no parameter is called like"):
        finetune(
            run, "all", str(small_wan), tmp_path / "none", FinetuneSettings(parameters="nothing")
        )
    assert not (tmp_path / "none").exists()


def test_a_tracker_is_told_the_loss(run: Run, small_wan: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    settings = FinetuneSettings(steps=3, lora=1, tracker="tensorboard")
    out = finetune(run, "selection", str(small_wan), tmp_path / "out", settings)
    events = EventAccumulator(str(out / "logs" / "motive-finetune"))
    events.Reload()
    told = events.Scalars("loss")
    assert [event.step for event in told] == [1, 2, 3]
    assert [event.value for event in told] == pytest.approx(record_of(out)["loss"])


def test_a_tracker_that_is_not_installed_is_refused(
    run: Run, small_wan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name, package=None: None)
    settings = FinetuneSettings(steps=1, tracker="wandb")
    with pytest.raises(UserError, match="pip install wandb"):
        finetune(run, "selection", str(small_wan), tmp_path / "out", settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"steps": 1, "repeats": 1}, "give one of them"),
        ({"steps": 0}, "--steps is 0"),
        ({"lora": 0}, "--lora is 0"),
        ({"lr": float("nan")}, "learning rate"),
        ({"weight_decay": -1.0}, "--weight-decay"),
        ({"dtype": "float16"}, "float16"),
        ({"tracker": "paper"}, "no tracker 'paper'"),
        ({"shift": 0.0}, "--shift is 0"),
        ({"lora": 1, "parameters": "*"}, "leave out --parameters"),
    ],
)
def test_settings_that_make_no_training_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        FinetuneSettings(**settings)
