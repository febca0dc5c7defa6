"""Clips' features at the size of published models, with random weights: seconds and peak memory.

    python benchmarks/full_size.py [--model wan2.1-1.3b] [--latent 2x16x16] [--curate] [--json FILE]

Three passes, each in a process of its own: `drop` frees every gradient as it appears (the floor of any
streaming method), `feature` is what `motive gradients` does, `keep` holds all gradients as autograd does
by itself. Time and memory grow with the latent; the weights do not. `wan2.2-5b` is in bfloat16, as it is
published, and takes 9.3 GB of weights; to keep its gradients would take as much again.

`--curate` saves a pipeline with the 1.3B transformer (5.7 GB, in a temporary folder that is removed) and
runs `motive curate` on three clips and two queries.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

PASSES = ("drop", "feature", "keep")
# What differs from diffusers' defaults, which are Wan2.1-T2V-14B's, and the parameters there must be.
MODELS: dict[str, tuple[dict[str, int], int]] = {
    "wan2.1-1.3b": (
        {"num_layers": 30, "num_attention_heads": 12, "ffn_dim": 8960},
        1_418_996_800,
    ),
    "wan2.2-5b": (
        {
            "num_layers": 30,
            "num_attention_heads": 24,
            "ffn_dim": 14336,
            "in_channels": 48,
            "out_channels": 48,
        },
        4_999_787_712,
    ),
}
HALF = "wan2.2-5b"  # in bfloat16
CLIPS, QUERIES = 3, 2


def transformer(model: str) -> Any:
    """The denoiser with random weights, its small sensitive parts in float32 as diffusers loads them."""
    import torch
    from diffusers import WanTransformer3DModel

    settings, count = MODELS[model]
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16 if model == HALF else torch.float32)
    try:
        made = WanTransformer3DModel(**settings).eval()
    finally:
        torch.set_default_dtype(torch.float32)
    for name, parameter in made.named_parameters():
        if any(part in name.split(".") for part in made._keep_in_fp32_modules):
            parameter.data = parameter.data.float()
    assert sum(p.numel() for p in made.parameters()) == count
    return made


def measure(
    kind: str, model_name: str, latent_fhw: tuple[int, int, int], threads: int
) -> dict[str, float]:
    """One pass of `kind`, in this process."""
    import torch

    from motive.gradients.loss import motion_weighted_loss
    from motive.gradients.noise import shared_noise
    from motive.gradients.streaming import StreamingGradient, choose_parameters
    from motive.runs.provenance import peak_memory_mb

    torch.set_num_threads(threads)
    start = time.monotonic()
    model = transformer(model_name)
    parameters = choose_parameters(model, "*")
    built, resident = time.monotonic() - start, peak_memory_mb()
    shape = (model.config.in_channels, *latent_fhw)
    latents = shared_noise(1, shape)
    noise, sigma = shared_noise(0, shape), 0.751
    noisy = ((1 - sigma) * latents + sigma * noise).to(parameters["proj_out.weight"].dtype)
    text = torch.randn(1, 512, 4096, dtype=noisy.dtype)
    mask = torch.ones(latent_fhw)

    def loss_of() -> torch.Tensor:
        output = model(noisy[None], torch.tensor([751.0]), text, return_dict=False)[0][0]
        frames = 4 * latent_fhw[0] - 3
        return motion_weighted_loss(output.float(), noise - latents, mask, frames=frames)

    gradient = None
    if kind == "feature":
        gradient = StreamingGradient(parameters, "fastfood", 512, 0)
        # The kernel is compiled once in a lifetime, not once a clip.
        gradient.projection.begin()
        gradient.projection.add("proj_out.weight", torch.zeros_like(parameters["proj_out.weight"]))
    elif kind == "drop":
        for parameter in parameters.values():
            parameter.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))
    start, cpu = time.monotonic(), time.process_time()
    if gradient is not None:
        gradient.feature(loss_of)
    else:
        loss_of().backward()
    return {
        "build_s": built,
        "pass_s": time.monotonic() - start,
        "pass_cpu_s": time.process_time() - cpu,
        "weights_mb": resident,
        "peak_mb": peak_memory_mb(),
    }


def save_pipeline(folder: Path) -> None:
    """A WanPipeline with the 1.3B transformer; a text encoder and a VAE of the real classes, small."""
    from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, WanPipeline
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

    letters = {"<pad>": 0, "</s>": 1, "<unk>": 2} | {chr(c): c - 94 for c in range(97, 123)}
    core = Tokenizer(models.WordLevel(letters, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    core.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
        model_max_length=512,
    )  # fmt: skip
    text_encoder = UMT5EncoderModel(
        UMT5Config(
            vocab_size=32, d_model=4096, d_kv=8, d_ff=32, num_layers=1, num_heads=2,
            pad_token_id=0, eos_token_id=1,
        )
    )  # fmt: skip
    vae = AutoencoderKLWan(
        base_dim=4, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1,
        temperal_downsample=[False, True, True],
    )  # fmt: skip
    WanPipeline(
        tokenizer=tokenizer,
        text_encoder=text_encoder,
        vae=vae,
        transformer=transformer("wan2.1-1.3b"),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    ).save_pretrained(folder)


def save_clips(folder: Path, count: int, seed: int) -> None:
    """Videos of 9 frames of 64 x 64 in which a textured square moves."""
    import av
    import numpy as np

    folder.mkdir()
    rng = np.random.default_rng(seed)
    for clip in range(count):
        back, square = rng.integers(0, 256, (2, 64, 64, 3), np.uint8)
        with av.open(str(folder / f"{clip}.mp4"), "w") as file:
            stream = file.add_stream("libx264", rate=16)
            stream.width = stream.height = 64
            stream.pix_fmt = "yuv420p"
            for frame in range(9):
                picture, at = back // 2, 8 + (2 + clip) * frame
                picture[20:40, at : at + 20] = square[:20, :20]
                file.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            file.mux(stream.encode())
        (folder / f"{clip}.txt").write_text("a square moves")


def curate(threads: int) -> dict[str, Any]:
    """`motive curate` at full size, to the end: its seconds, peak memory and ranking."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        save_clips(folder / "clips", CLIPS, 1)
        save_clips(folder / "queries", QUERIES, 2)
        # In a process of its own: of this one's children the greatest peak is asked for below.
        making = f"import full_size, pathlib; full_size.save_pipeline(pathlib.Path({temporary!r}) / 'model')"
        subprocess.run([sys.executable, "-c", making], cwd=Path(__file__).parent, check=True)
        paths = {name: str(folder / name) for name in ("clips", "queries", "model")}
        command = ["curate", "--out", str(folder / "run"), "--threads", str(threads), "--quiet"]
        # The model's own 480 x 832 would take half an hour a clip on a CPU.
        command += ["--size", "128x128", "--frames", "5"]
        for name, path in paths.items():
            command += [f"--{name}", path]
        # The child reports on itself: what it peaked at is no longer known when it has ended.
        watch = (
            "import json, sys; from motive.cli import main; from motive.runs.provenance import "
            "peak_memory_mb\ntry:\n code = main()\nexcept SystemExit as end:\n code = end.code\n"
            "print(json.dumps([code or 0, peak_memory_mb()]))"
        )
        start = time.monotonic()
        answer = subprocess.run(
            [sys.executable, "-c", watch, *command],
            capture_output=True,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        )
        seconds = time.monotonic() - start
        if answer.returncode:
            raise SystemExit(answer.stdout + answer.stderr)
        code, peak = json.loads(answer.stdout.splitlines()[-1])
        ranking = (folder / "run/selection.csv").read_text() if code == 0 else answer.stdout
        size = sum(file.stat().st_size for file in (folder / "model").rglob("*") if file.is_file())
    return {
        "exit_code": code,
        "seconds": seconds,
        "peak_mb": peak,
        "model_gb": size / 1e9,
        "clips_ranked": len(ranking.splitlines()) - 1,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", choices=MODELS, default="wan2.1-1.3b")
    parser.add_argument("--latent", default="2x16x16", help="latent frames x height x width")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--passes", help="default: all, without keep for wan2.2-5b")
    parser.add_argument("--curate", action="store_true", help="motive curate instead of passes")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", choices=PASSES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    frames, height, width = (int(n) for n in args.latent.split("x"))
    if args.one:
        found = measure(args.one, args.model, (frames, height, width), args.threads)
        print(json.dumps(found))
        return
    results: dict[str, Any] = {"load_before": os.getloadavg()[0]}
    if args.curate:
        row = results["curate"] = curate(args.threads)
        print(
            f"motive curate, {CLIPS} clips and {QUERIES} queries, {row['model_gb']:.1f} GB model: exit "
            f"code {row['exit_code']} after {row['seconds']:.0f} s, peak {row['peak_mb'] / 1024:.2f} "
            f"GB, {row['clips_ranked']} clips ranked"
        )
    else:
        passes = args.passes or ",".join(PASSES[: 2 if args.model == HALF else 3])
        for kind in passes.split(","):
            command = [sys.executable, __file__, "--one", kind, "--latent", args.latent]
            command += ["--model", args.model, "--threads", str(args.threads)]
            answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            row = results[kind] = json.loads(answer.stdout.splitlines()[-1])
            print(
                f"{kind:8} {row['pass_s']:7.1f} s  {row['pass_cpu_s']:7.1f} s of processor"
                f"  peak {row['peak_mb'] / 1024:5.2f} GB",
                flush=True,
            )
    if {"drop", "feature"} <= results.keys():
        drop, feature = results["drop"], results["feature"]
        results["feature_over_drop"] = feature["pass_cpu_s"] / drop["pass_cpu_s"]
        results["extra_mb"] = feature["peak_mb"] - drop["peak_mb"]
        print(
            f"feature / drop: {results['feature_over_drop']:.3f} in processor time, "
            f"{results['extra_mb']:+.0f} MB at the peak"
        )
    results["load_after"] = os.getloadavg()[0]
    if args.json:
        about = {} if args.curate else {"model": args.model, "latent": args.latent}
        args.json.write_text(json.dumps({**about, **results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
