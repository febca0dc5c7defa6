"""The folder that a model's own videos lie in."""

import json
from pathlib import Path

import pytest

from motive.clips.formats import read_dataset
from motive.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("one-0.mp4", "one-1.mp4", "other.mp4"):
        (tmp_path / name).write_bytes(b"video")
    videos = [
        {"file_name": "one-1.mp4", "prompt": "one", "seed": 1, "polarity": "unwanted"},
        {"file_name": "one-0.mp4", "prompt": "one", "seed": 0},
        {"file_name": "gone-0.mp4", "prompt": "gone", "seed": 0},
    ]
    (tmp_path / "generation.json").write_text(json.dumps({"settings": {}, "videos": videos}))
    return tmp_path


def test_prompts_are_captions(folder: Path) -> None:
    dataset = read_dataset(folder)
    assert dataset.format == "generated"
    assert [(r.file_name, r.caption, r.extra) for r in dataset.records] == [
        ("one-1.mp4", "one", {"seed": 1, "polarity": "unwanted"}),
        ("one-0.mp4", "one", {"seed": 0}),
        ("other.mp4", "", {}),
    ]
    assert [p.file_name for p in dataset.problems] == ["gone-0.mp4"]
    only = read_dataset(folder / "generation.json")
    assert [r.file_name for r in only.records] == ["one-1.mp4", "one-0.mp4"]


def test_metadata_of_ones_own_comes_first(folder: Path) -> None:
    (folder / "metadata.csv").write_text("file_name,caption\none-0.mp4,mine\n")
    assert read_dataset(folder).format == "videofolder"


@pytest.mark.parametrize("content", ["[]", '{"videos": 1}', '{"videos": [1]}', "{"])
def test_records_that_are_none(folder: Path, content: str) -> None:
    (folder / "generation.json").write_text(content)
    with pytest.raises(UserError, match=r"generation\.json"):
        read_dataset(folder)


def test_a_record_names_nothing_outside(folder: Path) -> None:
    (folder / "generation.json").write_text('{"videos": [{"file_name": "../x.mp4", "prompt": ""}]}')
    with pytest.raises(UserError, match="points outside"):
        read_dataset(folder)
