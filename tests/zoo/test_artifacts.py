"""Bad clips: each has its fault, and nothing else is changed."""

import csv
from pathlib import Path

import numpy as np
import pytest

from motive.clips.decoding import decode_clip
from motive.clips.sampling import FrameSampler
from motive.zoo.artifacts import ARTIFACTS, HOSTS, faulty_clip, plant_artifacts
from motive.zoo.render import read_truth, render_corpus
from motive.zoo.scene import draw_scene, render_frames, true_motion

FRAMES = 17


def middle_f2(artifact: str, index: int) -> np.ndarray:
    """The object's middle as it can be seen."""
    masks = true_motion(faulty_clip(artifact, FRAMES, seed=3, index=index).scene).object_mask_fhw
    y, x = np.mgrid[:64, :64]
    return np.stack(
        [[m @ axis.ravel() / m.sum() for axis in (x, y)] for m in masks.reshape(17, -1)]
    )


@pytest.mark.parametrize("index", range(6))
def test_a_teleport_is_one_leap_and_stays_in_sight(index: int) -> None:
    middle = middle_f2("teleport", index)
    steps = np.linalg.norm(np.diff(middle, axis=0), axis=1)
    assert (steps > 12).sum() == 1
    assert (np.argmax(steps) + 1) % 4 == 1  # between groups of frames that the VAE takes together
    masks = true_motion(faulty_clip("teleport", FRAMES, seed=3, index=index).scene).object_mask_fhw
    assert masks.sum((1, 2)).min() > 0.7 * masks.sum((1, 2)).max()


@pytest.mark.parametrize("index", range(3))
def test_a_flicker_changes_the_light_and_nothing_else(index: int) -> None:
    clip = faulty_clip("flicker", FRAMES, seed=3, index=index)
    plain = render_frames(draw_scene(HOSTS["flicker"], FRAMES, seed=3, index=index, camera="none"))
    assert (render_frames(clip.scene) == plain).all()
    light = np.log(clip.frames().mean((1, 2, 3)))
    assert np.diff(light).max() > 0.3
    assert np.diff(light).min() < -0.3


@pytest.mark.parametrize("index", range(3))
def test_what_fell_now_rises_ever_faster(index: int) -> None:
    y = middle_f2("reversed_gravity", index)[:, 1]
    assert y[-1] < y[0] - 10
    speed = -np.diff(y)
    assert speed[8:12].mean() > speed[:4].mean()
    plain = draw_scene("free_fall", FRAMES, seed=3, index=index, camera="none")
    fall = plain.pieces[0].affine_f23[:, 1, 2]
    rise = faulty_clip("reversed_gravity", FRAMES, seed=3, index=index).scene.pieces[0]
    np.testing.assert_allclose(np.diff(rise.affine_f23[:, 1, 2]), -np.diff(fall))


def test_the_middle_is_one_picture_and_the_ends_move() -> None:
    frames = faulty_clip("frozen_middle", FRAMES, seed=3, index=0).frames().astype(int)
    change = np.abs(np.diff(frames, axis=0)).mean((1, 2, 3))
    assert (change[5:12] == 0).all()
    assert change[:5].min() > 0
    assert change[12:].min() > 0


def test_too_short_a_clip_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 13 frames, not 9"):
        faulty_clip("flicker", 9, seed=0, index=0)


def test_planting_replaces_clips_and_says_so_and_can_be_repeated(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    render_corpus(corpus, 6, seed=4, lengths=(FRAMES,))
    before = {f.name: f.read_bytes() for f in (corpus / "clips").iterdir()}
    planted = {1: "teleport", 2: "flicker", 4: "reversed_gravity", 5: "frozen_middle"}
    plant_artifacts(corpus, planted, seed=4)
    with (corpus / "metadata.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["artifact"] for row in rows] == [planted.get(i, "") for i in range(6)]
    assert rows[4]["motion"] == "free_fall"
    assert "falls to the floor" in rows[4]["caption"]
    for artifact in ARTIFACTS:
        assert artifact.split("_")[0] not in " ".join(row["caption"] for row in rows)
    after = {f.name: f.read_bytes() for f in (corpus / "clips").iterdir()}
    assert {name for name in before if before[name] != after[name]} == {
        f"{i:06d}.mp4" for i in planted
    }
    clip = faulty_clip("teleport", FRAMES, seed=4, index=1)
    shown = decode_clip(corpus / rows[1]["file_name"], FrameSampler(FRAMES, 64, 64)).frames_fhw3
    assert np.abs(shown.astype(int) - clip.frames()).mean() < 4
    truth = read_truth(corpus / rows[1]["truth"])
    assert (truth.object_mask_fhw == true_motion(clip.scene).object_mask_fhw).all()

    plant_artifacts(corpus, planted, seed=4)
    assert {f.name: f.read_bytes() for f in (corpus / "clips").iterdir()} == after
