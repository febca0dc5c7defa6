"""Clips for the families' runs, and the small Wan with fine-tuned weights of its own."""

from pathlib import Path

import pytest
import torch
from diffusers import WanTransformer3DModel

from motive.backbones import load_backbone
from motive.backbones.base import Backbone
from motive.backbones.source import find_model


@pytest.fixture(scope="session")
def few_clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three rendered clips of 9 and 17 frames, with metadata.csv."""
    from motive.zoo.render import render_corpus

    folder = tmp_path_factory.mktemp("few") / "clips"
    render_corpus(folder, 3, seed=5, lengths=(9, 17))
    return folder


@pytest.fixture
def backbone(small_wan: Path) -> Backbone:
    return load_backbone(find_model(str(small_wan)), dtype="float32", device="cpu")


@pytest.fixture
def tuned(small_wan: Path) -> WanTransformer3DModel:
    model = WanTransformer3DModel.from_pretrained(small_wan / "transformer").eval()
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return model
