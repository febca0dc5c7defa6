"""What the projections do to inner products of real gradients, and of ones made to be difficult.

    python benchmarks/projection_error.py [--draws 500] [--dim 512] [--json FILE]

Pairs of gradients: of two MotionZoo clips' losses through the trained tiny-wan (all of its
parameters); and made ones of 1536 x 1536, a Wan2.1-1.3B attention weight. For every seed each of a
pair is projected, and the inner product is taken. Printed are the bias, in units of its own standard
error, and the variance, as a multiple of (1 + rho^2)/dim, rho being the true cosine: 1 is a dense
Gaussian projection's.
"""

import argparse
import json
import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from motive.gradients.projection import Projection, Shapes, make_projection

Gradient = dict[str, torch.Tensor]
KINDS = ("fastfood", "countsketch", "rademacher", "factored")
SIDE = 1536


def real_pair() -> tuple[Gradient, Gradient]:
    """Gradients of the plain flow-matching loss of two rendered clips at timestep 751."""
    import av
    from diffusers import WanPipeline

    import motive
    from motive.gradients.noise import shared_noise
    from motive.zoo.render import render_corpus

    folder = Path(motive.__file__).parent / "assets" / "tiny-wan"
    settings = json.loads((folder / "motive.json").read_text())
    pipeline = WanPipeline.from_pretrained(folder)
    vae, transformer = pipeline.vae, pipeline.transformer.eval()
    mean = torch.tensor(vae.config.latents_mean).view(-1, 1, 1, 1)
    deviation = torch.tensor(vae.config.latents_std).view(-1, 1, 1, 1)
    gradients = []
    with tempfile.TemporaryDirectory() as corpus:
        render_corpus(Path(corpus) / "zoo", 2, seed=11)
        for path in sorted((Path(corpus) / "zoo").rglob("*.mp4")):
            with av.open(str(path)) as container:
                frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
            size = (settings["frames"], settings["height"], settings["width"])
            pixels = torch.from_numpy(np.stack(frames)).permute(3, 0, 1, 2)[None].float()
            pixels = torch.nn.functional.interpolate(pixels / 127.5 - 1, size, mode="trilinear")
            with torch.no_grad():
                latents = (vae.encode(pixels).latent_dist.mode()[0] - mean) / deviation
                text, _ = pipeline.encode_prompt("a shape moves", do_classifier_free_guidance=False)
            noise = shared_noise(0, tuple(latents.shape))
            noisy = 0.249 * latents + 0.751 * noise
            transformer.zero_grad()
            predicted = transformer(noisy[None], torch.tensor([751.0]), text, return_dict=False)[0]
            (predicted[0] - (noise - latents)).square().mean().backward()
            gradients.append(
                {
                    name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
                    for name, p in transformer.named_parameters()
                }
            )
    return gradients[0], gradients[1]


def made_pair(kind: str) -> tuple[Gradient, Gradient]:
    """x, and y = x/2 + a part of its own kind, both 1536 x 1536."""
    rng = np.random.default_rng(0)

    def draw() -> np.ndarray:
        if kind == "heavy-tailed":
            return rng.standard_t(1.5, (SIDE, SIDE))
        if kind == "sparse":
            return rng.standard_normal((SIDE, SIDE)) * (rng.random((SIDE, SIDE)) < 1e-3)
        if kind == "equal rows":
            return np.outer(np.ones(SIDE), rng.standard_normal(SIDE))
        if kind == "rank 8":
            return rng.standard_normal((SIDE, 8)) @ rng.standard_normal((8, SIDE))
        if kind == "one hot column":
            return np.outer(rng.standard_normal(SIDE), np.arange(SIDE) == 77)
        return rng.standard_normal((SIDE, SIDE))

    x, z = (m / np.linalg.norm(m) for m in (draw(), draw()))
    y = x / 2 + z * math.sqrt(3) / 2
    return {"w": torch.from_numpy(x).float()}, {"w": torch.from_numpy(y).float()}


MADE = ("Gaussian", "heavy-tailed", "sparse", "equal rows", "rank 8", "one hot column")


def project(projection: Projection, gradient: Gradient) -> np.ndarray:
    projection.begin()
    for name, numbers in gradient.items():
        projection.add(name, numbers)
    return projection.finish().astype(np.float64)


def measure(x: Gradient, y: Gradient, kind: str, dim: int, draws: int) -> dict[str, Any]:
    shapes: Shapes = {name: tuple(numbers.shape) for name, numbers in x.items()}
    inner = sum(float((x[n].double() * y[n].double()).sum()) for n in x)
    norms = [math.sqrt(sum(float(g.double().square().sum()) for g in v.values())) for v in (x, y)]
    rho, scale = inner / math.prod(norms), math.prod(norms)
    products = np.empty(draws)
    for seed in range(draws):
        projection = make_projection(kind, dim, seed, shapes)
        products[seed] = project(projection, x) @ project(projection, y) / scale
    law = (1 + rho**2) / dim
    return {
        "numbers": sum(numbers.numel() for numbers in x.values()),
        "rho": rho,
        "bias_in_standard_errors": (products.mean() - rho) / math.sqrt(products.var() / draws),
        "variance_over_law": products.var() / law,
        "standard_error": math.sqrt(2 / draws),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--kinds", nargs="+", default=["fastfood"], choices=KINDS)
    parser.add_argument("--gradients", nargs="+", default=["real", *MADE])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    report: dict[str, Any] = {"dim": options.dim, "draws": options.draws, "results": {}}
    for name in options.gradients:
        x, y = real_pair() if name == "real" else made_pair(name)
        for kind in options.kinds:
            result = measure(x, y, kind, options.dim, options.draws)
            report["results"].setdefault(name, {})[kind] = result
            print(
                f"{name:<15} {kind:<12} {result['numbers']:>9,} numbers, rho {result['rho']:.3f}: "
                f"bias {result['bias_in_standard_errors']:+.1f} SE, variance "
                f"{result['variance_over_law']:.2f} +- {result['standard_error']:.2f} of the law's",
                flush=True,
            )
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
