"""What an export writes: order, names, configurations, re-encodings, and all or nothing."""

import ast
import errno
import inspect
import json
import os
import shlex
import shutil
import tomllib
from pathlib import Path

import pytest
import yaml
from test_formats_transcode import decode, psnr, write_video

from motive.clips.formats import EXPORT_FORMATS, ExportClip, read_dataset, write_dataset
from motive.commands.results import export
from motive.errors import UserError

CONTAINERS = ("mp4", "mov", "mkv", "webm", "avi", "gif", "mpeg", "mpg", "m4v")
#: The containers that each format's reader does not take.
REENCODED = {
    "videofolder": {"webm", "gif", "mpg", "m4v"},
    "diffsynth": {"mpeg", "mpg", "m4v"},
    "musubi": {"gif"},
    "data-juicer": set(),
    "webdataset": {"mov", "mkv", "webm", "avi", "gif", "mpeg", "mpg", "m4v"},
    "diffusion-pipe": {"gif"},
    "finetrainers": {"mkv", "webm", "avi", "gif", "mpeg", "mpg", "m4v"},
    "ai-toolkit": {"gif", "mpeg", "mpg"},
    "fiftyone": {"mov", "mkv", "avi", "gif", "mpeg", "mpg"},
}


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`clip.SUFFIX` in every container, and a second mp4."""
    folder = tmp_path_factory.mktemp("media")
    for seed, suffix in enumerate(CONTAINERS):
        write_video(folder / f"clip.{suffix}", seed=seed)
    write_video(folder / "b.mp4", seed=99)
    return folder


def clip(path: Path, rank: int, **values: object) -> ExportClip:
    fields = {"file_name": path.name, "caption": f"caption {rank}", "scores": {}} | values
    return ExportClip(path=path, rank=rank, **fields)  # type: ignore[arg-type]


@pytest.fixture
def two(media: Path) -> list[ExportClip]:
    """Worst first, as an export must not keep it."""
    return [
        clip(media / "b.mp4", 2, scores={"mean_score": 0.25}),
        clip(media / "clip.mp4", 1, scores={"mean_score": 0.5, "votes": 3}),
    ]


def test_the_formats_are_those_that_the_command_line_names() -> None:
    assert set(EXPORT_FORMATS) == set(REENCODED)


@pytest.mark.parametrize("format", EXPORT_FORMATS)
def test_what_a_reader_cannot_open_is_reencoded_and_said(
    media: Path, tmp_path: Path, format: str
) -> None:
    clips = [clip(media / f"clip.{s}", rank) for rank, s in enumerate(CONTAINERS, start=1)]
    report = write_dataset(format, clips, tmp_path / "out")
    expected = {f"clip.{suffix}" for suffix in REENCODED[format]}
    assert {done.file_name for done in report.reencoded} == expected
    assert len(report.clips) == len(CONTAINERS)
    if expected:
        assert f"of them re-encoded to H.264 mp4: {len(expected)}" in report.summary()
    readme = (tmp_path / "out/README.md").read_text()
    written = json.loads((tmp_path / "out/export.json").read_text())
    for done, entry in zip(report.clips, written["clips"], strict=True):
        assert entry["reencoded"] == done.reencoded
        assert bool(done.reencoded) == (done.file_name in expected)
        assert (f"`{done.name}`: {done.reencoded}" in readme) == bool(done.reencoded)
    dataset = read_dataset(tmp_path / "out", extract_to=tmp_path / "extracted")
    for record, source in zip(dataset.records, clips, strict=True):
        if source.file_name in expected:
            assert record.path.suffix == ".mp4"
            times, pictures = decode(record.path)
            assert times == decode(source.path)[0]
            assert psnr(pictures, decode(source.path)[1]) > 33
        else:
            assert record.path.read_bytes() == source.path.read_bytes()


@pytest.mark.parametrize("format", EXPORT_FORMATS)
def test_links(two: list[ExportClip], tmp_path: Path, format: str) -> None:
    write_dataset(format, two, tmp_path / "out", link=True)
    if format == "webdataset":
        return  # its own tests say that it copies
    files = list((tmp_path / "out").rglob("*.mp4"))
    assert len(files) == 2
    assert {os.readlink(path) for path in files} == {str(clip.path) for clip in two}
    assert len(read_dataset(tmp_path / "out").records) == 2


def test_names_carry_the_rank_and_are_safe(media: Path, tmp_path: Path) -> None:
    names = [
        "sub/dir/a.b c.mp4",
        "..mp4",
        "a b.c.mp4",
        "日本 語.mp4",
        "x" * 200 + ".mp4",
        "é" * 100 + ".mp4",
        'q"$`\n.mp4',
        "same.mp4",
        "other/same.mp4",
    ]
    clips = [clip(media / "b.mp4", rank, file_name=name) for rank, name in enumerate(names, 1)]
    report = write_dataset("diffsynth", clips, tmp_path / "out")
    exported = [done.name.removeprefix("videos/") for done in report.clips]
    assert exported[0] == "000001_a_b_c.mp4"
    assert exported[1] == "000002_clip.mp4"
    assert exported[3] == "000004_日本_語.mp4"
    assert exported == sorted(exported)
    assert len(set(exported)) == len(names)
    for name in exported:
        stem = name.removesuffix(".mp4")
        assert not set(stem) & set('. "$`\n/')
        assert len(name.encode()) < 140


def test_a_suffix_in_capitals_becomes_small(media: Path, tmp_path: Path) -> None:
    """finetrainers asks for `a.mp4`, to the letter."""
    shutil.copy(media / "b.mp4", tmp_path / "B.MP4")
    report = write_dataset("finetrainers", [clip(tmp_path / "B.MP4", 1)], tmp_path / "out")
    assert report.clips[0].name == "videos/000001_B.mp4"
    assert not report.reencoded


def test_ranks_past_a_million_still_sort(media: Path, tmp_path: Path) -> None:
    clips = [clip(media / "b.mp4", rank) for rank in (2_000_000, 9)]
    report = write_dataset("ai-toolkit", clips, tmp_path / "out")
    names = ["videos/0000009_b.mp4", "videos/2000000_b.mp4"]
    assert [done.name for done in report.clips] == names


# --- the configurations


def test_videofolder_metadata(two: list[ExportClip], tmp_path: Path) -> None:
    write_dataset("videofolder", two, tmp_path / "out")
    lines = (tmp_path / "out/train/metadata.jsonl").read_text().splitlines()
    assert json.loads(lines[0]) == {
        "file_name": "000001_clip.mp4",
        "caption": "caption 1",
        "rank": 1,
        "source": "clip.mp4",
        "scores": {"mean_score": 0.5, "votes": 3},
    }


def test_diffsynth_metadata(two: list[ExportClip], tmp_path: Path) -> None:
    write_dataset("diffsynth", two, tmp_path / "out")
    assert json.loads((tmp_path / "out/metadata.json").read_text()) == [
        {"video": "videos/000001_clip.mp4", "prompt": "caption 1"},
        {"video": "videos/000002_b.mp4", "prompt": "caption 2"},
    ]


def test_musubi_files(two: list[ExportClip], tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_dataset("musubi", two, out)
    config = tomllib.loads((out / "dataset.toml").read_text())
    assert config["general"]["resolution"] == [832, 480]
    assert config["datasets"] == [
        {
            "video_jsonl_file": str(out / "videos.jsonl"),
            "cache_directory": str(out / "cache_1"),
            "frame_extraction": "full",
            "max_frames": 81,
            "num_repeats": 1,
            "source_fps": 25.0,
        }
    ]
    assert isinstance(config["datasets"][0]["source_fps"], float)
    lines = (out / "videos.jsonl").read_text().splitlines()
    first = {"video_path": str(out / "videos/000001_clip.mp4"), "caption": "caption 1"}
    assert json.loads(lines[0]) == first


def test_musubi_never_invents_a_frame_rate(media: Path, tmp_path: Path) -> None:
    """Datasets of one rate each; none for a variable rate and for a file that cannot be read."""
    slow = write_video(tmp_path / "slow.mp4", times=[0, 5, 10])
    uneven = write_video(tmp_path / "uneven.mp4", times=[0, 1, 9])
    (tmp_path / "broken.mp4").write_bytes(b"broken")
    paths = [uneven, media / "b.mp4", slow, tmp_path / "broken.mp4", media / "clip.mp4"]
    clips = [clip(path, rank) for rank, path in enumerate(paths, 1)]
    out = tmp_path / "out"
    report = write_dataset("musubi", clips, out)
    config = tomllib.loads((out / "dataset.toml").read_text())
    found = {}
    for dataset in config["datasets"]:
        lines = Path(dataset["video_jsonl_file"]).read_text().splitlines()
        found[dataset.get("source_fps")] = [json.loads(line)["caption"] for line in lines]
    assert found == {
        5.0: ["caption 3"],
        25.0: ["caption 2", "caption 5"],
        None: ["caption 1", "caption 4"],
    }
    assert len({dataset["cache_directory"] for dataset in config["datasets"]}) == 3
    assert any("2 clips have no constant frame rate" in note for note in report.notes)
    assert len(read_dataset(out / "dataset.toml").records) == 5
    assert [r.caption for r in read_dataset(out).records] == [c.caption for c in clips]


def test_diffusion_pipe_files(two: list[ExportClip], tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_dataset("diffusion-pipe", two, out)
    config = tomllib.loads((out / "dataset.toml").read_text())
    assert config["resolutions"] == [512]
    assert config["frame_buckets"] == [1, 33]
    assert config["directory"] == [{"path": str(out / "videos"), "num_repeats": 1}]
    captions = json.loads((out / "videos/captions.json").read_text())
    assert captions == {"000001_clip.mp4": ["caption 1"], "000002_b.mp4": ["caption 2"]}
    # The trainer opens whatever else lies in the folder as an image.
    assert {path.name for path in (out / "videos").iterdir()} == {*captions, "captions.json"}
    assert len(read_dataset(out / "dataset.toml").records) == 2


def test_ai_toolkit_files(two: list[ExportClip], tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_dataset("ai-toolkit", two, out)
    job = yaml.safe_load((out / "job.yaml").read_text())
    dataset = job["config"]["process"][0]["datasets"][0]
    assert dataset["folder_path"] == str(out / "videos")
    assert dataset["caption_ext"] == "txt"
    assert dataset["num_frames"] == 81
    assert (out / "videos/000001_clip.txt").read_text() == "caption 1"
    assert [record.caption for record in read_dataset(out / "job.yaml").records] == [
        "caption 1",
        "caption 2",
    ]


def test_finetrainers_files(two: list[ExportClip], tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_dataset("finetrainers", two, out)
    assert json.loads((out / "training.json").read_text()) == {
        "datasets": [
            {
                "data_root": str(out / "videos"),
                "dataset_type": "video",
                "video_resolution_buckets": [[49, 480, 832]],
                "reshape_mode": "bicubic",
            }
        ]
    }
    stems = ("000001_clip", "000002_b")
    expected = {f"{stem}.{suffix}" for stem in stems for suffix in ("mp4", "txt")}
    assert {path.name for path in (out / "videos").iterdir()} == expected
    assert len(read_dataset(out / "training.json").records) == 2


def test_data_juicer_files(two: list[ExportClip], tmp_path: Path) -> None:
    write_dataset("data-juicer", two, tmp_path / "out")
    lines = (tmp_path / "out/dataset.jsonl").read_text().splitlines()
    assert json.loads(lines[0]) == {
        "videos": ["videos/000001_clip.mp4"],
        "text": "<__dj__video> caption 1 <|__dj__eoc|>",
        "__dj__stats__": {"motive_rank": 1, "motive_mean_score": 0.5, "motive_votes": 3},
    }


def test_paths_with_quotes_make_valid_configurations(two: list[ExportClip], tmp_path: Path) -> None:
    for format, name in (
        ("musubi", "dataset.toml"),
        ("diffusion-pipe", "dataset.toml"),
        ("ai-toolkit", "job.yaml"),
        ("finetrainers", "training.json"),
    ):
        out = tmp_path / f'o\'ut "x" \x7f\\ {format} 😀: #'
        write_dataset(format, two, out)
        assert len(read_dataset(out / name).records) == 2


@pytest.mark.parametrize("format", EXPORT_FORMATS)
def test_the_readme_tells_how_to_use_it(two: list[ExportClip], tmp_path: Path, format: str) -> None:
    write_dataset(format, two, tmp_path / "out")
    text = (tmp_path / "out/README.md").read_text()
    assert format in text
    assert "```" in text or "`job.yaml`" in text


COMMANDS = {"diffsynth": 2, "musubi": 3, "finetrainers": 1, "data-juicer": 1}  # with a path of ours


@pytest.mark.parametrize("format", COMMANDS)
def test_the_readme_s_commands_hold_in_any_folder(
    two: list[ExportClip], tmp_path: Path, format: str
) -> None:
    out = tmp_path / "it's my $(best) 10%"
    write_dataset(format, two, out)
    command = (out / "README.md").read_text().split("```")[1]
    named = [word for word in shlex.split(command) if word.startswith(str(out))]
    assert len(named) == COMMANDS[format]
    assert all(Path(word).exists() for word in named)


def test_the_readme_s_settings_hold_in_any_folder(two: list[ExportClip], tmp_path: Path) -> None:
    out = tmp_path / """it's "my" best"""
    write_dataset("diffusion-pipe", two, out / "pipe")
    setting = (out / "pipe/README.md").read_text().split("```")[1]
    assert Path(tomllib.loads(setting)["dataset"]).is_file()
    write_dataset("webdataset", two, out / "tars")
    line = (out / "tars/README.md").read_text().split("```")[1].splitlines()[2]
    calls = [node for node in ast.walk(ast.parse(line)) if isinstance(node, ast.Constant)]
    assert [Path(call.value).is_file() for call in calls] == [True]


