"""What a clip's gradient feature costs beside a bare forward and backward pass, and what a batch saves.

    python benchmarks/gradients.py [--peers-python PYTHON] [--json FILE]

Two models: `tiny-wan` at its full 33 frames of 64 x 64, and two blocks at Wan2.1-T2V-1.3B's width with
random weights. Passes are run in turn and compared by the median of their processor time, since other
programs share the machine; peak memory is of processes of their own. `--peers-python` is the Python of
an environment that has `traker` and `dattri`; without it they are listed as missing.
"""

import argparse
import ctypes
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TINY = HERE.parent / "src/motive/assets/tiny-wan"
TINY_LATENTS = {9: (3, 8, 8), 17: (5, 8, 8), 33: (9, 8, 8)}  # by frames of 64 x 64
WIDE_LATENT = (3, 32, 32)  # 768 tokens
PEER_CLIPS, PEER_FRAMES = 8, 9


class Case:
    """One model and one clip: a bare pass, a feature.

    kind: "tiny-wan" or "wide".
    """

    def __init__(self, kind: str, latent_fhw: tuple[int, int, int]) -> None:
        import torch
        from diffusers import WanTransformer3DModel

        from motive.gradients.streaming import choose_parameters

        torch.set_num_threads(1)
        torch.manual_seed(0)
        if kind == "tiny-wan":
            self.model = WanTransformer3DModel.from_pretrained(TINY / "transformer").eval()
            tokens, width = 32, 64
        else:
            self.model = WanTransformer3DModel(num_layers=2, num_attention_heads=12, ffn_dim=8960)
            self.model.eval()
            tokens, width = 512, 4096
        self.parameters = choose_parameters(self.model, "*")
        self.noisy, self.target = torch.randn(2, 1, 16, *latent_fhw).unbind()
        self.mask, self.text = torch.rand(latent_fhw), torch.randn(1, tokens, width)
        self.timestep = torch.tensor([751.0])
        self._streaming: Any = None

    def loss(self) -> Any:
        from motive.gradients.loss import motion_weighted_loss

        output = self.model(self.noisy, self.timestep, self.text, return_dict=False)[0]
        return motion_weighted_loss(output[0], self.target[0], self.mask)

    def bare(self) -> None:
        """What autograd does by itself: all gradients are kept, until the next pass begins."""
        for parameter in self.parameters.values():
            parameter.grad = None
        self.loss().backward()

    def feature(self) -> None:
        from motive.gradients.streaming import StreamingGradient

        if self._streaming is None:
            self._streaming = StreamingGradient(self.parameters, "fastfood", 512, 0)
        self._streaming.feature(self.loss)


