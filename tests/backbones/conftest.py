"""Clips for the families' runs."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def few_clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three rendered clips of 9 and 17 frames, with metadata.csv."""
    from motive.zoo.render import render_corpus

    folder = tmp_path_factory.mktemp("few") / "clips"
    render_corpus(folder, 3, seed=5, lengths=(9, 17))
    return folder