def test_formats_are_offered_as_the_command_lists_them() -> None:
    told = inspect.signature(export).parameters["format"].annotation.__metadata__[0].help
    assert tuple(told.rstrip(".").replace(" or ", ", ").split(", ")) == EXPORT_FORMATS


@pytest.mark.parametrize("format", EXPORT_FORMATS)
def test_equal_clips_make_equal_exports(two: list[ExportClip], tmp_path: Path, format: str) -> None:
    trees = []
    for order in (two, two[::-1]):
        out = tmp_path / "out"
        write_dataset(format, order, out)
        files = sorted(path for path in out.rglob("*") if path.is_file())
        trees.append([(path.relative_to(out), path.read_bytes()) for path in files])
        shutil.rmtree(out)
    assert trees[0] == trees[1]


# --- all or nothing


def test_an_unknown_format_names_the_known_ones(two: list[ExportClip], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no export format 'cosmos-curate'.*videofolder.*musubi"):
        write_dataset("cosmos-curate", two, tmp_path / "out")


def test_the_target_must_be_empty(two: list[ExportClip], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/.hidden").touch()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    (tmp_path / "empty").mkdir(mode=0o750)
    for name in ("file", "full", "link"):
        with pytest.raises(UserError, match="not an empty folder"):
            write_dataset("diffsynth", two, tmp_path / name)
    assert len(write_dataset("diffsynth", two, tmp_path / "empty").clips) == 2
    assert len(write_dataset("diffsynth", two, tmp_path / "new/deep").clips) == 2
    assert (tmp_path / "new/deep").stat().st_mode & 0o077 == 0o777 & ~_umask() & 0o077


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_no_clips(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no clip to export"):
        write_dataset("diffsynth", [], tmp_path / "out")


def test_a_clip_that_is_gone(two: list[ExportClip], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no longer there"):
        write_dataset("diffsynth", [*two, clip(tmp_path / "gone.mp4", 3)], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_ranks_and_scores_are_checked(media: Path, tmp_path: Path) -> None:
    path = media / "b.mp4"
    for clips in (
        [clip(path, 1), clip(path, 1)],
        [clip(path, 0)],
        [clip(path, 1, scores={"x": float("nan")})],
    ):
        with pytest.raises(ValueError):
            write_dataset("diffsynth", clips, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_reencoding_is_left_out_and_said(media: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.webm").touch()
    clips = [clip(tmp_path / "empty.webm", 1), clip(media / "b.mp4", 2)]
    report = write_dataset("finetrainers", clips, tmp_path / "out")
    assert [done.file_name for done in report.clips] == ["b.mp4"]
    assert [problem.file_name for problem in report.problems] == ["empty.webm"]
    assert "left out: 1" in report.summary()
    assert "`empty.webm` cannot be re-encoded" in (tmp_path / "out/README.md").read_text()
    assert len(list((tmp_path / "out/videos").iterdir())) == 2
    with pytest.raises(UserError, match="None of the 1 clips"):
        write_dataset("finetrainers", clips[:1], tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyError()])
@pytest.mark.parametrize("format", EXPORT_FORMATS)
def test_nothing_half_written_is_left(
    two: list[ExportClip],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    format: str,
    error: Exception,
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("motive.clips.formats.export._as_json", fail)  # the last thing written
    with pytest.raises(UserError if isinstance(error, OSError) else KeyError) as raised:
        write_dataset(format, two, tmp_path / "out")
    if isinstance(error, OSError):
        assert "No space left" in str(raised.value)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_during_a_reencoding_is_not_the_clips_fault(
    media: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import av

    def full(*_: object) -> None:
        raise av.error.OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("motive.clips.formats.transcode._mux", full)
    with pytest.raises(UserError, match="No space left"):
        write_dataset("finetrainers", [clip(media / "clip.gif", 1)], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written(two: list[ExportClip], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="choose another folder"):
        write_dataset("diffsynth", two, tmp_path / "file/out")
