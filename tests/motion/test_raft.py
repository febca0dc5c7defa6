"""RAFT as a tracker: the part that is ours with a network of known flow, the rest with torchvision's.

torchvision is an optional dependency. Where it does not import, the tests of its networks skip; what a
user without it is told, and what is done with a network's flow, is tested everywhere.
"""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from motive.errors import UserError
from motive.motion.raft import MIN_SIDE, RaftTracker, make_network, optical_flow, padded
from motive.motion.trackers import make_tracker

USE = r"pip install 'motive-attribution\[raft\]', or use --tracker dis"


class Brightness(nn.Module):
    """Flow of known length: along x by how much brighter the second image is, along y half of that."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))
        self.sizes: list[tuple[int, ...]] = []

    def forward(self, one: Tensor, other: Tensor, num_flow_updates: int) -> list[Tensor]:
        assert one.min() >= -1
        assert one.max() <= 1
        self.sizes.append(tuple(one.shape))
        brighter = (other - one).mean((1, 2, 3))[:, None, None, None] * 127.5
        flow = brighter * torch.tensor([1.0, 0.5])[None, :, None, None]
        final = flow.expand(-1, 2, *one.shape[2:])
        return [final * 0] * (num_flow_updates - 1) + [final]


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A torchvision whose networks and published weights are ours."""

    def refuse(**options: Any) -> dict[str, Tensor]:
        assert options["weights_only"] is True
        raise OSError("no route to host\nand more")

    def publish(**options: Any) -> dict[str, Tensor]:
        assert options["weights_only"] is True
        return {"weight": torch.ones(2)}

    models: Any = ModuleType("torchvision.models")
    models.optical_flow = flow = SimpleNamespace(
        raft_large=lambda **options: Brightness(),
        raft_small=lambda **options: Brightness(),
        Raft_Large_Weights=SimpleNamespace(
            DEFAULT=SimpleNamespace(url="https://there/large.pth", get_state_dict=refuse)
        ),
        Raft_Small_Weights=SimpleNamespace(
            DEFAULT=SimpleNamespace(url="https://there/small.pth", get_state_dict=publish)
        ),
    )
    monkeypatch.setitem(sys.modules, "torchvision", ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    return flow  # type: ignore[return-value]


def grey(levels: list[int], height: int, width: int) -> np.ndarray:
    return np.stack([np.full((height, width, 3), level, np.uint8) for level in levels])


@pytest.mark.usefixtures("stub")
@pytest.mark.parametrize("size", [(1, 1), (31, 33), (130, 128)])
def test_displacement_is_the_flow_back_turned_round(size: tuple[int, int]) -> None:
    field = RaftTracker("raft_small").track(grey([10, 14, 11], *size))
    assert field.convention == "from_previous"
    assert field.displacement_fhw2.shape == (3, *size, 2)
    # Back from frame 1 (14) to frame 0 (10) is a flow of 10 - 14 along x, so it came by 4.
    expected = np.broadcast_to(np.float32([[0, 0], [4, 2], [-3, -1.5]]), (*size, 3, 2))
    assert field.displacement_fhw2 == pytest.approx(expected.transpose(2, 0, 1, 3), abs=1e-4)
    # There and back agree, so what is seen is certain; what came from outside the frame is not seen.
    assert field.confidence_fhw == pytest.approx(1)
    if min(size) > 4:
        assert field.visibility_fhw[1, 2:, 4:].all()
        assert not field.visibility_fhw[1, :, :3].any()
    assert field.visibility_fhw.dtype == field.confidence_fhw.dtype == np.float32


@pytest.mark.usefixtures("stub")
def test_one_frame_needs_no_network() -> None:
    field = RaftTracker("raft_large").track(grey([3], 5, 7))
    assert not field.displacement_fhw2.any()
    assert (field.confidence_fhw == 1).all()


@pytest.mark.usefixtures("stub")
def test_close_lets_the_network_go() -> None:
    tracker = RaftTracker("raft_small")
    before = tracker.track(grey([1, 2], 8, 8))
    assert tracker._network is not None
    tracker.close()
    assert tracker._network is None
    assert np.array_equal(
        tracker.track(grey([1, 2], 8, 8)).displacement_fhw2, before.displacement_fhw2
    )


@pytest.mark.usefixtures("stub")
def test_weights_that_cannot_be_fetched_are_the_users_to_bring() -> None:
    with pytest.raises(UserError) as error:
        make_tracker("raft").fingerprint()
    assert str(error.value) == (
        "RAFT checkpoint raft_large cannot be fetched from https://there/large.pth (no route to host): "
        "give a file with --tracker-checkpoint, or use --tracker dis"
    )


@pytest.mark.usefixtures("stub")
@pytest.mark.parametrize("name", ["raft_huge", "weights.pth", ""])
def test_a_checkpoint_that_is_neither_file_nor_name_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"is not a file.*raft_large and raft_small.*dis"):
        RaftTracker(name).fingerprint()


