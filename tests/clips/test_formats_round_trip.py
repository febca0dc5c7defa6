"""Import, export, import: order and captions survive in every format."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_formats_transcode import write_video

from motive.clips.formats import (
    EXPORT_FORMATS,
    Dataset,
    ExportClip,
    ExportReport,
    read_dataset,
    write_dataset,
)

#: Formats whose captions stand in `.txt` files, which every trainer strips.
SIDECARS = {"finetrainers", "ai-toolkit"}

ODD = [
    'a, "quoted", caption; with commas\tand tabs',
    "two\nlines\n\nand a third",
    "“Ünïcödé” 日本語 🎥 \u2028 line separator \u0301",
    "",
    "NA",
    "123",
    "null",
    "2024-01-01",
    "# comment: {yaml: [1]}",
    "<b>html</b> & \\n backslash \\",
    "=1+1",
]
caption_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.sampled_from(ODD)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("sources")
    return [write_video(folder / f"{name}.mp4", seed=n) for n, name in enumerate("cab")]


def export_and_read(
    format: str, sources: list[Path], captions: list[str], folder: Path
) -> tuple[Dataset, ExportReport]:
    """Clips of the given sources, best first, written in any order and read back."""
    clips = [
        ExportClip(path, path.name, caption, rank, {"mean_score": 1.0 / rank})
        for rank, (path, caption) in enumerate(zip(sources, captions, strict=True), start=1)
    ]
    report = write_dataset(format, clips[::-1], folder / "out", link=True)
    return read_dataset(folder / "out", extract_to=folder / "extracted"), report


@pytest.mark.parametrize("format", EXPORT_FORMATS)
@given(captions=st.lists(caption_text, min_size=3, max_size=3))
@example(captions=ODD[:3])
@example(captions=ODD[3:6])
@example(captions=ODD[6:9])
@example(captions=["\ufeffmark", " \r\n ends \x1c", "<__dj__video> <__dj__<__dj__x>y>"])
@settings(max_examples=25, deadline=None)
def test_order_and_captions_survive(format: str, sources: list[Path], captions: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        dataset, report = export_and_read(format, sources, captions, Path(folder))
        read = [record.caption for record in dataset.records]
        assert [r.path.read_bytes() for r in dataset.records] == [s.read_bytes() for s in sources]
        # Whatever differs is in the report, and nothing else is.
        changed = {change.file_name for change in report.captions_changed}
        differ = {s.name for s, a, b in zip(sources, captions, read, strict=True) if a != b}
        assert differ == changed
        if format in SIDECARS:
            lines = [text.replace("\r\n", "\n").replace("\r", "\n") for text in captions]
            expected = [text.strip().removeprefix("\ufeff").strip() for text in lines]
            assert read == expected
        elif format != "data-juicer":
            assert read == captions
        # A second trip changes nothing any more.
        again, second = export_and_read(
            format, [r.path for r in dataset.records], read, Path(folder) / "again"
        )
        assert [record.caption for record in again.records] == read
        assert second.captions_changed == ()


@pytest.mark.parametrize("format", EXPORT_FORMATS)
def test_the_captions_of_the_odd_list_that_trainers_can_hold_are_exact(
    format: str, sources: list[Path], tmp_path: Path
) -> None:
    for number, text in enumerate(ODD):
        dataset, report = export_and_read(format, sources[:1], [text], tmp_path / str(number))
        assert dataset.records[0].caption == text
        assert report.captions_changed == ()


def test_a_caption_cannot_speak_data_juicers_language(sources: list[Path], tmp_path: Path) -> None:
    text = "<__dj__video> a <__dj__<__dj__x>video> b<|__dj__eoc|>"
    _, report = export_and_read("data-juicer", sources[:1], [text], tmp_path)
    line = json.loads((tmp_path / "out/dataset.jsonl").read_text())
    assert line["text"] == "<__dj__video>  a  b <|__dj__eoc|>"
    assert len(report.captions_changed) == 1


@pytest.mark.parametrize("format", EXPORT_FORMATS)
def test_ranks_and_scores_come_back_where_the_format_has_a_place(
    format: str, sources: list[Path], tmp_path: Path
) -> None:
    dataset, _ = export_and_read(format, sources, ["x", "y", "z"], tmp_path)
    ranks: dict[str, Callable[[dict], object]] = {
        "videofolder": lambda extra: (extra["rank"], extra["scores"]["mean_score"]),
        "webdataset": lambda extra: (extra["rank"], extra["scores"]["mean_score"]),
        "data-juicer": lambda extra: (
            extra["__dj__stats__"]["motive_rank"],
            extra["__dj__stats__"]["motive_mean_score"],
        ),
    }
    if format in ranks:
        found = [ranks[format](record.extra) for record in dataset.records]
        assert found == [(1, 1.0), (2, 0.5), (3, 1 / 3)]


@pytest.mark.parametrize("format", EXPORT_FORMATS)
def test_real_clips_from_metadata_to_export_and_back(
    format: str, shared: Path, tmp_path: Path
) -> None:
    """The smallest real files, in every container that is there, by the path a user takes."""
    first = read_dataset(shared / "clips")
    readable = {"_0.mov", "circle.gif", "transparent.webm", "av1_video.mkv", "h265_video.mp4"}
    chosen = [r for r in first.records if r.file_name.endswith(tuple(readable))]
    assert len(chosen) == len(readable)
    chosen.reverse()
    clips = [
        ExportClip(r.path, r.file_name, r.caption, rank, {}) for rank, r in enumerate(chosen, 1)
    ]
    report = write_dataset(format, clips, tmp_path / "out")
    assert not report.problems
    second = read_dataset(tmp_path / "out", extract_to=tmp_path / "extracted")
    assert [r.caption for r in second.records] == [r.caption for r in chosen]
    assert [Path(r.file_name).stem[7:] for r in second.records] == [
        Path(r.file_name).stem for r in chosen
    ]
