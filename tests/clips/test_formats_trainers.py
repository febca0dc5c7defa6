"""The layouts of DiffSynth-Studio, data-juicer, cosmos-curate and the trainers' configurations."""

import json
from pathlib import Path

import pytest
from test_formats_reading import pairs, reasons, videos

from motive.clips.formats import read_dataset
from motive.errors import UserError

__all__ = ["videos"]  # a fixture


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
    with pytest.raises(UserError, match=r"1 lines in prompts\.txt and 3 in videos\.txt"):
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