@pytest.mark.usefixtures("stub")
def test_a_checkpoint_that_changes_under_way_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"weight": torch.ones(2)}, path)
    tracker = RaftTracker(path)
    tracker.fingerprint()
    torch.save({"weight": torch.zeros(2)}, path)
    with pytest.raises(UserError, match="changed while the run was starting"):
        tracker.track(grey([1, 2], 8, 8))


@pytest.mark.parametrize(
    ("size", "expected"),
    [((1, 1), (128, 128)), ((128, 129), (128, 136)), ((240, 416), (240, 416))],
)
def test_images_are_padded_with_their_edge(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    images = torch.rand(2, 3, *size)
    larger = padded(images)
    assert larger.shape == (2, 3, *expected)
    assert torch.equal(larger[:, :, : size[0], : size[1]], images)
    assert torch.equal(larger[:, :, -1, -1], images[:, :, -1, -1])
    assert min(expected) >= MIN_SIDE


@pytest.mark.parametrize("call", [lambda t: t.fingerprint(), lambda t: t.track(grey([1, 2], 9, 9))])
def test_without_torchvision_the_error_says_how_to_get_it(
    call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.delitem(sys.modules, "torchvision.models", raising=False)
    with pytest.raises(UserError, match=rf"the tracker raft needs torchvision \(.+\): {USE}"):
        call(make_tracker("raft"))


def test_a_torchvision_for_another_torch_is_as_good_as_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "torchvision"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('operator nms does not exist')")
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=rf"\(operator nms does not exist\): {USE}"):
        optical_flow()


# With torchvision's own networks.


@pytest.fixture(scope="module")
def networks() -> dict[str, nn.Module]:
    """Both variants with random weights."""
    try:
        optical_flow()
    except UserError as error:
        pytest.skip(f"torchvision does not import beside this torch: {error.__cause__}")
    torch.manual_seed(0)
    return {"small": make_network("small").eval(), "large": make_network("large").eval()}


@pytest.fixture(scope="module")
def files(
    networks: dict[str, nn.Module], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("raft")
    files = {name: folder / name for name in ("small.pth", "small.safetensors", "large.pth")}
    torch.save(networks["small"].state_dict(), files["small.pth"])
    save_file(dict(reversed(networks["small"].state_dict().items())), files["small.safetensors"])
    torch.save({"model": networks["large"].state_dict()}, files["large.pth"])
    return files


def noise(frames: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (frames, height, width, 3)).astype(np.uint8)


@pytest.mark.parametrize("variant", ["small", "large"])
def test_the_field_is_what_torchvision_says(
    variant: str, networks: dict[str, nn.Module], files: dict[str, Path]
) -> None:
    clip = noise(3, 128, 136)
    field = RaftTracker(files[f"{variant}.pth"]).track(clip)
    images = torch.from_numpy(clip).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.inference_mode():
        back = networks[variant](images[1:], images[:-1])[-1]
    assert back.abs().max() > 0.01
    expected = -back.permute(0, 2, 3, 1).numpy()
    assert field.displacement_fhw2[1:] == pytest.approx(expected, abs=1e-3)
    assert not field.displacement_fhw2[0].any()


@pytest.mark.parametrize("size", [(1, 1), (31, 200)])
def test_odd_sizes(files: dict[str, Path], size: tuple[int, int]) -> None:
    field = RaftTracker(files["small.pth"]).track(noise(2, *size))
    assert field.displacement_fhw2.shape == (2, *size, 2)
    for values in (field.displacement_fhw2, field.visibility_fhw, field.confidence_fhw):
        assert np.isfinite(values).all()


def test_the_fingerprint_is_the_weights_and_not_the_file(files: dict[str, Path]) -> None:
    prints = {name: RaftTracker(path).fingerprint() for name, path in files.items()}
    assert prints["small.pth"] == prints["small.safetensors"]
    assert prints["small.pth"].startswith("raft small weights=")
    assert prints["large.pth"].startswith("raft large weights=")


def test_other_weights_are_refused(files: dict[str, Path], tmp_path: Path) -> None:
    weights = torch.load(files["small.pth"], weights_only=True)
    weights["extra"] = torch.zeros(1)
    torch.save(weights, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"no RAFT checkpoint \(small\): 1 unexpected: extra"):
        RaftTracker(tmp_path / "other.pth").fingerprint()
