"""The networks: to the originals' numbers, whole or refused, and a user's own."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_networks import clip_folder, dino_folder
from torch import Tensor, nn

from motive.errors import ClipError, UserError
from motive.evaluation.networks.choice import MissingNetworkError
from motive.evaluation.networks.clip import Clip
from motive.evaluation.networks.dino import Dino
from motive.evaluation.networks.plugin import Plugin, parse_plugins
from motive.evaluation.networks.raft import UPDATES, Raft

# The class token that facebookresearch/dino's vision_transformer.py gives (its commit of the hub, Apache-2.0)
# with these weights and pictures, by height and width.
ORIGINAL = {
    (32, 32): (1.179133, 0.685619, 0.011536, 0.081459, 0.236579, -0.137405, -0.226195, 0.291946),
    (32, 45): (1.179446, 0.686103, 0.011556, 0.08114, 0.236584, -0.136911, -0.225866, 0.291663),
    (40, 32): (1.17243, 0.680541, 0.011309, 0.086818, 0.23765, -0.146112, -0.231427, 0.294803),
}


def picture(height: int, width: int) -> Tensor:
    places = torch.arange(3 * height * width, dtype=torch.float64)
    return torch.sin(places * 0.01).reshape(1, 3, height, width).float()


@pytest.mark.parametrize("size", list(ORIGINAL))
def test_dino_gives_the_original_programs_numbers(tmp_path: Path, size: tuple[int, int]) -> None:
    from transformers import ViTModel

    folder = dino_folder(tmp_path / "dino")
    found = Dino(str(folder), "cpu")(picture(*size))
    torch.testing.assert_close(found, torch.tensor([ORIGINAL[size]]), atol=2e-6, rtol=0)
    # Without what `Dino` puts right, transformers' numbers are others.
    plain = ViTModel.from_pretrained(folder, add_pooling_layer=False)
    with torch.no_grad():
        other = plain(picture(*size), interpolate_pos_encoding=True).last_hidden_state[:, 0]
    assert (other - found).abs().max() > 1e-5


def test_clip_gives_the_projected_class_token_of_a_whole_model(tmp_path: Path) -> None:
    from transformers import CLIPModel

    folder = clip_folder(tmp_path / "clip")
    images = torch.randn(3, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    found = Clip(str(folder), "--clip-base", "cpu")(images)
    whole = CLIPModel.from_pretrained(folder).eval()
    with torch.no_grad():
        tokens = whole.vision_model(pixel_values=images).last_hidden_state[:, 0]
        expected = whole.visual_projection(whole.vision_model.post_layernorm(tokens))
    assert found.shape == (3, 12)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_a_network_is_known_by_its_weights(tmp_path: Path) -> None:
    folder = dino_folder(tmp_path / "dino")
    before = Dino(str(folder), "cpu").identity
    assert before == Dino(str(folder), "cpu").identity
    weights = load_file(folder / "model.safetensors")
    weights["embeddings.cls_token"] += 0.1
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert Dino(str(folder), "cpu").identity != before


def test_what_is_not_whole_is_refused(tmp_path: Path) -> None:
    folder = dino_folder(tmp_path / "dino")
    weights = load_file(folder / "model.safetensors")
    del weights["embeddings.cls_token"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match=r"lacks 1 weights of a ViTModel, such as embeddings.cls"):
        Dino(str(folder), "cpu")
    (folder / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"--dino .* cannot be loaded"):
        Dino(str(folder), "cpu")
    with pytest.raises(UserError, match=r"there is no folder ./none: give --dino"):
        Dino("./none", "cpu")


def test_what_the_hub_does_not_give_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(MissingNetworkError) as missing:
        Clip("nobody/nothing-at-all", "--clip-base", "cpu")
    assert "the hub does not give nobody/nothing-at-all" in missing.value.why
    assert missing.value.how.startswith("run hf download nobody/nothing-at-all")


class Shift(nn.Module):
    """A network that says where the second picture is brighter; only its calls are looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self, one: Tensor, other: Tensor, num_flow_updates: int) -> list[Tensor]:
        assert num_flow_updates == UPDATES
        assert one.min() >= -1
        assert one.max() <= 1
        flow = (other - one).mean() * 127.5 * self.weight[None, :, None, None]
        final = flow.expand(-1, 2, *one.shape[2:])
        return [final * 0] * (num_flow_updates - 1) + [final]


