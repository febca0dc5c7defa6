"""Exports opened by the formats' own readers, without a network."""

import json
import shutil
from pathlib import Path

import pytest
from test_formats_transcode import decode, write_video

from motive.clips.formats import ExportClip, write_dataset

CAPTIONS = ["a, “b”\nc", "", "NA", "123"]
#: `datasets` guesses splits from such names, and `tar` readers cut keys at the first dot.
NAMES = ["my_test_clip.mp4", "val.set.train.webm", "a b.gif", "dev/eval-1.mov"]


@pytest.fixture
def clips(tmp_path: Path) -> list[ExportClip]:
    return [
        ExportClip(
            write_video(tmp_path / "in" / f"{rank}{Path(name).suffix}", seed=rank),
            name,
            caption,
            rank,
            {"mean_score": 1.0 / rank},
        )
        for rank, (name, caption) in enumerate(zip(NAMES, CAPTIONS, strict=True), start=1)
    ]


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`datasets` without the hub, and with its cache in the test's folder."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    datasets = pytest.importorskip("datasets")
    # Both variables are read when the package is imported, which another test may have done.
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("link", [False, True])
def test_datasets_opens_a_videofolder(clips: list[ExportClip], tmp_path: Path, link: bool) -> None:
    import datasets

    out = tmp_path / "my_test_dataset"
    write_dataset("videofolder", clips, out, link=link)
    loaded = datasets.load_dataset("videofolder", data_dir=str(out))
    assert list(loaded) == ["train"]
    assert (tmp_path / "cache").is_dir()  # and not the user's
    rows = loaded["train"].cast_column("video", datasets.Video(decode=False))
    assert rows["caption"] == CAPTIONS
    assert rows["rank"] == [1, 2, 3, 4]
    assert [row["mean_score"] for row in rows["scores"]] == [1.0, 0.5, 1 / 3, 0.25]
    paths = [Path(video["path"]) for video in rows["video"]]
    assert [path.name for path in paths] == [
        "000001_my_test_clip.mp4",
        "000002_val_set_train.mp4",
        "000003_a_b.mp4",
        "000004_eval-1.mov",
    ]
    for path, clip in zip(paths, clips, strict=True):
        assert decode(path)[0] == decode(clip.path)[0]


@pytest.mark.usefixtures("offline")
def test_datasets_opens_the_shards(clips: list[ExportClip], tmp_path: Path) -> None:
    import datasets

    out = tmp_path / "my_test_dataset"
    write_dataset("webdataset", clips, out)
    rows = datasets.load_dataset("webdataset", data_dir=str(out / "shards"), split="train")
    rows = rows.cast_column("mp4", datasets.Video(decode=False))
    assert rows["txt"] == CAPTIONS
    assert [row["rank"] for row in rows["json"]] == [1, 2, 3, 4]
    assert all(video["bytes"] for video in rows["mp4"])


def test_webdataset_opens_the_shards(clips: list[ExportClip], tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    write_dataset("webdataset", clips, tmp_path / "out")
    url = str(tmp_path / "out/shards/000000.tar")
    samples = list(webdataset.WebDataset(url, shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == [
        "000001_my_test_clip",
        "000002_val_set_train",
        "000003_a_b",
        "000004_eval-1",
    ]
    assert [sample["txt"].decode() for sample in samples] == CAPTIONS
    assert [json.loads(sample["json"])["rank"] for sample in samples] == [1, 2, 3, 4]
    assert samples[0]["mp4"] == clips[0].path.read_bytes()
    decoded = webdataset.WebDataset(url, shardshuffle=False).decode()
    assert [sample["txt"] for sample in decoded] == CAPTIONS


def test_a_moved_export_still_opens(clips: list[ExportClip], tmp_path: Path) -> None:
    """Where names are relative; musubi's are absolute, and its README says so."""
    from motive.clips.formats import read_dataset

    for format in ("videofolder", "diffsynth", "diffusion-pipe", "data-juicer", "webdataset"):
        write_dataset(format, clips, tmp_path / "out")
        shutil.move(tmp_path / "out", tmp_path / "moved")
        dataset = read_dataset(tmp_path / "moved", extract_to=tmp_path / "extracted")
        assert [record.caption for record in dataset.records] == CAPTIONS
        shutil.rmtree(tmp_path / "moved")
