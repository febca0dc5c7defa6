"""A folder of real files through `evaluate`: what is measured, what is missing, and going on."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from small_networks import clip_folder, dino_folder
from typer.testing import CliRunner
from vbench_goldens import synthetic

from motive.commands.evaluate import evaluate as command
from motive.errors import UserError
from motive.evaluation import Networks, evaluate
from motive.evaluation.catalog import DIMENSIONS, OFFICIAL
from motive.evaluation.temporal_flickering import TemporalFlickering
from motive.evaluation.video import read_video
from motive.generation.video_file import write_video

# Each call is written down beside the file, so that a test can count them.
PLUGINS = """
from pathlib import Path

class Net:
    identity = "average"

    def __init__(self, device):
        self.calls = Path(__file__).with_name("calls")

    def note(self):
        with self.calls.open("a") as file:
            file.write("x")

class Interpolator(Net):
    def __call__(self, first, second):
        self.note()
        return (first + second) / 2

class Judge(Net):
    def __call__(self, image):
        self.note()
        return 100 * float(image.mean())

class Flow(Net):
    # As far as the picture became brighter, in pixels.
    def __call__(self, first, second):
        self.note()
        return (second - first).mean(1)[0][None].repeat(2, 1, 1)
"""


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    for i, name in enumerate(("a cat-0", "a cat-1", "a dog-0")):
        write_video(folder / f"{name}.mp4", synthetic(5 + i, 40, 56, i), 8)
    return folder


@pytest.fixture
def networks(tmp_path: Path) -> Networks:
    (tmp_path / "net.py").write_text(PLUGINS)
    torch.save(torch.nn.Linear(12, 1).state_dict(), tmp_path / "head.pth")
    return Networks(
        dino=str(dino_folder(tmp_path / "dino")),
        clip_base=str(clip_folder(tmp_path / "clip")),
        clip_large=str(tmp_path / "clip"),
        aesthetic_head=tmp_path / "head.pth",
        plugins={
            "motion_smoothness": f"{tmp_path}/net.py:Interpolator",
            "imaging_quality": f"{tmp_path}/net.py:Judge",
            "dynamic_degree": f"{tmp_path}/net.py:Flow",
        },
        device="cpu",
    )


def calls(tmp_path: Path) -> int:
    file = tmp_path / "calls"
    return len(file.read_text()) if file.is_file() else 0


def test_every_dimension_of_real_files(videos: Path, networks: Networks, tmp_path: Path) -> None:
    found = evaluate(videos, out=tmp_path / "out.json", networks=networks)
    assert list(found.results) == list(DIMENSIONS)
    assert found.missing == {}
    assert found.failures == []
    written = json.loads((tmp_path / "out.json").read_text())
    for name, result in written["dimensions"].items():
        assert len(result["videos"]) == 3, name
        assert result["score"] == found.scores()[name]
        assert result["unit"]
        assert result["network"]
    smoothness = written["dimensions"]["motion_smoothness"]
    assert smoothness["network"].startswith("plug-in Interpolator average file=")
    assert 0 < written["quality_score"] < 1
    # The frames of a longer video count more in consistency.
    subject = written["dimensions"]["subject_consistency"]
    assert [video["weight"] for video in subject["videos"].values()] == [4, 5, 6]
    # What a video is given is what its measure says of the decoded file.
    flickering = written["dimensions"]["temporal_flickering"]["videos"]["a dog-0.mp4"]["value"]
    assert flickering == TemporalFlickering().score(read_video(videos / "a dog-0.mp4")).value
    imaging = written["dimensions"]["imaging_quality"]
    assert imaging["score"] == pytest.approx(imaging["mean_of_videos"])
    assert imaging["score"] < 1 < imaging["videos"]["a cat-0.mp4"]["value"]


def test_what_is_not_there_is_named_with_the_way_to_have_it(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    networks = Networks(
        dino="nobody/dino", clip_base="nobody/clip", clip_large="nobody/clip", raft="C_T_V1"
    )
    monkeypatch.setitem(__import__("sys").modules, "torchvision.models", None)
    found = evaluate(videos, out=tmp_path / "out.json", networks=networks)
    assert set(found.missing) == set(OFFICIAL) - {"temporal_flickering"}
    assert set(found.results) | set(found.missing) == set(DIMENSIONS)
    written = json.loads((tmp_path / "out.json").read_text())
    for name, missing in written["missing"].items():
        assert missing["why"], name
        assert missing["how"], name
    assert "CC BY-NC" in written["missing"]["motion_smoothness"]["how"]
    assert "hf download nobody/dino" in written["missing"]["subject_consistency"]["how"]
    assert written["quality_score"] is None


def test_only_what_is_new_is_measured(videos: Path, networks: Networks, tmp_path: Path) -> None:
    def measure() -> dict[str, Any]:
        names = ["motion_smoothness", "imaging_quality"]
        evaluate(videos, names, out=tmp_path / "out.json", networks=networks)
        written: dict[str, Any] = json.loads((tmp_path / "out.json").read_text())
        return written

    first = measure()
    frames, pairs = 5 + 6 + 7, 2 + 2 + 3
    assert calls(tmp_path) == frames + pairs
    assert measure() == first
    assert calls(tmp_path) == frames + pairs
    # A copy has the content of its original; a new video is measured.
    (videos / "copy-0.mp4").write_bytes((videos / "a cat-0.mp4").read_bytes())
    measure()
    assert calls(tmp_path) == frames + pairs
    write_video(videos / "new-0.mp4", synthetic(3, 40, 56, 7), 8)
    measure()
    assert calls(tmp_path) == frames + pairs + 3 + 1
    # Another network has scores of its own.
    (tmp_path / "net.py").write_text(PLUGINS + "\n# another file\n")
    measure()
    assert calls(tmp_path) == 2 * (frames + pairs + 3 + 1)


def test_goes_on_after_a_kill_in_the_middle_of_a_line(
    videos: Path, networks: Networks, tmp_path: Path
) -> None:
    names = ["imaging_quality"]
    whole = evaluate(videos, names, out=tmp_path / "out.json", networks=networks).scores()
    cache = tmp_path / "out.json.cache.jsonl"
    lines = cache.read_text().splitlines()
    assert len(lines) == 3
    cache.write_text(lines[0] + "\n" + lines[1][: len(lines[1]) // 2])
    before = calls(tmp_path)
    again = evaluate(videos, names, out=tmp_path / "out.json", networks=networks).scores()
    assert again == whole
    assert calls(tmp_path) - before == 6 + 7
    evaluate(videos, names, out=tmp_path / "out.json", networks=networks)
    assert calls(tmp_path) - before == 6 + 7


def test_files_that_cannot_be_measured_are_named(videos: Path, tmp_path: Path) -> None:
    whole = (videos / "a cat-0.mp4").read_bytes()
    (videos / "cut-0.mp4").write_bytes(whole[: len(whole) // 2])
    (videos / "loop-0.gif").write_bytes(b"GIF89a")
    write_video(videos / "short-0.mp4", synthetic(2, 40, 56, 0), 8)
    found = evaluate(videos, ["temporal_flickering", "motion_smoothness_dis", "jerk"])
    failed = {(failure.file_name, failure.dimension) for failure in found.failures}
    assert failed == {
        ("cut-0.mp4", None),
        ("loop-0.gif", None),
        ("short-0.mp4", "motion_smoothness_dis"),
        ("short-0.mp4", "jerk"),
    }
    assert "short-0.mp4" in found.results["temporal_flickering"].videos
    assert len(found.results["jerk"].videos) == 3


def test_a_dimension_may_be_asked_of_its_own_prompts_alone(videos: Path, tmp_path: Path) -> None:
    lists = [
        {"prompt_en": "a cat", "dimension": ["temporal_flickering"]},
        {"prompt_en": "a dog", "dimension": ["dynamic_degree", "motion_smoothness"]},
    ]
    (tmp_path / "info.json").write_text(json.dumps(lists))
    names = ["temporal_flickering", "dynamic_degree_dis", "jerk"]
    found = evaluate(videos, names, lists=tmp_path / "info.json").results
    assert list(found["temporal_flickering"].videos) == ["a cat-0.mp4", "a cat-1.mp4"]
    assert found["temporal_flickering"].not_there == [f"a cat-{i}.mp4" for i in (2, 3, 4)]
    for name in ("dynamic_degree_dis", "jerk"):
        assert list(found[name].videos) == ["a dog-0.mp4"]


def brightening(step: int) -> np.ndarray:
    shades = 60 + step * np.arange(8)
    return np.broadcast_to(shades[:, None, None, None], (8, 32, 32, 3)).astype(np.uint8)


def test_flickering_of_static_videos_alone(tmp_path: Path, networks: Networks) -> None:
    folder = tmp_path / "mixed"
    folder.mkdir()
    for i in range(8):
        write_video(folder / f"a scene-{i}.mp4", brightening(5 if i == 1 else 0), 8)
    found = evaluate(folder, ["temporal_flickering"], networks=networks, only_static=True)
    (result,) = found.results.values()
    # The first five of those that stand still.
    assert list(result.videos) == [f"a scene-{i}.mp4" for i in (0, 2, 3, 4, 5)]
    assert "static filter" in result.note
    assert result.score == pytest.approx(1.0)


def test_unfiltered_flickering_does_not_stand_for_the_filtered(
    videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torchvision.models", None)
    found = evaluate(videos, ["temporal_flickering"], only_static=True)
    assert list(found.missing) == ["temporal_flickering"]
    assert found.results == {}


@pytest.mark.parametrize(
    ("folder", "names", "sentence"),
    [
        ("none", None, "there is no folder"),
        ("empty", None, "has no .mp4 file"),
        ("videos", ["beauty"], "there is no dimension 'beauty': use subject_consistency"),
    ],
)
def test_what_is_refused(
    videos: Path, tmp_path: Path, folder: str, names: list[str] | None, sentence: str
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=sentence):
        evaluate(tmp_path / folder, names)
    for name in ("beauty", "jerk"):
        with pytest.raises(UserError, match=f"no network to plug in for '{name}'"):
            evaluate(videos, networks=Networks(plugins={name: "a.py:B"}))


@pytest.fixture
def run() -> Any:
    app = typer.Typer()
    app.command()(command)
    runner = CliRunner()
    return lambda *words: runner.invoke(app, [str(word) for word in words], catch_exceptions=False)


def test_the_command_prints_a_table_and_what_is_missing(
    videos: Path, tmp_path: Path, run: Any
) -> None:
    names = "temporal_flickering,motion_smoothness,jerk"
    done = run(videos, "--out", tmp_path / "out.json", "--dimensions", names, "--quiet")
    assert done.exit_code == 0
    assert "missing: motion_smoothness, because no frame interpolation network" in done.stdout
    assert "--plugin motion_smoothness=FILE.PY:CLASS" in done.stdout
    assert "temporal_flickering" in done.stdout
    assert (tmp_path / "out.json").is_file()
    (tmp_path / "net.py").write_text(PLUGINS)
    plugin = f"motion_smoothness={tmp_path}/net.py:Interpolator"
    done = run(
        videos, "--out", tmp_path / "out.json", "--dimensions", names, "--plugin", plugin, "--quiet"
    )
    assert "missing" not in done.stdout
    assert len(json.loads((tmp_path / "out.json").read_text())["dimensions"]) == 3
