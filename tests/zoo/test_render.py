"""A corpus on disk: files that play, labels that are true, and clips that depend on nothing else."""

import csv
from pathlib import Path

import av
import numpy as np
import pytest

from motive.errors import UserError
from motive.zoo.captions import SAME_CAPTION, caption_of
from motive.zoo.motions import KINDS
from motive.zoo.render import FPS, LENGTHS, read_truth, render_corpus, write_mp4, write_truth
from motive.zoo.scene import draw_scene, render_frames, true_motion


def metadata(folder: Path) -> list[dict[str, str]]:
    with (folder / "metadata.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def frames_of(path: Path) -> tuple[np.ndarray, list[float]]:
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    times = [float(f.time) for f in frames if f.time is not None]
    return np.stack([f.to_ndarray(format="rgb24") for f in frames]), times


def test_every_clip_plays_and_is_the_rendered_scene(zoo: Path) -> None:
    rows = metadata(zoo)
    assert [row["motion"] for row in rows] == list(KINDS)
    assert {int(row["frames"]) for row in rows} == set(LENGTHS)
    for i, row in enumerate(rows):
        frames, times = frames_of(zoo / row["file_name"])
        assert frames.shape == (int(row["frames"]), 64, 64, 3)
        assert np.allclose(np.diff(times), 1 / FPS)
        scene = draw_scene(row["motion"], len(frames), seed=3, index=i)
        rendered = render_frames(scene).astype(float)
        # 4:2:0 halves the resolution of colour, so the brightness is what must be true.
        weights = np.array([0.299, 0.587, 0.114])
        error = np.mean(((frames - rendered) @ weights) ** 2)
        assert 10 * np.log10(255**2 / error) > 32, row["file_name"]


def test_the_labels_are_the_scene(zoo: Path) -> None:
    for i, row in enumerate(metadata(zoo)):
        scene = draw_scene(row["motion"], int(row["frames"]), seed=3, index=i)
        assert row["caption"] == caption_of(scene)
        assert row["camera"] == scene.camera
        labels = {name: str(value) for name, value in scene.look.labels().items()}
        assert labels.items() <= row.items()
        assert row["file_name"] == f"clips/{i:06d}.mp4"


def test_the_truth_lies_beside_every_clip(zoo: Path, tmp_path: Path) -> None:
    for i, row in enumerate(metadata(zoo)):
        stored = read_truth(zoo / row["truth"])
        truth = true_motion(draw_scene(row["motion"], int(row["frames"]), seed=3, index=i))
        # Half precision: a thousandth of the displacement.
        assert np.allclose(stored.from_previous_fhw2, truth.from_previous_fhw2, 1e-3, 1e-6)
        assert np.allclose(stored.from_first_fhw2, truth.from_first_fhw2, 1e-3, 1e-6)
        assert np.array_equal(stored.object_mask_fhw, truth.object_mask_fhw)
        assert np.allclose(stored.camera_f23, truth.camera_f23, 1e-6, 1e-5)
    write_truth(tmp_path / "truth.npz", truth)
    assert (tmp_path / "truth.npz").read_bytes() == (zoo / row["truth"]).read_bytes()


def test_a_corpus_is_the_beginning_of_a_longer_one(zoo: Path, tmp_path: Path) -> None:
    render_corpus(tmp_path / "short", 3, seed=3)
    assert metadata(tmp_path / "short") == metadata(zoo)[:3]
    for name in ("clips/000000.mp4", "clips/000002.mp4", "truth/000001.npz"):
        assert (tmp_path / "short" / name).read_bytes() == (zoo / name).read_bytes()
    assert sorted(p.name for p in (tmp_path / "short" / "clips").iterdir()) == [
        "000000.mp4", "000001.mp4", "000002.mp4",
    ]  # fmt: skip


def test_kinds_camera_lengths_and_caption_can_be_chosen(tmp_path: Path) -> None:
    render_corpus(
        tmp_path / "a", 4, seed=3, kinds=["spin", "slide"], camera="pan", lengths=[9],
        same_caption=True,
    )  # fmt: skip
    rows = metadata(tmp_path / "a")
    assert [row["motion"] for row in rows] == ["spin", "slide", "spin", "slide"]
    assert {(row["camera"], row["frames"], row["caption"]) for row in rows} == {
        ("pan", "9", SAME_CAPTION)
    }
    moved = read_truth(tmp_path / "a" / rows[0]["truth"]).camera_f23[-1]
    assert np.linalg.norm(moved[:, 2]) > 5


def test_the_kind_does_not_change_the_look(zoo: Path, tmp_path: Path) -> None:
    render_corpus(tmp_path / "a", 3, seed=3, kinds=["swing"])
    look = ("shape", "texture", "color", "color2", "background", "background_color", "distractors")
    for here, there in zip(metadata(tmp_path / "a"), metadata(zoo), strict=False):
        assert [here[name] for name in look] == [there[name] for name in look]
        assert here["frames"] == there["frames"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"kinds": ["slide", "wobble"]}, "no kind 'wobble'"),
        ({"camera": "dolly"}, "no camera 'dolly'"),
        ({"count": 0}, "at least one clip"),
    ],
)
def test_mistakes_are_refused_before_anything_is_written(
    tmp_path: Path, options: dict[str, object], says: str
) -> None:
    with pytest.raises(UserError, match=says):
        render_corpus(tmp_path / "out", **{"count": 1, **options})  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty"):
        render_corpus(tmp_path, 1)
    with pytest.raises(UserError, match="is not empty"):
        render_corpus(tmp_path / "mine.txt", 1)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_metadata_comes_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("motive.zoo.render.write_truth", full)
    with pytest.raises(OSError, match="disk full"):
        render_corpus(tmp_path / "a", 2, lengths=[9])
    assert not (tmp_path / "a/metadata.csv").exists()


def test_an_mp4_is_the_same_every_time(tmp_path: Path) -> None:
    frames = render_frames(draw_scene("swing", 9, seed=1, index=1))
    for name in ("a.mp4", "b.mp4"):
        write_mp4(tmp_path / name, frames, FPS)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