def torchvision(monkeypatch: pytest.MonkeyPatch, get_state_dict: Any) -> None:
    models: Any = ModuleType("torchvision.models")
    published = SimpleNamespace(url="https://there/raft.pth", get_state_dict=get_state_dict)
    models.optical_flow = SimpleNamespace(
        raft_large=lambda **options: Shift(),
        Raft_Large_Weights=SimpleNamespace(C_T_V1=published),
    )
    monkeypatch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.models", models)


def test_raft_is_asked_as_vbench_asks_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def publish(**options: Any) -> dict[str, Tensor]:
        assert options["weights_only"] is True
        return {"weight": torch.tensor([2.0, 1.0])}

    torchvision(monkeypatch, publish)
    dark, bright = torch.full((1, 3, 128, 136), 10.0), torch.full((1, 3, 128, 136), 13.0)
    flow = Raft(device="cpu")(dark, bright)
    assert flow.shape == (2, 128, 136)
    torch.testing.assert_close(flow.mean((1, 2)), torch.tensor([6.0, 3.0]))
    with pytest.raises(ClipError, match="smaller than the 128 pixels"):
        Raft(device="cpu")(dark[..., :64, :], bright[..., :64, :])
    save_file({"weight": torch.tensor([2.0, 1.0])}, tmp_path / "raft.safetensors")
    own = Raft(str(tmp_path / "raft.safetensors"), "cpu")
    assert own.identity == Raft(device="cpu").identity
    save_file({"bias": torch.ones(2)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="is no RAFT checkpoint"):
        Raft(str(tmp_path / "other.safetensors"), "cpu")
    with pytest.raises(UserError, match="there is no file"):
        Raft(str(tmp_path / "none.pth"), "cpu")


def test_raft_that_is_not_there_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**options: Any) -> dict[str, Tensor]:
        raise OSError("no route to host")

    torchvision(monkeypatch, refuse)
    with pytest.raises(MissingNetworkError, match=r"no route to host.*https://there/raft.pth"):
        Raft(device="cpu")
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    with pytest.raises(MissingNetworkError, match=r"torchvision cannot be imported.*pip install"):
        Raft(device="cpu")


def test_raft_by_torchvision_itself(tmp_path: Path) -> None:
    models = pytest.importorskip("torchvision.models.optical_flow", exc_type=ImportError)
    torch.manual_seed(0)
    torch.save(models.raft_large(weights=None).state_dict(), tmp_path / "raft.pth")
    images = torch.rand(2, 3, 128, 136) * 255
    flow = Raft(str(tmp_path / "raft.pth"), "cpu")(images[:1], images[1:])
    assert flow.shape == (2, 128, 136)
    assert flow.isfinite().all()


PLUGIN = """
from dataclasses import dataclass

@dataclass
class Half:
    device: str
    identity: str = "half"

    def __call__(self, first, second):
        return (first + second) / 2

class Nameless:
    def __init__(self, device): pass
    def __call__(self, image): return 50.0

class Broken:
    def __init__(self, device): raise OSError("no weights")
"""


def test_a_users_network_is_known_by_its_file_too(tmp_path: Path) -> None:
    file = tmp_path / "net.py"
    file.write_text(PLUGIN)
    plugin = Plugin(f"{file}:Half", "cpu")
    assert plugin(torch.zeros(2), torch.ones(2)).tolist() == [0.5, 0.5]
    assert plugin.identity.startswith("plug-in Half half file=")
    file.write_text(PLUGIN.replace("/ 2", "/ 3"))
    assert Plugin(f"{file}:Half", "cpu").identity != plugin.identity


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        ("net.py", "write FILE.PY:CLASS"),
        ("none.py:Half", "there is no file"),
        ("net.py:Nobody", "no class Nobody that can be called and has an identity"),
        ("net.py:Nameless", "has an identity"),
        ("net.py:Broken", "cannot be made .OSError: no weights"),
    ],
)
def test_what_is_no_network_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(PLUGIN)
    with pytest.raises(UserError, match=sentence):
        Plugin(where, "cpu")


def test_plugins_are_written_by_dimension() -> None:
    assert parse_plugins(["jerk=a=b.py:C"]) == {"jerk": "a=b.py:C"}
    for word in ("jerk", "=a.py:C", "jerk="):
        with pytest.raises(UserError, match=r"write DIMENSION=FILE.PY:CLASS"):
            parse_plugins([word])
