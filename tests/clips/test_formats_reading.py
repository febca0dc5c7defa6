"""Each layout of the formats, written by hand as their projects document it, and read back."""

import json
import os
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet
from test_formats_transcode import write_video

from motive.clips.formats import Dataset, read_dataset


def pairs(dataset: Dataset) -> list[tuple[str, str]]:
    return [(record.file_name, record.caption) for record in dataset.records]


def reasons(dataset: Dataset) -> dict[str, str]:
    return {problem.file_name: problem.reason for problem in dataset.problems}


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """A folder with `a.mp4`, `b.mov` and `sub/c.webm`; nothing here decodes them."""
    for name in ("a.mp4", "b.mov", "sub/c.webm"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


# --- folders and sidecars


def test_a_bare_folder_is_read_to_any_depth_in_a_fixed_order(videos: Path) -> None:
    (videos / "sub/A.MP4").touch()
    dataset = read_dataset(videos)
    assert dataset.format == "folder"
    assert pairs(dataset) == [("a.mp4", ""), ("b.mov", ""), ("sub/A.MP4", ""), ("sub/c.webm", "")]
    assert all(record.path == videos / record.file_name for record in dataset.records)


def test_files_that_are_no_videos_are_not_records(videos: Path) -> None:
    for name in ("notes.md", "SHA256SUMS", "a.npz", ".hidden.mp4", "._a.mp4", "thumb.jpg", "mp4"):
        (videos / name).touch()
    (videos / ".cache").mkdir()
    (videos / ".cache/x.mp4").touch()
    assert [name for name, _ in pairs(read_dataset(videos))] == ["a.mp4", "b.mov", "sub/c.webm"]


def test_sidecars(videos: Path) -> None:
    (videos / "a.txt").write_bytes("\ufeff one,\r\n“two”  \n".encode())
    (videos / "sub/c.txt").write_text("")
    (videos / "b.txt").write_bytes(b"\xff\xfe not UTF-8")
    dataset = read_dataset(videos)
    assert pairs(dataset) == [("a.mp4", "one,\n“two”"), ("sub/c.webm", "")]
    assert "not UTF-8" in reasons(dataset)["b.mov"]


def test_a_single_video_is_a_dataset(videos: Path) -> None:
    (videos / "a.txt").write_text("alone")
    assert pairs(read_dataset(videos / "a.mp4")) == [("a.mp4", "alone")]


def test_links_are_followed_and_a_loop_ends(videos: Path, tmp_path: Path) -> None:
    (videos / "sub/up").symlink_to(videos)
    (videos / "gone.mp4").symlink_to(videos / "nowhere.mp4")
    (videos / "link.mp4").symlink_to(videos / "a.mp4")
    dataset = read_dataset(videos)
    names = [name for name, _ in pairs(dataset)]
    assert names == ["a.mp4", "b.mov", "link.mp4", "sub/c.webm"]
    assert reasons(dataset) == {"gone.mp4": "is a link to nothing"}


def test_a_file_in_a_linked_folder_comes_once_under_its_own_name(videos: Path) -> None:
    (videos / "a_link").symlink_to(videos / "sub")
    (videos / "metadata.csv").write_text("file_name,text\nsub/c.webm,x\n")
    assert pairs(read_dataset(videos)) == [("sub/c.webm", "x"), ("a.mp4", ""), ("b.mov", "")]


def test_what_is_no_file_or_no_text_is_a_problem(videos: Path) -> None:
    os.mkfifo(videos / "pipe.mp4")
    bad = os.fsencode(videos) + b"/\xff.mp4"
    Path(os.fsdecode(bad)).touch()
    dataset = read_dataset(videos)
    assert len(dataset.records) == 3
    assert reasons(dataset) == {
        "pipe.mp4": "is not a regular file",
        "\\udcff.mp4": "has a name that is not valid UTF-8: rename it",
    }


def test_the_real_folder_gives_exactly_its_clips(shared: Path) -> None:
    dataset = read_dataset(shared / "clips")
    others = {"metadata.csv", "README.md", "SHA256SUMS"}
    files = {path.name for path in (shared / "clips").iterdir()} - others
    assert dataset.format == "videofolder"
    assert {record.file_name for record in dataset.records} == files
    assert len(dataset.records) == 95
    assert dataset.problems == []
    captions = {record.file_name: record.caption for record in dataset.records}
    assert captions["cogvideo__horse.mp4"].startswith("A jockey gallops")
    assert captions["datasets__test_video_66x50.mov"] == ""
    assert dataset.records[0].extra["motion_label"] == "float"


# --- videofolder


def test_videofolder_csv(videos: Path) -> None:
    (videos / "metadata.csv").write_text(
        'file_name,caption,fps\nsub/c.webm,"a, ""b""\nc",16\n\na.mp4,,8\nb.mov\n', newline=""
    )
    dataset = read_dataset(videos)
    assert dataset.format == "videofolder"
    assert pairs(dataset) == [("sub/c.webm", 'a, "b"\nc'), ("a.mp4", ""), ("b.mov", "")]
    assert dataset.records[0].extra == {"fps": "16"}


def test_videofolder_jsonl_and_parquet(videos: Path) -> None:
    rows = [{"file_name": "b.mov", "text": "x\u2028y", "n": 1}, {"file_name": "a.mp4"}]
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (videos / "metadata.jsonl").write_text(lines)
    expected = [("b.mov", "x\u2028y"), ("a.mp4", ""), ("sub/c.webm", "")]
    assert pairs(read_dataset(videos)) == expected
    (videos / "metadata.jsonl").unlink()
    parquet.write_table(pa.Table.from_pylist(rows), videos / "metadata.parquet")
    dataset = read_dataset(videos)
    assert pairs(dataset) == expected
    assert dataset.records[0].extra == {"n": 1}


def test_metadata_in_subfolders(videos: Path) -> None:
    for split, name in (("train", "x"), ("test", "y")):
        (videos / split).mkdir()
        (videos / split / f"{name}.mp4").touch()
        (videos / split / "metadata.csv").write_text(f"file_name,text\n{name}.mp4,{split}\n")
    expected = [("test/y.mp4", "test"), ("train/x.mp4", "train")]
    expected += [("a.mp4", ""), ("b.mov", ""), ("sub/c.webm", "")]
    assert pairs(read_dataset(videos)) == expected


def test_a_folder_keeps_what_its_metadata_does_not_name_but_a_file_is_a_choice(
    videos: Path,
) -> None:
    (videos / "metadata.csv").write_text("file_name,text\nb.mov,only\n")
    (videos / "queries.csv").write_text("file_name,text\nb.mov,only\n")
    (videos / "a.txt").write_text("a sidecar is not asked where metadata governs")
    assert pairs(read_dataset(videos)) == [("b.mov", "only"), ("a.mp4", ""), ("sub/c.webm", "")]
    assert pairs(read_dataset(videos / "queries.csv")) == [("b.mov", "only")]


def test_the_caption_column(videos: Path) -> None:
    for columns, expected in (
        ("prompt,text,caption", "3"),
        ("prompt,text,other", "2"),
        ("prompt,other,more", "1"),
        ("x,y,z", ""),
    ):
        (videos / "metadata.csv").write_text(f"file_name,{columns}\na.mp4,1,2,3\n")
        assert read_dataset(videos).records[0].caption == expected


def test_one_bad_entry_never_stops_the_rest(videos: Path) -> None:
    (videos / "folder.mp4").mkdir()
    (videos / "c.jpg").touch()
    rows = [
        {"file_name": "gone.mp4"},
        {"file_name": "folder.mp4"},
        {"file_name": "c.jpg"},
        {"file_name": "a.mp4/x.mp4"},
        {"file_name": "x" * 300 + ".mp4"},
        {"file_name": "https://example.org/v.mp4"},
        {"file_name": ""},
        {"file_name": None},
        {"file_name": 7},
        {"caption": "no name"},
        {"file_name": "a.mp4", "caption": "first"},
        {"file_name": "./sub/../a.mp4", "caption": "second"},
        {"file_name": "b.mov", "caption": "\ud800 half a pair"},
    ]
    (videos / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    dataset = read_dataset(videos)
    assert pairs(dataset) == [("a.mp4", "first"), ("sub/c.webm", "")]
    found = reasons(dataset)
    assert len(dataset.problems) == len(found) == 12
    assert found["gone.mp4"] == "does not exist"
    assert found["folder.mp4"] == "is a folder"
    assert found["c.jpg"] == "is not a video file by its suffix (.jpg)"
    assert found["a.mp4/x.mp4"] == "cannot be read: Not a directory"
    assert found["x" * 300 + ".mp4"] == "cannot be read: File name too long"
    assert "download it" in found["https:/example.org/v.mp4"]
    assert found["a.mp4"] == "is listed more than once; the first entry counts"
    assert "valid Unicode" in found["b.mov"]
    for line in (7, 8, 9, 10):
        assert found[f"metadata.jsonl, line {line}"] == "is an entry that names no file"


def test_an_unquoted_comma_is_a_problem_and_not_half_a_caption(videos: Path) -> None:
    (videos / "metadata.csv").write_text("file_name,text\na.mp4,A cat, sitting\nb.mov,fine\n")
    dataset = read_dataset(videos)
    assert pairs(dataset) == [("b.mov", "fine"), ("sub/c.webm", "")]
    assert "3 fields in metadata.csv, line 2" in reasons(dataset)["a.mp4"]


def test_windows_names(videos: Path) -> None:
    (videos / "metadata.csv").write_text("file_name,text\nsub\\c.webm,x\n")
    assert pairs(read_dataset(videos))[0] == ("sub/c.webm", "x")


def test_reading_does_not_depend_on_the_order_of_the_file_system(tmp_path: Path) -> None:
    names = [f"{x}/{y}.mp4" for x in ("b", "a", "a b", "a-b") for y in ("2", "10", "Z", "é")]
    orders = []
    for number, order in enumerate((names, names[::-1])):
        for name in order:
            path = tmp_path / str(number) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        orders.append(pairs(read_dataset(tmp_path / str(number))))
    assert orders[0] == orders[1]
    assert sorted(name for name, _ in orders[0]) == sorted(names)


def test_empty_and_corrupt_files_are_records(tmp_path: Path) -> None:
    write_video(tmp_path / "good.mp4")
    (tmp_path / "empty.mp4").touch()
    assert len(read_dataset(tmp_path).records) == 2
