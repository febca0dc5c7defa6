"""Each layout of the formats, written by hand as their projects document it, and read back."""

import json
import os
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet
from test_formats_transcode import write_video

from motive.clips.formats import Dataset, read_dataset
from motive.errors import UserError


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


# --- DiffSynth-Studio, data-juicer, cosmos-curate


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.json", "metadata.jsonl"])
def test_diffsynth(videos: Path, name: str) -> None:
    rows = [{"video": "sub/c.webm", "prompt": "see, sea"}, {"video": "a.mp4", "prompt": ""}]
    text = {
        "metadata.csv": 'video,prompt\nsub/c.webm,"see, sea"\na.mp4,\n',
        "metadata.json": json.dumps(rows),
        "metadata.jsonl": "\n".join(map(json.dumps, rows)),
    }[name]
    (videos / name).write_text(text)
    dataset = read_dataset(videos)
    assert dataset.format == "diffsynth"
    assert pairs(dataset) == [("sub/c.webm", "see, sea"), ("a.mp4", ""), ("b.mov", "")]


def test_diffsynth_with_a_base_path(videos: Path) -> None:
    """`--dataset_base_path` may be another folder than the metadata's."""
    table = videos / "sub/list.csv"
    table.write_text("video,prompt\na.mp4,base\nc.webm,own folder\n")
    assert "a.mp4" not in dict(pairs(read_dataset(table)))
    expected = [("a.mp4", "base"), ("c.webm", "own folder")]
    assert pairs(read_dataset(table, media_root=videos)) == expected


