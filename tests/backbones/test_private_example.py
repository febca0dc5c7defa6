"""examples/private_adapter, as its page says: a model folder is made, and its adapter is named."""

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

from motive import Run
from motive.backbones import private
from motive.cli import main

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/private_adapter"
ADAPTER = f"{EXAMPLE / 'house_video.py'}:HouseVideoBackbone"


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What `python make_model.py FOLDER` writes."""
    folder = tmp_path / "my-house-video"
    monkeypatch.syspath_prepend(EXAMPLE)
    monkeypatch.setattr(sys, "argv", ["make_model.py", str(folder)])
    runpy.run_path(str(EXAMPLE / "make_model.py"), run_name="__main__")
    return folder


def motive(*words: object) -> int:
    """The exit code of a command, whose adapters are its own."""
    private.named.clear()
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    return int(end.value.code or 0)


def test_an_adapter_in_one_file_outside_the_package(
    model: Path,
    few_clips: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(private, "named", {})
    monkeypatch.delenv("MOTIVE_ADAPTER", raising=False)
    out = tmp_path / "run"
    curate = ["curate", "--clips", few_clips, "--queries", few_clips, "--model", model]
    curate += ["--out", out, "--quiet", "--dim", 32, "--device", "cpu"]

    assert motive(*curate) == 2
    complaint = capsys.readouterr().err
    assert "is a HouseVideoPipeline pipeline, which has no adapter yet" in complaint
    assert not out.exists()

    assert motive("--adapter", ADAPTER, *curate) == 0
    capsys.readouterr()
    assert motive("--adapter", ADAPTER, "info", out, "--json") == 0
    assert json.loads(capsys.readouterr().out)["objective"]["denoiser"] == "network"
    assert motive("--adapter", ADAPTER, "doctor", model, "--device", "cpu", "--json") == 0
    assert json.loads(capsys.readouterr().out)["latent_cells"] == 3 * 4 * 4
    features = Run.open(out).features("clip")
    assert len(features.members) == 3
    assert np.allclose(np.linalg.norm(features.features_nd, axis=1), 1, atol=1e-5)
