"""Sources that are not valid: one sentence that says what to mend, and nothing read."""

from pathlib import Path

import pytest
from test_formats_reading import pairs, videos

from motive.clips.formats import read_dataset
from motive.errors import UserError

__all__ = ["videos"]  # a fixture


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metadata.csv", "name,text\na.mp4,x\n", "none of the columns file_name"),
        ("metadata.csv", "", "none of the columns"),
        ("metadata.csv", 'file_name,text\na.mp4,"open\n', "not valid CSV"),
        ("metadata.csv", "file_name,text,text\na.mp4,1,2\n", "two columns of one name"),
        ("metadata.jsonl", '{"file_name": "a.mp4"}\n{"file_name"\n', "line 2"),
        ("metadata.jsonl", "[1]\n", "no object in line 1"),
        ("metadata.jsonl", '{"file_name": "a.mp4", "file_name": "b.mov"}', "stands twice"),
        ("metadata.parquet", "PAR0", "as Parquet"),
        ("metadata.json", "[1, 2]", "no object"),
        ("metadata.json", "[" * 100_000, "not valid JSON"),
        ("list.json", '{"some": "thing"}', "no dataset that motive knows"),
        ("list.toml", "a = [", "not valid TOML"),
        ("list.toml", "[other]\n", "no dataset that motive knows"),
        ("list.yaml", "a: [", "not valid YAML"),
        ("list.yaml", "!!python/object/apply:os.getcwd []", "not valid YAML"),
        ("list.yaml", "a: 1", "no dataset that motive knows"),
        ("notes.txt", "hello", "no dataset that motive knows"),
        ("captions.json", '{"a.mp4": ["1"], "a.mp4": ["2"]}', "stands twice"),
        ("captions.json", "[]", "no object of file names"),
        ("d.toml", '[[directory]]\npath = "nowhere"\n', "does not exist"),
        ("d.toml", "[[directory]]\nnum_repeats = 1\n", "names no folder"),
        ("d.toml", '[[datasets]]\nimage_directory = "."\n', "no image datasets"),
        ("d.toml", '[[datasets]]\nvideo_jsonl_file = "no.jsonl"\n', "does not exist"),
    ],
)
def test_bad_metadata_is_one_sentence(videos: Path, name: str, content: str, message: str) -> None:
    (videos / name).write_text(content)
    source = videos if name.startswith(("metadata", "captions")) else videos / name
    with pytest.raises(UserError, match=message) as error:
        read_dataset(source)
    assert "\n" not in str(error.value)


def test_not_utf8_metadata(videos: Path) -> None:
    (videos / "metadata.csv").write_bytes(b"file_name,text\na.mp4,\xe9\n")
    with pytest.raises(UserError, match="not UTF-8"):
        read_dataset(videos)


def test_missing_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        read_dataset(tmp_path / "nowhere")
    with pytest.raises(UserError, match="holds no video file"):
        read_dataset(tmp_path)
    with pytest.raises(UserError, match="media root"):
        read_dataset(tmp_path, media_root=tmp_path / "nowhere")


def test_a_choice_that_is_not_clear_is_refused(videos: Path) -> None:
    for name in ("one.jsonl", "two.jsonl"):
        (videos / name).write_text('{"video_path": "a.mp4"}')
    with pytest.raises(UserError, match=r"holds one\.jsonl, two\.jsonl"):
        read_dataset(videos)
    (videos / "metadata.csv").write_text("file_name\n")
    (videos / "metadata.jsonl").write_text('{"file_name": "a.mp4"}')
    with pytest.raises(UserError, match="pass the one that you mean"):
        read_dataset(videos)
    assert pairs(read_dataset(videos / "metadata.jsonl")) == [("a.mp4", "")]


def test_metadata_of_a_part_of_a_bare_folder_is_not_lost_silently(videos: Path) -> None:
    (videos / "sub/metadata.csv").write_text("video,prompt\nc.webm,would be lost\n")
    with pytest.raises(UserError, match="describes only a part"):
        read_dataset(videos)