def test_data_juicer(videos: Path) -> None:
    rows = [
        {
            "videos": ["a.mp4"],
            "text": "<__dj__video> a cartoon <|__dj__eoc|>",
            "__dj__stats__": {"video_duration": [2.0]},
        },
        {
            "videos": ["b.mov", "sub/c.webm"],
            "text": "<__dj__video> two women <|__dj__eoc|> a man <__dj__video><|__dj__eoc|>",
        },
        {"videos": ["x.mp4", "y.mp4"], "text": "<__dj__video> only one token"},
        {"videos": [], "text": "words"},
    ]
    (videos / "demo.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for source in (videos, videos / "demo.jsonl"):
        dataset = read_dataset(source)
        assert dataset.format == "data-juicer"
        assert pairs(dataset) == [
            ("a.mp4", "a cartoon"),
            ("b.mov", "two women"),
            ("sub/c.webm", "a man"),
        ]
        assert dataset.records[0].extra["__dj__stats__"] == {"video_duration": [2.0]}
        assert "other video tokens" in reasons(dataset)["x.mp4"]


def test_cosmos_curate(tmp_path: Path) -> None:
    for folder in ("clips", "filtered_clips", "metas/v0"):
        (tmp_path / folder).mkdir(parents=True)
    for name in ("clips/1.mp4", "clips/2.mp4", "clips/3.mp4", "filtered_clips/4.mp4"):
        (tmp_path / name).touch()
    window = {"start_frame": 0, "end_frame": 256}
    metas = {
        "1": {
            "span_uuid": "1",
            "clip_location": "s3://bucket/clips/1.mp4",
            "motion_score": {"global_mean": 0.1, "per_patch_min_256": 0.0},
            "windows": [
                window | {"qwen_enhanced_caption": "finer", "qwen_caption": "first"},
                window | {"qwen_caption": "later"},
            ],
            "valid": True,
        },
        "2": {"windows": []},
        "4": {"clip_location": "/data/filtered_clips/4.mp4", "windows": []},
        "5": {"windows": []},
    }
    for name, meta in metas.items():
        (tmp_path / f"metas/v0/{name}.json").write_text(json.dumps(meta))
    (tmp_path / "metas/v0/6.json").write_text("{")
    dataset = read_dataset(tmp_path)
    assert dataset.format == "cosmos-curate"
    assert pairs(dataset) == [("clips/1.mp4", "first"), ("clips/2.mp4", ""), ("clips/3.mp4", "")]
    assert dataset.records[0].extra["captions"] == ["finer", "later"]
    assert dataset.records[0].extra["motion_score"]["global_mean"] == 0.1
    assert reasons(dataset).keys() == {"filtered_clips/4.mp4", "clips/5.mp4", "clips/6.mp4"}
    assert "filtered out" in reasons(dataset)["filtered_clips/4.mp4"]
    assert "not valid JSON" in reasons(dataset)["clips/6.mp4"]


# --- configurations of trainers


def test_musubi_jsonl_with_absolute_paths(videos: Path) -> None:
    rows = [
        {"video_path": str(videos / "sub/c.webm"), "caption": "far"},
        {"video_path": "a.mp4", "caption": "near", "control_path": "x"},
    ]
    (videos / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert pairs(read_dataset(videos / "train.jsonl")) == [("sub/c.webm", "far"), ("a.mp4", "near")]
    dataset = read_dataset(videos)
    assert dataset.format == "musubi"
    assert pairs(dataset) == [("sub/c.webm", "far"), ("a.mp4", "near"), ("b.mov", "")]


def test_musubi_toml(videos: Path) -> None:
    (videos / "a.cap").write_text("side")
    (videos / "v.jsonl").write_text(json.dumps({"video_path": "sub/c.webm", "caption": "line"}))
    (videos / "data.toml").write_text(
        f"""
[general]
resolution = [832, 480]
caption_extension = ".cap"

[[datasets]]
video_directory = "{videos}"
target_frames = [81]
source_fps = 30.0

[[datasets]]
video_jsonl_file = "v.jsonl"
cache_directory = "cache"
num_repeats = 3
"""
    )
    dataset = read_dataset(videos / "data.toml")
    assert dataset.format == "musubi"
    assert pairs(dataset) == [("a.mp4", "side"), ("b.mov", ""), ("sub/c.webm", "line")]
    assert dataset.records[0].extra == {"source_fps": 30.0}
    assert dataset.records[2].extra == {"num_repeats": 3}


def test_diffusion_pipe(videos: Path) -> None:
    captions = {"b.mov": ["one", "two", "three"], "a.mp4": [], "gone.mp4": ["x"], "c.mp4": [1]}
    (videos / "captions.json").write_text(json.dumps(captions))
    (videos / "a.txt").write_text("ignored beside captions.json")
    (videos / "sub/c.txt").write_text("used where there is none")
    expected = [("b.mov", "one"), ("a.mp4", ""), ("sub/c.webm", "used where there is none")]
    dataset = read_dataset(videos)
    assert dataset.format == "diffusion-pipe"
    assert pairs(dataset) == expected
    assert dataset.records[0].extra == {"captions": ["two", "three"]}
    assert reasons(dataset).keys() == {"gone.mp4", "c.mp4"}
    assert pairs(read_dataset(videos / "captions.json")) == expected[:2]
    (videos / "dataset.toml").write_text(
        f'resolutions = [512]\n[[directory]]\npath = "{videos}"\nnum_repeats = 2\n'
        '[[directory]]\npath = "sub"\n'
    )
    dataset = read_dataset(videos / "dataset.toml")
    assert dataset.format == "diffusion-pipe"
    assert pairs(dataset) == expected
    assert dataset.records[1].extra == {"num_repeats": 2}


def test_ai_toolkit(videos: Path) -> None:
    (videos / "sub/c.cap").write_text("deep")
    job = videos / "job.yaml"
    job.write_text(
        f"""---
job: extension
config:
  name: x
  process:
    - type: sd_trainer
      datasets:
        - folder_path: "{videos}"
          caption_ext: cap
          num_frames: 81
          resolution: [512]
"""
    )
    dataset = read_dataset(job)
    assert dataset.format == "ai-toolkit"
    assert pairs(dataset) == [("a.mp4", ""), ("b.mov", ""), ("sub/c.webm", "deep")]


def test_finetrainers_lists(videos: Path) -> None:
    (videos / "videos.txt").write_text("sub/c.webm\nb.mov\n\n")
    (videos / "prompts.txt").write_text("far, away\n\nno video\n")
    dataset = read_dataset(videos)
    assert dataset.format == "finetrainers"
    assert pairs(dataset) == [("sub/c.webm", "far, away"), ("b.mov", ""), ("a.mp4", "")]
    assert reasons(dataset) == {"videos.txt, line 3": "is an entry that names no file"}
    (videos / "prompts.txt").write_text("one")
    with pytest.raises(UserError, match="1 lines in prompts.txt and 3 in videos.txt"):
        read_dataset(videos)


def test_finetrainers_training_json_probes_every_layout(videos: Path, tmp_path: Path) -> None:
    roots = {name: tmp_path / "data" / name for name in ("meta", "lists", "pairs")}
    for name, root in roots.items():
        root.mkdir(parents=True)
        (root / f"{name}.mp4").touch()
    (roots["meta"] / "metadata.csv").write_text("file_name,caption\nmeta.mp4,m\n")
    (roots["lists"] / "videos.txt").write_text("lists.mp4")
    (roots["lists"] / "captions.txt").write_text("l")
    (roots["pairs"] / "pairs.txt").write_text("p")
    datasets = [{"data_root": str(root), "dataset_type": "video"} for root in roots.values()]
    config = tmp_path / "training.json"
    config.write_text(json.dumps({"datasets": datasets}))
    dataset = read_dataset(config)
    assert dataset.format == "finetrainers"
    assert pairs(dataset) == [
        ("data/meta/meta.mp4", "m"),
        ("data/lists/lists.mp4", "l"),
        ("data/pairs/pairs.mp4", "p"),
    ]


def test_two_folders_of_one_configuration_never_mix_their_names(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.mp4").touch()
    (tmp_path / "d.toml").write_text('[[directory]]\npath="one"\n[[directory]]\npath="two"\n')
    assert [name for name, _ in pairs(read_dataset(tmp_path / "d.toml"))] == [
        "one/a.mp4",
        "two/a.mp4",
    ]


# --- what is refused


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
