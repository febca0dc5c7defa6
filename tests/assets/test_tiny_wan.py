"""The shipped model is what its card says."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import WanPipeline

from motive.backbones.source import ASSETS
from motive.zoo.motions import KINDS
from motive.zoo.scene import draw_scene, render_frames

FOLDER = ASSETS / "tiny-wan"
UNSEEN = 103  # the corpus seed that the training script holds out


@pytest.fixture(scope="module")
def pipeline() -> WanPipeline:
    return WanPipeline.from_pretrained(FOLDER)


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_sizes(pipeline: WanPipeline) -> None:
    assert 2_000_000 <= count(pipeline.transformer) <= 5_000_000
    assert count(pipeline.vae) < 1_000_000
    assert sum(f.stat().st_size for f in FOLDER.rglob("*") if f.is_file()) < 16 * 2**20
    assert not [f for f in FOLDER.rglob("*") if f.suffix in (".bin", ".pt", ".ckpt", ".pkl")]


def test_card_tells_the_recorded_facts(pipeline: WanPipeline) -> None:
    facts = json.loads((FOLDER / "training.json").read_text())
    card = (FOLDER / "README.md").read_text()
    assert facts["parameters"]["transformer"] == count(pipeline.transformer)
    assert facts["parameters"]["vae"] == count(pipeline.vae)
    assert f"{facts['psnr_unseen_db']['mean']} dB" in card
    assert sum(facts["hours"].values()) <= 3


def test_vae_reconstructs_unseen_clips(pipeline: WanPipeline) -> None:
    values = []
    for i in range(42, 70):
        scene = draw_scene(KINDS[i % 14], (9, 17, 33)[i % 3], seed=UNSEEN, index=i)
        video = torch.from_numpy(render_frames(scene)[None]).permute(0, 4, 1, 2, 3) / 127.5 - 1
        with torch.no_grad():
            latents = pipeline.vae.encode(video).latent_dist.mode()
            output = pipeline.vae.decode(latents).sample.clamp(-1, 1)
        values.append(10 * math.log10(4 / (output - video).square().mean().item()))
    assert np.mean(values) >= 25


def test_pipeline_generates_a_clip_that_its_caption_changes(pipeline: WanPipeline) -> None:
    def clip(prompt: str) -> np.ndarray:
        return pipeline(
            prompt,
            height=64,
            width=64,
            num_frames=9,
            num_inference_steps=8,
            guidance_scale=1.0,
            max_sequence_length=32,
            generator=torch.Generator().manual_seed(0),
        ).frames[0]

    red = clip("a pink and orange circle stands still in a dim red scene")
    blue = clip("a teal and white circle stands still in a dim blue scene")
    assert red.shape == (9, 64, 64, 3)
    assert np.isfinite(red).all()

    def warmth(frames: np.ndarray) -> float:
        return float(frames[..., 0].mean() - frames[..., 2].mean())

    # A red scene is warmer than a blue one, or the text does not reach the picture.
    assert warmth(red) > warmth(blue) + 0.03


def test_trained_better_than_nothing() -> None:
    losses = json.loads((FOLDER / "training.json").read_text())["loss"]
    for name, log in losses.items():
        assert log[-1][2] < 0.7 * log[0][2], name


def test_recommended_frames_are_the_zoos() -> None:
    assert json.loads(Path(FOLDER / "motive.json").read_text()) == {
        "frames": 33,
        "height": 64,
        "width": 64,
        "fps": 16,
        "steps": 20,
    }