def in_turn(passes: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Processor seconds of each pass, `repeats` times, after two that are not counted."""
    times: dict[str, list[float]] = {name: [] for name in passes}
    for repeat in range(repeats + 2):
        for name, run in passes.items():
            start = time.process_time()
            run()
            if repeat >= 2:
                times[name].append(time.process_time() - start)
    return times


def overhead(kind: str, latent_fhw: tuple[int, int, int], repeats: int) -> dict[str, float]:
    case = Case(kind, latent_fhw)
    times = in_turn({"bare": case.bare, "feature": case.feature}, repeats)
    ratios = [f / b for f, b in zip(times["feature"], times["bare"], strict=True)]
    bare, feature = (statistics.median(times[name]) for name in ("bare", "feature"))
    return {
        "bare_ms": 1e3 * bare,
        "feature_ms": 1e3 * feature,
        "ratio": statistics.median(ratios),
        "ratio_of_minima": min(times["feature"]) / min(times["bare"]),
    }


def peak(kind: str, run: str) -> dict[str, float]:
    """Peak memory (VmHWM, so on Linux) of a process while it does `run`, "bare" or "feature"."""
    import torch

    from motive.gradients.streaming import StreamingGradient
    from motive.runs.provenance import peak_memory_mb

    case = Case(kind, TINY_LATENTS[33] if kind == "tiny-wan" else WIDE_LATENT)
    # Both begin with everything loaded, the compiled kernels too, and count from there.
    layer = torch.nn.Linear(512, 256)
    inputs = torch.ones(1, 512)
    warm = StreamingGradient(dict(layer.named_parameters()), "fastfood", 512, 0)
    warm.feature(lambda: layer(inputs).sum())
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    for _ in range(3):
        getattr(case, run)()
    sizes = [p.numel() * p.element_size() / 2**20 for p in case.parameters.values()]
    return {"peak_mb": peak_memory_mb(), "gradient_mb": sum(sizes), "largest_mb": max(sizes)}


def memory(kind: str) -> dict[str, float]:
    found = {}
    for run in ("bare", "feature"):
        command = [sys.executable, __file__, "--peak", kind, run]
        answer = subprocess.run(command, capture_output=True, text=True, check=True)
        found[run] = json.loads(answer.stdout.splitlines()[-1])
    bare, feature = found["bare"], found["feature"]
    return {
        "bare_mb": bare["peak_mb"],
        "feature_mb": feature["peak_mb"],
        "saved_mb": bare["peak_mb"] - feature["peak_mb"],
        "gradient_less_one_tensor_mb": bare["gradient_mb"] - bare["largest_mb"],
    }


def batch_throughput(frames: int, repeats: int) -> dict[str, float]:
    """The gradient stage on clips of `frames` frames: one by one, and in the batches it chooses."""
    import numpy as np
    import torch

    from motive.backbones import load_backbone
    from motive.backbones.encode import as_row
    from motive.backbones.source import find_model
    from motive.gradients.objective import Objective
    from motive.gradients.stage import GradientStage
    from motive.motion.field import MotionField
    from motive.motion.masks import reduce_field
    from motive.motion.track import row_of

    torch.set_num_threads(1)
    shape, rng = (16, *TINY_LATENTS[frames]), np.random.default_rng(0)

    def row(number: int) -> dict[str, Any]:
        moved = rng.normal(0, 3, (frames, 64, 64, 2)).astype(np.float32)
        ones = np.ones((frames, 64, 64), np.float32)
        return {
            "key": str(number),
            "clip_id": str(number),
            "caption_id": "",
            "frames": frames,
            "motion": row_of(reduce_field(MotionField(moved, ones, ones, "from_previous"), 8)),
            "video": as_row({"latents": torch.randn(shape)}),
            "text": as_row({"text": torch.randn(20, 64)}),
        }

    objective = Objective(
        model="", sampler="", tracker="", mask="paper", mask_trusted=False, static_below=0.1,
        timesteps=(751,), noise_seed=0, prompt_length=32, parameters="*", length_factor=True,
        projection="fastfood", dim=512, projection_seed=0, dtype="float32",
    )  # fmt: skip
    backbone = load_backbone(find_model("tiny-wan"), dtype="float32", device="cpu")
    stage = GradientStage(backbone, objective)
    stage.open()
    rows = [row(0)]
    rows += [row(n) for n in range(1, stage.batch_of(rows[0])[1])]

    def loop() -> list[Any]:
        return [stage.process(row) for row in rows]

    def batch() -> list[Any]:
        return stage.process_batch(rows)

    alone, together = loop(), batch()
    assert not stage.notes, stage.notes
    apart = max(
        float(np.linalg.norm(a["feature"] - b["feature"]))
        for a, b in zip(alone, together, strict=True)
    )
    times = in_turn({"loop": loop, "batch": batch}, repeats)
    ratios = [one / many for one, many in zip(times["loop"], times["batch"], strict=True)]
    return {
        "clips": len(rows),
        "loop_ms_per_clip": 1e3 * statistics.median(times["loop"]) / len(rows),
        "batch_ms_per_clip": 1e3 * statistics.median(times["batch"]) / len(rows),
        "throughput": statistics.median(ratios),
        "largest_difference": apart,
    }


def products(frames: int) -> float:
    """Milliseconds of a clip's bare matrix products (forward and backward) on tiny-wan, all clips of a
    batch at once: what no way of batching can go below.
    """
    import torch

    latent = TINY_LATENTS[frames]
    case, clips = Case("tiny-wan", latent), 16
    work: list[tuple[int, int, int]] = []

    def note(layer: Any, inputs: tuple[Any, ...], output: Any) -> None:
        work.append((inputs[0].numel() // inputs[0].shape[-1], *layer.weight.shape))

    linears = [m for m in case.model.modules() if isinstance(m, torch.nn.Linear)]
    handles = [layer.register_forward_hook(note) for layer in linears]
    with torch.no_grad():
        case.loss()
    for handle in handles:
        handle.remove()
    tensors = {
        size: (torch.randn(clips * size[0], size[2]), torch.randn(*size[1:])) for size in set(work)
    }

    def multiply() -> None:
        for size in work:
            x, weight = tensors[size]
            y = x @ weight.t()
            y @ weight
            y.t() @ x

    return 1e3 * statistics.median(in_turn({"products": multiply}, 7)["products"]) / clips


def peers(python: Path | None, per_clip_s: float) -> dict[str, Any]:
    """TRAK and dattri end to end on the same model and clips; `per_clip_s` is ours."""
    if python is None or not python.exists():
        missing = "missing: give --peers-python, a Python that has them"
        return {name: {"failed": missing} for name in ("traker", "dattri")}
    import torch
    from safetensors.torch import save_file

    case, latent = Case("tiny-wan", TINY_LATENTS[PEER_FRAMES]), TINY_LATENTS[PEER_FRAMES]

    class Denoiser(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = case.model

        def forward(self, noisy: Any, timestep: Any, text: Any) -> Any:
            return self.model(noisy, timestep, text, return_dict=False)[0]

    exported = torch.export.export(Denoiser(), (case.noisy, case.timestep, case.text))
    with tempfile.TemporaryDirectory() as folder:
        torch.export.save(exported, Path(folder) / "denoiser.pt2")
        clips = {
            "noisy": torch.randn(PEER_CLIPS, 16, *latent),
            "target": torch.randn(PEER_CLIPS, 16, *latent),
            "mask": torch.rand(PEER_CLIPS, *latent),
            "text": torch.randn(PEER_CLIPS, *case.text.shape[1:]),
        }
        save_file(clips, Path(folder) / "clips.safetensors")
        command = [str(python), str(HERE / "gradients_peers.py"), folder]
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        reason = (answer.stderr.strip().splitlines() or ["no output"])[-1]
        return {name: {"failed": reason} for name in ("traker", "dattri")}
    found: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    for peer in found.values():
        if "per_clip_s" in peer:
            peer["over_ours"] = peer["per_clip_s"] / per_clip_s
            peer["further_over_ours"] = peer["per_further_clip_s"] / per_clip_s
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=31, help="of each pass of tiny-wan")
    parser.add_argument("--peers-python", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        print(json.dumps(peak(*options.peak)))
        return
    results: dict[str, Any] = {"feature_over_backward": {}, "memory": {}, "batch": {}}
    for kind, latent, repeats in (
        ("tiny-wan", TINY_LATENTS[33], options.repeats),
        ("wide", WIDE_LATENT, max(3, options.repeats // 6)),
    ):
        row = overhead(kind, latent, repeats)
        results["feature_over_backward"][kind] = row["ratio"]
        results[kind] = row
        print(
            f"{kind:8}  bare {row['bare_ms']:8.1f} ms  feature {row['feature_ms']:8.1f} ms"
            f"  ratio {row['ratio']:.3f} (of minima {row['ratio_of_minima']:.3f})",
            flush=True,
        )
        saved = results["memory"][kind] = memory(kind)
        print(
            f"{'':8}  peak {saved['bare_mb']:.0f} MB and {saved['feature_mb']:.0f} MB: "
            f"{saved['saved_mb']:.0f} MB less, the gradient less its largest tensor being "
            f"{saved['gradient_less_one_tensor_mb']:.0f} MB",
            flush=True,
        )
    for frames in TINY_LATENTS:
        row = results["batch"][frames] = batch_throughput(frames, max(5, options.repeats // 4))
        row["products_ms"] = products(frames)
        print(
            f"tiny-wan, {frames:2} frames, {row['clips']:2} clips: {row['loop_ms_per_clip']:.1f} ms a"
            f" clip alone, {row['batch_ms_per_clip']:.1f} ms in a batch: {row['throughput']:.2f} times"
            f" the throughput; matrix products alone {row['products_ms']:.1f} ms;"
            f" features differ by {row['largest_difference']:.1g}",
            flush=True,
        )
    ours = results["batch"][PEER_FRAMES]["loop_ms_per_clip"] / 1e3
    results["peers"] = peers(options.peers_python, ours)
    for name, peer in results["peers"].items():
        said = peer.get("failed") or (
            f"{peer['per_clip_s']:.2f} s a clip for {peer['clips']} clips, "
            f"{peer['over_ours']:.0f} times ours one by one; without what it sets up "
            f"{peer['further_over_ours']:.0f} times"
        )
        print(f"{name}: {said}")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
