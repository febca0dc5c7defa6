"""AllTracker as a run's tracker: small frames, the weights' digest, and a run from end to end."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from motive import Run
from motive.errors import ClipError, UserError
from motive.motion.alltracker import AllTracker
from motive.motion.alltracker_tracker import AllTrackerTracker, enlargement
from motive.motion.trackers import make_tracker
from motive.zoo.scene import draw_scene, render_frames

PUBLISHED = r"published at https://huggingface.co/aharley/alltracker.*--tracker dis"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same random weights of the tiny variant in both formats, and others."""
    folder = tmp_path_factory.mktemp("weights")
    files = {name: folder / name for name in ("tiny.pth", "tiny.safetensors", "other.pth")}
    torch.manual_seed(1)
    state = AllTracker("tiny").state_dict()
    torch.save({"model": state}, files["tiny.pth"])
    save_file(dict(reversed(state.items())), files["tiny.safetensors"])
    torch.save(AllTracker("tiny").state_dict(), files["other.pth"])
    return files


@pytest.fixture(scope="module")
def tracker(weights: dict[str, Path]) -> AllTrackerTracker:
    return AllTrackerTracker(weights["tiny.pth"])


def zoo_frames(frames: int, size: int) -> np.ndarray:
    clip = render_frames(draw_scene("slide", frames, seed=5, index=2))
    return np.stack([cv2.resize(f, (size, size)) for f in clip])


def test_large_frames_are_given_to_the_network_as_they_are(
    tracker: AllTrackerTracker, weights: dict[str, Path]
) -> None:
    clip = zoo_frames(3, 72)
    field = tracker.track(clip)
    video = torch.from_numpy(clip).permute(0, 3, 1, 2)[None]
    plain = AllTracker.from_checkpoint(weights["tiny.pth"])(video)
    assert field.convention == "from_first"
    assert np.array_equal(field.displacement_fhw2[1:, ..., 0], plain.flow[0, 1:, 0].numpy())
    assert np.array_equal(field.displacement_fhw2[1:, ..., 1], plain.flow[0, 1:, 1].numpy())
    assert np.array_equal(field.visibility_fhw[1:], plain.visconf[0, 1:, 0].numpy())
    assert np.array_equal(field.confidence_fhw[1:], plain.visconf[0, 1:, 1].numpy())
    assert plain.flow.abs().max() > 0.01
    # By definition of the convention, whatever the network says of its own query frame.
    assert not field.displacement_fhw2[0].any()
    assert (field.visibility_fhw[0] == 1).all()


def test_small_frames_are_enlarged_and_displacements_scaled_back(
    tracker: AllTrackerTracker, weights: dict[str, Path]
) -> None:
    clip = zoo_frames(3, 24)
    assert enlargement(24, 24) == 3
    field = tracker.track(clip)
    big = np.stack([cv2.resize(f, (72, 72), interpolation=cv2.INTER_LINEAR) for f in clip])
    large = AllTrackerTracker(weights["tiny.pth"]).track(big)
    for found, full in (
        (field.displacement_fhw2, large.displacement_fhw2 / 3),
        (field.visibility_fhw[..., None], large.visibility_fhw[..., None]),
        (field.confidence_fhw[..., None], large.confidence_fhw[..., None]),
    ):
        assert found.shape[:3] == (3, 24, 24)
        blocks = [full[:, y::3, x::3] for y in range(3) for x in range(3)]
        assert np.abs(found - np.mean(blocks, 0)).max() < 1e-5


@pytest.mark.parametrize(("side", "factor"), [(1, 65), (8, 9), (32, 3), (64, 2), (65, 1), (480, 1)])
def test_the_factor_is_the_smallest_that_the_network_takes(side: int, factor: int) -> None:
    assert enlargement(side, 1000) == enlargement(1000, side) == factor


def test_frames_of_every_shape_and_one_frame(tracker: AllTrackerTracker) -> None:
    for shape in ((1, 64, 64), (1, 1, 1), (2, 1, 1), (2, 9, 70)):
        field = tracker.track(np.full((*shape, 3), 7, np.uint8))
        assert field.displacement_fhw2.shape == (*shape, 2)
        assert field.visibility_fhw.shape == field.confidence_fhw.shape == shape
        for maps in (field.displacement_fhw2, field.visibility_fhw, field.confidence_fhw):
            assert maps.dtype == np.float32
            assert np.isfinite(maps).all()
    with pytest.raises(ClipError, match="too narrow"):
        tracker.track(np.zeros((2, 1, 5000, 3), np.uint8))


def test_the_fingerprint_is_of_the_weights_and_not_of_the_file(weights: dict[str, Path]) -> None:
    pth, safe, other = (AllTrackerTracker(path).fingerprint() for path in weights.values())
    assert pth == safe
    assert pth != other
    assert pth.startswith("alltracker tiny weights=")


def test_the_network_is_loaded_with_the_first_clip_and_let_go(
    weights: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = []
    load = AllTracker.from_checkpoint
    monkeypatch.setattr(
        AllTracker, "from_checkpoint", lambda path: loads.append(path) or load(path)
    )
    tracker = AllTrackerTracker(weights["tiny.pth"])
    tracker.fingerprint()
    assert loads == []
    clip = zoo_frames(2, 32)
    first = tracker.track(clip)
    tracker.track(clip)
    assert len(loads) == 1
    tracker.close()
    again = tracker.track(clip)
    assert len(loads) == 2
    assert np.array_equal(first.displacement_fhw2, again.displacement_fhw2)


def test_weights_that_change_under_way_are_refused(
    weights: dict[str, Path], tmp_path: Path
) -> None:
    path = Path(shutil.copy(weights["tiny.pth"], tmp_path / "weights.pth"))
    tracker = AllTrackerTracker(path)
    tracker.fingerprint()
    shutil.copy(weights["other.pth"], path)
    with pytest.raises(UserError, match="changed while the run was starting"):
        tracker.track(zoo_frames(2, 32))


def test_the_published_weights_are_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match=f"aharley/alltracker.*{PUBLISHED}"):
        make_tracker("alltracker").fingerprint()


def test_without_the_weights_nothing_is_written(small_wan: Path, zoo: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(UserError, match=PUBLISHED):
        Run.create(
            out, clips=str(zoo), queries=str(zoo), model=str(small_wan),
            motion__tracker="alltracker", motion__checkpoint="missing.pth",
        )  # fmt: skip
    assert not out.exists()


def test_a_run_from_end_to_end(
    small_wan: Path, zoo: Path, weights: dict[str, Path], tmp_path: Path
) -> None:
    clips = tmp_path / "clips"
    clips.mkdir()
    for name in ("000001.mp4", "000006.mp4"):
        shutil.copy(zoo / "clips" / name, clips)
    settings = {"clips": str(clips), "queries": str(clips), "model": str(small_wan)}
    features = {}
    for name in ("tiny.pth", "tiny.safetensors"):
        run = Run.create(
            tmp_path / f"run of {name}", **settings, sampling__frames=5,
            motion__tracker="alltracker", motion__checkpoint=str(weights[name]),
        )  # fmt: skip
        run.curate()
        assert len(run.selection()) == 2
        assert run.failures() == []
        assert all(row["mean_speed"] > 0 for row in run.motion().values())
        features[name] = run.features("clip").features_nd
    assert np.array_equal(features["tiny.pth"], features["tiny.safetensors"])
    assert "alltracker tiny" in run.objective.tracker
