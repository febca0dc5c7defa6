"""Names in metadata are untrusted: nothing outside the dataset's folder is ever read."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from motive.clips.formats import read_dataset
from motive.clips.formats.entries import Entries
from motive.clips.formats.source import Source
from motive.errors import UserError

OUTSIDE = [
    "../secret.mp4",
    "sub/../../secret.mp4",
    "..",
    "/etc/passwd.mp4",
    "//host/share/a.mp4",
    "..\\secret.mp4",
    "sub\\..\\..\\secret.mp4",
    "\\\\host\\share\\a.mp4",
    "C:\\secret.mp4",
    "c:/secret.mp4",
    "C:secret.mp4",
    "a.mp4\0.txt",
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """`data/a.mp4`, with `secret.mp4` beside `data`."""
    (tmp_path / "secret.mp4").touch()
    (tmp_path / "data/sub").mkdir(parents=True)
    (tmp_path / "data/a.mp4").touch()
    return tmp_path / "data"


def metadata(folder: Path, layout: str, name: str) -> Path:
    """A metadata file of the layout that names one good file and then `name`."""
    rows = {
        "csv": lambda n: {"file_name": n},
        "diffsynth": lambda n: {"video": n},
        "musubi": lambda n: {"video_path": n},
        "data-juicer": lambda n: {"videos": [n], "text": ""},
    }
    if layout == "captions.json":
        path = folder / "captions.json"
        path.write_text(json.dumps({"a.mp4": ["x"], name: ["y"]}))
    elif layout == "lists":
        (folder / "prompts.txt").write_text("x\ny")
        (folder / "videos.txt").write_text(f"a.mp4\n{name}")
        path = folder
    else:
        path = folder / "list.jsonl"
        path.write_text("\n".join(json.dumps(rows[layout](n)) for n in ("a.mp4", name)))
    return path


@pytest.mark.parametrize(
    "layout", ["csv", "diffsynth", "musubi", "data-juicer", "captions.json", "lists"]
)
@pytest.mark.parametrize("name", OUTSIDE)
def test_a_name_that_points_outside_refuses_the_whole_dataset(
    folder: Path, layout: str, name: str
) -> None:
    with pytest.raises(UserError, match="points outside its folder") as error:
        read_dataset(metadata(folder, layout, name))
    assert repr(name) in str(error.value)
    assert "media root" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("d.toml", '[[directory]]\npath = "OUT"\n'),
        ("d.toml", '[[datasets]]\nvideo_directory = "OUT"\n'),
        ("d.toml", '[[datasets]]\nvideo_jsonl_file = "OUT/x.jsonl"\n'),
        ("t.json", '{"datasets": [{"data_root": "OUT"}]}'),
        ("j.yaml", 'config: {process: [{datasets: [{folder_path: "OUT"}]}]}'),
    ],
)
@pytest.mark.parametrize("absolute", [False, True])
def test_folders_in_configurations_follow_the_same_rule(
    folder: Path, name: str, content: str, absolute: bool
) -> None:
    outside = folder.parent / "other"
    outside.mkdir()
    (outside / "b.mp4").touch()
    (outside / "x.jsonl").write_text('{"video_path": "b.mp4", "caption": ""}')
    config = folder / name
    config.write_text(content.replace("OUT", str(outside) if absolute else "../other"))
    with pytest.raises(UserError, match="points outside"):
        read_dataset(config)
    dataset = read_dataset(config, media_root=outside)
    assert [record.path for record in dataset.records] == [outside / "b.mp4"]
    assert [record.file_name for record in dataset.records] == ["b.mp4"]


def test_the_media_root_opens_that_folder_and_no_other(folder: Path) -> None:
    media = folder.parent / "media"
    media.mkdir()
    (media / "b.mp4").touch()
    table = folder / "list.jsonl"
    table.write_text(json.dumps({"video_path": str(media / "b.mp4")}))
    with pytest.raises(UserError):
        read_dataset(table)
    assert read_dataset(table, media_root=media).records[0].path == media / "b.mp4"
    table.write_text(json.dumps({"video_path": str(media / "../secret.mp4")}))
    with pytest.raises(UserError):
        read_dataset(table, media_root=media)
    table.write_text(json.dumps({"video_path": str(folder.parent / "media2/b.mp4")}))
    with pytest.raises(UserError):
        read_dataset(table, media_root=media)


def test_a_name_may_go_up_and_come_back(folder: Path) -> None:
    table = folder / "list.csv"
    table.write_text("file_name\nsub/../a.mp4\n")
    assert [record.file_name for record in read_dataset(table).records] == ["a.mp4"]


def test_the_users_own_links_are_not_resolved(folder: Path) -> None:
    (folder / "link.mp4").symlink_to(folder.parent / "secret.mp4")
    linked = folder.parent / "linked"
    linked.symlink_to(folder)
    (folder / "metadata.csv").write_text("file_name\nlink.mp4\n")
    dataset = read_dataset(linked)
    assert [record.path for record in dataset.records] == [linked / "link.mp4", linked / "a.mp4"]


@given(st.text(alphabet=st.sampled_from("./\\aC:\0 ~é"), min_size=1, max_size=12))
def test_whatever_the_name_the_path_stays_inside(name: str) -> None:
    root = Path(__file__).parent
    try:
        path = Entries(Source(root)).locate(name, where="x")
    except UserError:
        return
    assert path.is_relative_to(root)
    assert ".." not in path.parts
