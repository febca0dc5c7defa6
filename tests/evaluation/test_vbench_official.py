"""The official VBench as another process, with a stand-in for the package in an environment of its own."""

import json
import os
import sys
from pathlib import Path

import pytest
from vbench_goldens import synthetic

from motive.errors import UserError
from motive.evaluation import Networks, evaluate
from motive.generation.video_file import write_video

# What VBench 0.1.5 does with these arguments, as far as the folder, the file and its form go.
VBENCH = """
import json, os

class VBench:
    def __init__(self, device, full_info_dir, output_path):
        self.device, self.output_path = device, output_path

    def evaluate(self, videos_path, name, prompt_list=[], dimension_list=None, local=False,
                 read_frame=False, mode="vbench_standard", **kwargs):
        assert mode == "custom_input"
        assert kwargs["imaging_quality_preprocessing_mode"] == "longer"
        (dimension,) = dimension_list
        if dimension == "imaging_quality":
            raise RuntimeError("no weights of MUSIQ")
        with open(os.environ["VBENCH_CALLS"], "a") as file:
            file.write(dimension + "\\n")
        names = sorted(os.listdir(videos_path))
        videos = [
            {"video_path": os.path.join(videos_path, n),
             "video_results": True if dimension == "dynamic_degree" else 0.25}
            for n in names
        ]
        if dimension == "motion_smoothness":
            videos.pop()
        with open(os.path.join(self.output_path, name + "_eval_results.json"), "w") as file:
            json.dump({dimension: [0.5, videos]}, file)
"""
TORCH = (
    "class cuda:\n    is_available = staticmethod(lambda: False)\ndef device(name): return name\n"
)


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An interpreter that imports a vbench and a torch of its own."""
    packages = tmp_path / "packages"
    (packages / "vbench").mkdir(parents=True)
    (packages / "vbench" / "__init__.py").write_text(VBENCH)
    (packages / "torch.py").write_text(TORCH)
    monkeypatch.setenv("VBENCH_CALLS", str(tmp_path / "calls"))
    program = tmp_path / "python"
    program.write_text(f'#!/bin/sh\nPYTHONPATH="{packages}" exec "{sys.executable}" "$@"\n')
    program.chmod(0o755)
    return program


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    for i in range(2):
        write_video(folder / f"a cat-{i}.mp4", synthetic(5, 32, 32, i), 8)
    (folder / "broken-0.mp4").write_bytes(b"no video")
    return folder


def test_its_numbers_are_read_and_kept(videos: Path, python: Path, tmp_path: Path) -> None:
    names = ["dynamic_degree", "subject_consistency", "jerk"]
    for _ in range(2):
        found = evaluate(videos, names, out=tmp_path / "out.json", vbench_python=python)
        assert found.missing == {}
        # VBench would stop at the broken file, so it never sees it.
        assert [failure.file_name for failure in found.failures] == ["broken-0.mp4"]
    written = json.loads((tmp_path / "out.json").read_text())["dimensions"]
    assert list(written) == names
    assert written["dynamic_degree"]["score"] == 0.5
    assert written["dynamic_degree"]["network"] == "official VBench of a checkout on cpu"
    assert written["dynamic_degree"]["videos"] == {
        "a cat-0.mp4": {"value": 1.0},
        "a cat-1.mp4": {"value": 1.0},
    }
    assert "dis" in written["jerk"]["network"]
    calls = (tmp_path / "calls").read_text().split()
    assert calls == ["dynamic_degree", "subject_consistency"]


def test_a_dimension_that_it_does_not_give_is_missing(videos: Path, python: Path) -> None:
    names = ["imaging_quality", "motion_smoothness", "temporal_flickering"]
    found = evaluate(videos, names, vbench_python=python)
    assert list(found.results) == ["temporal_flickering"]
    assert "RuntimeError: no weights of MUSIQ" in found.missing["imaging_quality"].why
    assert "judged 1 of 2 videos" in found.missing["motion_smoothness"].why


def test_an_environment_without_it_is_missing(videos: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S -I "$@"\n')
    empty.chmod(0o755)
    found = evaluate(videos, ["dynamic_degree"], vbench_python=empty)
    assert "No module named 'torch'" in found.missing["dynamic_degree"].why


def test_what_is_no_program_is_refused(videos: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no program .*: give --vbench-python"):
        evaluate(videos, vbench_python=tmp_path / "none", networks=Networks())
    (tmp_path / "text").write_text("")
    assert not os.access(tmp_path / "text", os.X_OK)
    with pytest.raises(UserError, match="there is no program"):
        evaluate(videos, vbench_python=tmp_path / "text")
