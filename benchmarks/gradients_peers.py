"""Seconds that TRAK and dattri take to featurize the clips of a file; run by `gradients.py` in their Python.

    python benchmarks/gradients_peers.py FOLDER

FOLDER has `denoiser.pt2`, the model for one clip as `torch.export` saved it, and `clips.safetensors`
with `noisy`, `target`, `mask` and `text`, axis 0 the clips. Needs torch and what is to be measured of
`traker` and `dattri`, and nothing of this project. Prints one JSON object: for each peer its seconds,
or a sentence that says why there are none.
"""

import contextlib
import importlib.metadata
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.func import functional_call

BATCH, DIM = 4, 512
Clips = dict[str, torch.Tensor]


def read_safetensors(path: Path) -> Clips:
    """The float32 tensors of a safetensors file: a length, a JSON header, the numbers."""
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    tensors = {}
    for name, entry in json.loads(content[8:start]).items():
        assert entry["dtype"] == "F32", entry
        first, last = entry["data_offsets"]
        numbers = torch.frombuffer(
            bytearray(content[start + first : start + last]), dtype=torch.float32
        )
        tensors[name] = numbers.reshape(entry["shape"])
    return tensors


def loss_of(model: torch.nn.Module, state: object, clip: tuple[torch.Tensor, ...]) -> torch.Tensor:
    noisy, target, mask, text = clip
    inputs = (noisy[None], torch.tensor([751.0]), text[None])
    prediction = functional_call(model, state, inputs)[0]
    return (mask * (prediction - target).square()).mean()


def trak(model: torch.nn.Module, clips: Clips, matrix_kept: bool) -> dict[str, float]:
    from trak import TRAKer
    from trak.modelout_functions import AbstractModelOutput
    from trak.projectors import BasicProjector, ProjectionType

    class MotionLoss(AbstractModelOutput):
        def __init__(self) -> None:
            pass

        def get_output(self, model, weights, buffers, *clip):  # type: ignore[no-untyped-def]
            return loss_of(model, (weights, buffers), clip)

        def get_out_to_loss_grad(self, model, weights, buffers, batch):  # type: ignore[no-untyped-def]
            return torch.ones(len(batch[0]), 1)

    count = len(clips["noisy"])
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        numbers = sum(p.numel() for p in model.parameters())
        kind = ProjectionType.normal
        traker = TRAKer(
            model,
            MotionLoss(),
            count,
            save_dir=folder,
            device="cpu",
            proj_dim=DIM,
            use_half_precision=False,
            projector=BasicProjector(numbers, DIM, 0, kind, torch.device("cpu"), block_size=DIM)
            if matrix_kept
            else None,
        )
        traker.load_checkpoint(model.state_dict(), model_id=0)
        ready = time.process_time()
        for batch in batches(clips):
            traker.featurize(batch=batch, num_samples=len(batch[0]))
        traker.finalize_features()
    return seconds(start, ready, count)


def dattri(model: torch.nn.Module, clips: Clips) -> dict[str, float]:
    from dattri.algorithm.trak import TRAKAttributor
    from dattri.task import AttributionTask

    def loss(params, clip):  # type: ignore[no-untyped-def]
        return loss_of(model, params, clip)

    count = len(clips["noisy"])
    start = time.process_time()
    task = AttributionTask(loss_func=loss, model=model, checkpoints=model.state_dict())
    attributor = TRAKAttributor(
        task,
        # What it scales scores by; a loss per clip is enough.
        correct_probability_func=lambda params, clip: torch.exp(-loss_of(model, params, clip)),
        projector_kwargs={"proj_dim": DIM, "device": "cpu"},
        regularization=1e-3,
    )
    ready = time.process_time()
    data = torch.utils.data.TensorDataset(*(clips[n] for n in ("noisy", "target", "mask", "text")))
    attributor.cache(torch.utils.data.DataLoader(data, batch_size=BATCH, shuffle=False))
    return seconds(start, ready, count)


def seconds(start: float, ready: float, count: int) -> dict[str, float]:
    end = time.process_time()
    return {
        "clips": count,
        "setup_s": ready - start,
        "seconds": end - start,
        "per_clip_s": (end - start) / count,
        "per_further_clip_s": (end - ready) / count,
    }


def batches(clips: Clips) -> list[list[torch.Tensor]]:
    columns = [clips[name].split(BATCH) for name in ("noisy", "target", "mask", "text")]
    return [list(batch) for batch in zip(*columns, strict=True)]


def attempt(work: Callable[[], dict[str, float]], distribution: str) -> dict[str, float | str]:
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return {"version": importlib.metadata.version(distribution), **work()}
    except Exception as error:  # said in the table; the other peer is still measured
        first = (str(error).strip().splitlines() or [""])[0]
        return {"failed": f"{type(error).__name__}: {first}"[:300]}


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(sys.argv[1])
    clips = read_safetensors(folder / "clips.safetensors")
    model = torch.export.load(folder / "denoiser.pt2").module()
    # It was saved in eval mode, and a saved graph refuses to be told so again.
    model.eval = lambda: model  # type: ignore[method-assign]
    model.train = lambda mode=True: model  # type: ignore[method-assign,assignment]
    matrix_gb = math.fsum(p.numel() for p in model.parameters()) * DIM * 4 / 2**30
    results = {
        "traker": attempt(lambda: trak(model, clips, matrix_kept=False), "traker"),
        f"traker, matrix of {matrix_gb:.1f} GB kept": attempt(
            lambda: trak(model, clips, matrix_kept=True), "traker"
        ),
        "dattri": attempt(lambda: dattri(model, clips), "dattri"),
    }
    print(json.dumps(results))


if __name__ == "__main__":
    main()
