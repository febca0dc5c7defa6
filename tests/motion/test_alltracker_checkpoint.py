"""Weights from files and from the hub, and what is said when they are not there."""

import pickle
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from motive.errors import UserError
from motive.motion.alltracker import AllTracker

PUBLISHED = r"aharley/alltracker.*alltracker\.pth.*alltracker_tiny\.pth.*--tracker dis"


@pytest.fixture(scope="module")
def tiny() -> AllTracker:
    torch.manual_seed(0)
    return AllTracker("tiny")


@pytest.mark.parametrize("form", ["model", "bare", "safetensors"])
def test_files_are_loaded(tiny: AllTracker, tmp_path: Path, form: str) -> None:
    weights = tiny.state_dict()
    if form == "safetensors":
        path = tmp_path / "weights.safetensors"
        save_file(weights, path)
    else:
        path = tmp_path / "weights.pth"
        torch.save({"model": weights, "step": 3} if form == "model" else weights, path)
    model = AllTracker.from_checkpoint(path)
    assert model.variant == "tiny"
    assert not model.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, weights[name]), name


def test_the_full_variant_is_recognized(tmp_path: Path) -> None:
    path = tmp_path / "full.pth"
    torch.save({"model": AllTracker("full").state_dict()}, path)
    assert AllTracker.from_checkpoint(str(path)).variant == "full"


@pytest.mark.parametrize("name", ["alltracker.pth", "weights/alltracker.safetensors", "a/b/c"])
def test_a_missing_file_names_the_source(name: str) -> None:
    with pytest.raises(UserError, match=PUBLISHED):
        AllTracker.from_checkpoint(name)


@pytest.mark.parametrize(
    ("variant", "file"), [(None, "alltracker.pth"), ("tiny", "alltracker_tiny.pth")]
)
def test_the_hub_out_of_reach_names_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variant: str | None, file: str
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=rf"{file} cannot be fetched.*{PUBLISHED}"):
        AllTracker.from_checkpoint("aharley/alltracker", variant)


@pytest.mark.parametrize(
    ("variant", "file"), [(None, "alltracker.pth"), ("tiny", "alltracker_tiny.pth")]
)
def test_the_hub_is_asked_for_the_variant(
    tiny: AllTracker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    variant: str | None,
    file: str,
) -> None:
    path = tmp_path / file
    torch.save(tiny.state_dict(), path)
    asked = []

    def download(repo_id: str, filename: str) -> str:
        asked.append((repo_id, filename))
        return str(path)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    AllTracker.from_checkpoint("aharley/alltracker", variant)
    assert asked == [("aharley/alltracker", file)]


def test_other_keys_are_named(tiny: AllTracker, tmp_path: Path) -> None:
    weights = dict(tiny.state_dict())
    weights["flow_head.0.bais"] = weights.pop("flow_head.0.bias")
    weights["fnet.conv3.bias"] = torch.zeros(7)
    path = tmp_path / "weights.pth"
    torch.save(weights, path)
    with pytest.raises(UserError) as caught:
        AllTracker.from_checkpoint(path)
    message = str(caught.value)
    assert "1 missing: flow_head.0.bias;" in message
    assert "1 unexpected: flow_head.0.bais;" in message
    assert "1 of another shape: fnet.conv3.bias (7,) instead of (128,);" in message


def test_the_other_variant_is_refused(tiny: AllTracker, tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(tiny.state_dict(), path)
    with pytest.raises(UserError, match=r"\(full\).*cnn\.features.*unexpected: fnet"):
        AllTracker.from_checkpoint(path, "full")


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not weights at all", b"\x80\x02"])
def test_damaged_files_are_refused(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match="cannot be read"):
        AllTracker.from_checkpoint(path)


def test_a_pickle_runs_no_code(tmp_path: Path) -> None:
    marker = tmp_path / "ran"

    class Attack:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (marker,))

    path = tmp_path / "weights.pth"
    torch.save({"model": Attack()}, path)
    with pytest.raises(UserError, match="cannot be read"):
        AllTracker.from_checkpoint(path)
    assert not marker.exists()
    pickle.loads(pickle.dumps(Attack()))
    assert marker.exists(), "the attack is none"


@pytest.mark.parametrize("content", [[1, 2], {"model": [1]}, {"epoch": 3}])
def test_other_contents_are_refused(tmp_path: Path, content: object) -> None:
    path = tmp_path / "weights.pth"
    torch.save(content, path)
    with pytest.raises(UserError, match="no dict of tensors"):
        AllTracker.from_checkpoint(path)
