"""A clip's real feature at Wan2.1-T2V-1.3B size, with random weights: seconds by part and peak memory.

    python benchmarks/full_size.py [--latent 2x16x16] [--json FILE]

Three passes, each in a process of its own: `drop` frees every gradient as it appears (the floor of any
streaming method), `feature` is what `motive gradients` does, `keep` holds all gradients as autograd does
by itself. Time and memory grow with the latent; the weights' 5.7 GB do not.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

PASSES = ("drop", "feature", "keep")
PARAMETERS = 1_418_996_800


def measure(kind: str, latent_fhw: tuple[int, int, int], threads: int) -> dict[str, float]:
    """One pass of `kind`, in this process."""
    import torch
    from diffusers import WanTransformer3DModel

    from motive.gradients.loss import motion_weighted_loss
    from motive.gradients.noise import shared_noise
    from motive.gradients.streaming import StreamingGradient, choose_parameters
    from motive.runs.provenance import peak_memory_mb

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    start = time.monotonic()
    # diffusers' defaults are the 14B model's; these are the published 1.3B's.
    model = WanTransformer3DModel(num_layers=30, num_attention_heads=12, ffn_dim=8960).eval()
    parameters = choose_parameters(model, "*")
    assert sum(p.numel() for p in parameters.values()) == PARAMETERS
    built, resident = time.monotonic() - start, peak_memory_mb()
    latents = shared_noise(1, (16, *latent_fhw))
    noise, sigma = shared_noise(0, (16, *latent_fhw)), 0.751
    noisy = (1 - sigma) * latents + sigma * noise
    text = torch.randn(1, 512, 4096)
    mask = torch.ones(latent_fhw)

    def loss_of() -> torch.Tensor:
        output = model(noisy[None], torch.tensor([751.0]), text, return_dict=False)[0][0]
        return motion_weighted_loss(output, noise - latents, mask, frames=4 * latent_fhw[0] - 3)

    gradient = None
    if kind == "feature":
        gradient = StreamingGradient(parameters, "fastfood", 512, 0)
        # The kernel is compiled once in a lifetime, not once a clip.
        gradient.projection.begin()
        gradient.projection.add("proj_out.weight", torch.zeros_like(parameters["proj_out.weight"]))
    elif kind == "drop":
        for parameter in parameters.values():
            parameter.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))
    start = time.monotonic()
    if gradient is not None:
        gradient.feature(loss_of)
    else:
        loss_of().backward()
    return {
        "build_s": built,
        "pass_s": time.monotonic() - start,
        "weights_mb": resident,
        "peak_mb": peak_memory_mb(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--latent", default="2x16x16", help="latent frames x height x width")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--passes", default=",".join(PASSES))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", choices=PASSES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    frames, height, width = (int(n) for n in args.latent.split("x"))
    if args.one:
        print(json.dumps(measure(args.one, (frames, height, width), args.threads)))
        return
    results = {}
    for kind in args.passes.split(","):
        command = [sys.executable, __file__, "--one", kind, "--latent", args.latent]
        answer = subprocess.run(
            [*command, "--threads", str(args.threads)], capture_output=True, text=True, check=True
        )
        results[kind] = json.loads(answer.stdout.splitlines()[-1])
        row = results[kind]
        print(f"{kind:8} {row['pass_s']:7.1f} s  peak {row['peak_mb'] / 1024:5.2f} GB", flush=True)
    if {"drop", "feature"} <= results.keys():
        drop, feature = results["drop"], results["feature"]
        results["feature_over_drop"] = feature["pass_s"] / drop["pass_s"]
        results["extra_mb"] = feature["peak_mb"] - drop["peak_mb"]
        print(
            f"feature / drop: {results['feature_over_drop']:.3f} in time, "
            f"{results['extra_mb']:+.0f} MB at the peak"
        )
    if args.json:
        args.json.write_text(json.dumps({"latent": args.latent, **results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
