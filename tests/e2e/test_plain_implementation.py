"""The whole method once more, plainly: diffusers' pipeline, one autograd call, one dot product.

Nothing of `motive` takes part but the tracker's displacement field and the shared noise. The formulas
are the paper's (arXiv 2601.08828, section 3), the flow-matching conventions are Wan's.
"""

import csv
import math
import shutil
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from commands import Terminal
from diffusers import WanPipeline
from run_files import clip_ids, features, rows, scores

from motive.gradients.noise import shared_noise
from motive.motion.dis import DisTracker
from motive.zoo.render import render_corpus

SEED = 11
LENGTHS = (5, 9)
SIZE = 32  # pixels, as small_wan takes them


@dataclass(frozen=True)
class Curated:
    """An identity-projected run of rendered clips against two of them."""

    run: Path
    clips: list[dict[str, str]]
    folder: Path


@dataclass(frozen=True)
class Gradient:
    """A clip's whole gradient of the motion-weighted loss.

    unit: the direction, by sorted parameter name; zero for a static clip. With several timesteps that
        of the sum of the unit vectors. norm, loss: means over the timesteps.
    """

    unit: np.ndarray
    norm: float
    loss: float


OPTIONS: dict[str, list[str]] = {
    "masked": [],
    "plain": ["--mask", "none"],
    "one layer": ["--parameters", "blocks.1.*"],
    "two timesteps": ["--timestep", "751,400"],
}


