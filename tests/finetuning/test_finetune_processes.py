"""Two processes that share each batch, as `accelerate launch` and `torchrun` start them."""

import json
import multiprocessing
import os
import socket
from pathlib import Path

import pytest
from safetensors.torch import load_file

from motive import Run
from motive.finetuning import FinetuneSettings, finetune

SETTINGS = FinetuneSettings(steps=3, batch=3, lr=1e-3, weight_decay=0.0)
WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


def _process(rank: int, port: int, run: Path, model: Path, out: Path) -> None:
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    finetune(Run.open(run), "selection", str(model), out, SETTINGS)


def test_two_processes_train_as_one(tuning_run: Path, small_wan: Path, tmp_path: Path) -> None:
    context, port = multiprocessing.get_context("forkserver"), _free_port()
    context.set_forkserver_preload(["motive.finetuning.tune", "motive.pipeline"])
    started = [
        context.Process(target=_process, args=(rank, port, tuning_run, small_wan, tmp_path / "two"))
        for rank in (0, 1)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join(300)
        process.kill()
        assert process.exitcode == 0
    finetune(Run.open(tuning_run), "selection", str(small_wan), tmp_path / "one", SETTINGS)
    two, one = (json.loads((tmp_path / n / "training.json").read_text()) for n in ("two", "one"))
    assert two["processes"] == 2
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-4)
    mine, theirs = (load_file(tmp_path / n / WEIGHTS) for n in ("two", "one"))
    # Adam turns a gradient of next to nothing into a step of 1e-3 by its sign alone: nearly all numbers.
    far = sum(int(((mine[n] - theirs[n]).abs() > 1e-4).sum()) for n in mine)
    assert far < 0.01 * sum(t.numel() for t in mine.values())
