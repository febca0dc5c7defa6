"""A run whose clips a model is fine-tuned on."""

import json
import shutil
from pathlib import Path

import pytest

from motive import Run


@pytest.fixture(scope="session")
def tuning_run(small_wan: Path, zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fourteen rendered clips of 9 frames, half of them selected. Only encodings may be added."""
    path = tmp_path_factory.mktemp("tuning") / "run"
    Run.create(path, clips=str(zoo), queries=str(zoo), model=str(small_wan)).curate(report=False)
    return path


@pytest.fixture
def two_experts(small_wan: Path, tmp_path: Path) -> Path:
    """`small_wan` with a second expert, below the timestep 875."""
    folder = Path(shutil.copytree(small_wan, tmp_path / "two-experts"))
    shutil.copytree(folder / "transformer", folder / "transformer_2")
    index = json.loads((folder / "model_index.json").read_text())
    index |= {"transformer_2": index["transformer"], "boundary_ratio": 0.875}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder
