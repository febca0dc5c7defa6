"""`motive finetune` as a user runs it: killed and taken up again, and refused in one sentence."""

import json
import random
import time
from pathlib import Path

import pytest
from commands import KILLED, SignalAt, Terminal
from run_files import Finished
from safetensors.torch import load_file

STEPS = ("--steps", 12, "--batch", 2, "--lr", 1e-3, "--checkpoint-every", 4)
# Before the record; after the first state, before the second; after the weights, before the index.
KILLS = (1, 3, 4)


def words(finished: Finished, model: Path, out: Path, *more: object) -> tuple[object, ...]:
    told = ("finetune", finished.path, "--subset", "selection", "--model", model, "--out", out)
    return (*told, *STEPS, "--quiet", *more)


def trained(out: Path) -> tuple[dict[str, bytes], list[float]]:
    """The trained tensors' bits and the losses; fails when something half-written is left.

    Not the file's bytes: safetensors writes a file's words about itself in an order of chance.
    """
    assert [p.name for p in out.rglob("*") if p.name.endswith(".part")] == []
    assert not (out / "training_state.safetensors").exists()
    record = json.loads((out / "training.json").read_text())
    assert record["finished"] is True
    lora = out / "pytorch_lora_weights.safetensors"
    whole = out / "transformer" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(lora if lora.exists() else whole)
    return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()}, record["loss"]


@pytest.fixture(scope="module")
def undisturbed(
    motive: Terminal, finished: Finished, small_wan: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, float]:
    """A model that was trained in one go, and the seconds that it took."""
    out, start = tmp_path_factory.mktemp("undisturbed") / "model", time.monotonic()
    outcome = motive(*words(finished, small_wan, out)).succeeded()
    assert "12 steps" in outcome.out
    assert "matched steps" in outcome.out
    return out, time.monotonic() - start


def test_a_training_killed_again_and_again_ends_as_an_undisturbed_one(
    motive: Terminal,
    finished: Finished,
    small_wan: Path,
    undisturbed: tuple[Path, float],
    tmp_path: Path,
) -> None:
    line = words(finished, small_wan, tmp_path / "model")
    for rename in KILLS:
        started = motive.start(*line, signal_at=SignalAt("os.rename", rename))
        assert started.outcome().code == KILLED
    assert not (tmp_path / "model" / "model_index.json").exists()
    motive(*line).succeeded()
    assert trained(tmp_path / "model") == trained(undisturbed[0])


def test_a_training_killed_at_any_moment_ends_as_an_undisturbed_one(
    motive: Terminal,
    finished: Finished,
    small_wan: Path,
    undisturbed: tuple[Path, float],
    tmp_path: Path,
) -> None:
    line = words(finished, small_wan, tmp_path / "model")
    motive.start(*line).kill_after(undisturbed[1] * random.uniform(0.3, 0.9))
    motive(*line).succeeded()
    assert trained(tmp_path / "model") == trained(undisturbed[0])


def test_a_killed_lora_ends_as_an_undisturbed_one(
    motive: Terminal, finished: Finished, small_wan: Path, tmp_path: Path
) -> None:
    whole, killed = (words(finished, small_wan, tmp_path / n, "--lora", 2) for n in "ab")
    motive(*whole).succeeded()
    started = motive.start(*killed, signal_at=SignalAt("os.rename", 3))
    assert started.outcome().code == KILLED
    motive(*killed).succeeded()
    assert trained(tmp_path / "a") == trained(tmp_path / "b")


def test_wrong_words_are_refused_in_one_sentence(
    motive: Terminal,
    finished: Finished,
    small_wan: Path,
    undisturbed: tuple[Path, float],
    tmp_path: Path,
) -> None:
    def complaint(*changes: object) -> str:
        return motive(*words(finished, small_wan, undisturbed[0], *changes)).complaint

    assert "lr is 0.001 there and 0.5 now" in complaint("--lr", 0.5)
    assert "give one of them" in complaint("--repeats", 3)
    assert "there is no subset 'best'" in complaint("--subset", "best")
    assert "no model folder" in complaint("--model", tmp_path / "nothing")
    assert "write FROM,TO" in complaint("--timestep-range", "high")
