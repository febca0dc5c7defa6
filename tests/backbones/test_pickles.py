"""A checkpoint that is a program: under every name that a loader looks for, it is not run."""

import pickle
import shutil
from pathlib import Path

import pytest
import torch

from motive.backbones import load_backbone
from motive.backbones.source import find_model
from motive.errors import UserError

PLACES = {
    "transformer": ("diffusion_pytorch_model.bin", "diffusion_pytorch_model.pt", "model.ckpt"),
    "vae": ("diffusion_pytorch_model.bin", "diffusion_pytorch_model.fp16.bin"),
    "text_encoder": ("pytorch_model.bin", "pytorch_model-00001-of-00001.bin", "model.pt"),
}


class Trap:
    """Unpickled, it leaves a file."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.place,))


def load(model: Path, part: str) -> None:
    backbone = load_backbone(find_model(str(model)))
    {
        "transformer": backbone.load_denoiser,
        "vae": backbone.load_vae,
        "text_encoder": backbone.load_text_encoder,
    }[part]()


@pytest.mark.parametrize("part", PLACES)
@pytest.mark.parametrize("form", ["pickle", "torch", "torch in a dict"])
def test_a_model_folder_runs_no_code(small_wan: Path, tmp_path: Path, part: str, form: str) -> None:
    model, sprung = Path(shutil.copytree(small_wan, tmp_path / "model")), tmp_path / "sprung"
    trap = Trap(sprung)
    for weights in (model / part).glob("*.safetensors*"):
        weights.unlink()
    for name in PLACES[part]:
        if form == "pickle":
            (model / part / name).write_bytes(pickle.dumps(trap))
        else:
            torch.save(trap if form == "torch" else {"model": trap}, model / part / name)
    index = '{"metadata": {}, "weight_map": {"shared.weight": "pytorch_model-00001-of-00001.bin"}}'
    (model / part / "pytorch_model.bin.index.json").write_text(index)
    with pytest.raises(UserError):
        load(model, part)
    assert not sprung.exists()
    pickle.loads(pickle.dumps(trap))
    assert sprung.exists(), "the trap is none"