@pytest.fixture(scope="module", params=OPTIONS)
def variant(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def clips(still: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten rendered clips of two lengths, and one without motion."""
    folder = tmp_path_factory.mktemp("mixed") / "clips"
    render_corpus(folder, 10, seed=5, lengths=LENGTHS)
    shutil.copy(still, folder)
    table = folder / "metadata.csv"
    with table.open(newline="") as file:
        found = list(csv.DictReader(file))
    found.append(dict.fromkeys(found[0], "") | {"file_name": still.name, "frames": "9"})
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, found[0])
        writer.writeheader()
        writer.writerows(found)
    return folder


@pytest.fixture(scope="module")
def curated(
    motive: Terminal,
    small_wan: Path,
    clips: Path,
    variant: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Curated:
    run = tmp_path_factory.mktemp("identity") / "run"
    words = ["curate", "--clips", clips, "--queries", clips, "--model", small_wan, "--out", run]
    words += ["--projection", "identity", "--seed", SEED, "--quiet", *OPTIONS[variant]]
    motive(*words).succeeded()
    with (clips / "metadata.csv").open(newline="") as file:
        return Curated(run, list(csv.DictReader(file)), clips)


@pytest.fixture(scope="module")
def gradients(curated: Curated, small_wan: Path, variant: str) -> dict[str, Gradient]:
    """The plain implementation's gradients by file name."""
    torch.set_num_threads(1)
    pipeline = WanPipeline.from_pretrained(small_wan)
    transformer = pipeline.transformer.eval()
    pattern = "blocks.1." if variant == "one layer" else ""
    named = sorted((n, p) for n, p in transformer.named_parameters() if n.startswith(pattern))
    # Half-way through the 1000 steps of the model's own shifted trajectory.
    middle = round(pipeline.scheduler.timesteps[499].item())
    assert middle == 751
    found = {}
    for clip in curated.clips:
        frames = decode(curated.folder / clip["file_name"])
        latents = encode(pipeline, frames)
        weight = torch.ones(latents.shape[1:]) if variant == "plain" else mask(frames)
        with torch.no_grad():
            text, _ = pipeline.encode_prompt(
                clip["caption"], do_classifier_free_guidance=False, max_sequence_length=24
            )
        units, norms, losses = [], [], []
        for draw, timestep in enumerate([middle, 400] if variant == "two timesteps" else [middle]):
            sigma = timestep / 1000
            noise = shared_noise(SEED, tuple(latents.shape), draw)
            prediction = transformer(
                (sigma * noise + (1 - sigma) * latents)[None],
                timestep=torch.tensor([timestep]),
                encoder_hidden_states=text,
            ).sample[0]
            error = weight * (prediction - (noise - latents)) ** 2
            loss = error.sum() / error.numel() / len(frames)
            gradient = whole_gradient(loss, [p for _, p in named])
            norms.append(math.sqrt(gradient @ gradient))
            units.append(gradient / (norms[-1] or 1))
            losses.append(loss.item())
        total = np.sum(units, axis=0)
        unit = total / (math.sqrt(total @ total) or 1)
        found[clip["file_name"]] = Gradient(unit, float(np.mean(norms)), float(np.mean(losses)))
    return found


def whole_gradient(loss: torch.Tensor, parameters: list[torch.nn.Parameter]) -> np.ndarray:
    """All parameters' gradients, one after the other, in float64."""
    parts = torch.autograd.grad(loss, parameters, allow_unused=True)
    flat = [
        torch.zeros(p.numel()) if g is None else g.flatten()
        for p, g in zip(parameters, parts, strict=True)
    ]
    return torch.cat(flat).double().numpy()


def decode(path: Path) -> np.ndarray:
    """All frames, at the size that the model takes: (F, 32, 32, 3) RGB."""
    with av.open(str(path)) as container:
        images = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(images) in LENGTHS
    return np.stack([cv2.resize(i, (SIZE, SIZE), interpolation=cv2.INTER_AREA) for i in images])


@torch.no_grad()
def encode(pipeline: WanPipeline, frames_fhw3: np.ndarray) -> torch.Tensor:
    """(16, 1 + (F - 1) / 4, 4, 4), normalised by the VAE's own statistics."""
    video = pipeline.video_processor.preprocess_video(
        [torch.from_numpy(frames_fhw3).permute(0, 3, 1, 2).float() / 255]
    )
    posterior = pipeline.vae.encode(video).latent_dist
    mean = torch.tensor(pipeline.vae.config.latents_mean)[:, None, None, None]
    std = torch.tensor(pipeline.vae.config.latents_std)[:, None, None, None]
    return (posterior.mean[0] - mean) / std


def mask(frames_fhw3: np.ndarray) -> torch.Tensor:
    """Section 3.3: min-max over the clip, bilinear to the latent grid, mean over a latent's frames."""
    displacement = torch.from_numpy(DisTracker().track(frames_fhw3).displacement_fhw2)
    magnitude = displacement.square().sum(-1).sqrt()
    grid = SIZE // 8
    if magnitude.max() <= 0.1:
        pixels = torch.zeros(len(frames_fhw3), grid, grid)
    else:
        unit = (magnitude - magnitude.min()) / (magnitude.max() - magnitude.min() + 1e-6)
        pixels = torch.nn.functional.interpolate(
            unit[:, None], size=(grid, grid), mode="bilinear", align_corners=False
        )[:, 0]
    later = pixels[1:].reshape(-1, 4, grid, grid).mean(1)  # frames 4k - 3 ... 4k
    return torch.cat([pixels[:1], later])


def test_clips_have_both_lengths(curated: Curated) -> None:
    assert {int(clip["frames"]) for clip in curated.clips} == set(LENGTHS)


def test_scores_equal_the_plain_ones(
    curated: Curated, gradients: dict[str, Gradient], variant: str
) -> None:
    found = scores(curated.run)
    queries, ids = clip_ids(curated.run, "query"), clip_ids(curated.run, "clip")
    static = {name for name, gradient in gradients.items() if gradient.norm == 0}
    assert static == (set() if variant == "plain" else {"still.mp4"})
    plain = {
        (query_id, clip_id): float(gradients[query].unit @ gradients[clip].unit)
        for query, query_id in queries.items()
        for clip, clip_id in ids.items()
        if query not in static
    }
    assert found.keys() == plain.keys()
    assert max(abs(found[pair] - plain[pair]) for pair in plain) <= 1e-5


def test_losses_and_norms_equal_the_plain_ones(
    curated: Curated, gradients: dict[str, Gradient]
) -> None:
    """The cosine hides the length factor 1 / F; the norm and the loss show it."""
    names = {clip_id: name for name, clip_id in clip_ids(curated.run, "clip").items()}
    for row in rows(curated.run, "features"):
        plain = gradients[names[row["clip_id"]]]
        assert row["loss"] == pytest.approx(plain.loss, rel=1e-5, abs=0)
        assert row["norm"] == pytest.approx(plain.norm, rel=1e-5, abs=0)


def test_features_are_the_plain_unit_gradients(
    curated: Curated, gradients: dict[str, Gradient]
) -> None:
    stored = {key.partition(":")[0]: vector for key, vector in features(curated.run).items()}
    for name, clip_id in clip_ids(curated.run, "clip").items():
        assert np.linalg.norm(stored[clip_id] - gradients[name].unit) <= 1e-5
