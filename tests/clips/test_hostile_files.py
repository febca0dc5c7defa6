"""Files and metadata that mean harm: nothing is waited for, followed, or read into memory without end."""

import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest

from motive.clips.decoding import decode_all, decode_clip
from motive.clips.formats import read_dataset, tables
from motive.clips.sampling import FrameSampler
from motive.errors import ClipError, UserError
from motive.rows import dataset_entries
from motive.runs.config import make_config
from motive.zoo.render import write_mp4

SAMPLER = FrameSampler(max_frames=9, height=32, width=32, length_step=4)


@pytest.fixture
def folder(zoo: Path, tmp_path: Path) -> Path:
    """A dataset of one good clip; beside it, a file that nobody may see."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data/a.mp4").write_bytes((zoo / "clips/000000.mp4").read_bytes())
    (tmp_path / "private.mp4").write_bytes((zoo / "clips/000001.mp4").read_bytes())
    return tmp_path / "data"


PLAYLISTS = {
    "concat": "ffconcat version 1.0\nfile a.mp4\n",
    "concat outside": "ffconcat version 1.0\nfile {outside}\n",
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\na.mp4\n#EXT-X-ENDLIST\n",
    "hls outside": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nfile://{outside}\n#EXT-X-ENDLIST\n",
    "hls network": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n",
}


@pytest.mark.parametrize("kind", PLAYLISTS)
def test_a_clip_names_no_other_file(folder: Path, kind: str) -> None:
    text = PLAYLISTS[kind].format(outside=folder.parent / "private.mp4")
    (folder / "list.mp4").write_text(text)
    with pytest.raises(ClipError, match=r"^not a readable media file"):
        decode_clip(folder / "list.mp4", SAMPLER)
    with pytest.raises(ClipError):
        decode_all(folder / "list.mp4")


def test_a_picture_of_four_billion_pixels_is_not_made(tmp_path: Path) -> None:
    head = b"GIF89a" + (65535).to_bytes(2, "little") * 2 + b"\x80\0\0" + b"\0\0\0\xff\xff\xff"
    image = b"," + bytes(4) + (65535).to_bytes(2, "little") * 2 + b"\0\x02\x02\x44\x01\0"
    (tmp_path / "a.gif").write_bytes(head + image * 3 + b";")
    with pytest.raises(ClipError, match=r"are too large|decoding fails after 0 frames"):
        decode_clip(tmp_path / "a.gif", SAMPLER)


def test_a_header_of_16384_pixels_is_refused(tmp_path: Path) -> None:
    write_mp4(tmp_path / "a.mp4", np.zeros((9, 32, 32, 3), np.uint8), 8)
    content = bytearray((tmp_path / "a.mp4").read_bytes())
    at = content.index(b"avc1", content.index(b"stsd")) + 28  # width and height of the sample entry
    assert content[at : at + 4] == b"\0\x20\0\x20"
    content[at : at + 4] = (16384).to_bytes(2, "big") * 2
    (tmp_path / "a.mp4").write_bytes(content)
    # What counts is the stream's own header, which says 32 × 32: no frame of the larger size is made.
    assert decode_clip(tmp_path / "a.mp4", SAMPLER).source_width == 32


def test_pipes_and_devices_are_no_clips(folder: Path) -> None:
    os.mkfifo(folder / "pipe.mp4")
    (folder / "zero.mp4").symlink_to("/dev/zero")
    (folder / "tty.mp4").symlink_to("/dev/tty")
    dataset = read_dataset(folder)
    assert [record.file_name for record in dataset.records] == ["a.mp4"]
    assert {problem.reason for problem in dataset.problems} == {"is not a regular file"}


@pytest.mark.parametrize(
    ("name", "refused"),
    [("x.jsonl", False), ("x.tar", True), ("metadata.csv", True), ("sub/metadata.jsonl", True)],
)
def test_a_pipe_for_metadata_is_not_waited_for(
    folder: Path, tmp_path: Path, name: str, refused: bool
) -> None:
    (folder / "sub").mkdir()
    os.mkfifo(folder / name)
    if refused:
        with pytest.raises(UserError, match="is no regular file"):
            read_dataset(folder, extract_to=tmp_path / "out")
    else:
        dataset = read_dataset(folder, extract_to=tmp_path / "out")
        assert [record.file_name for record in dataset.records] == ["a.mp4"]


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl", "metadata.json"])
def test_metadata_of_ten_gigabytes_is_not_read(folder: Path, name: str) -> None:
    with (folder / name).open("wb") as file:
        file.write(b'file_name,caption\n{"file_name": "a.mp4"}')
        file.truncate(10 * 2**30)  # a hole: it takes no room on the disk
    with pytest.raises(UserError, match="10,737,418,240 bytes"):
        read_dataset(folder)


def test_a_tar_header_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    for kind in (tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE):
        header = tarfile.TarInfo("long")
        header.type, header.size = kind, 4 * 2**30
        with (tmp_path / "a.tar").open("wb") as file:
            file.write(header.tobuf(tarfile.GNU_FORMAT))
            file.truncate(5 * 2**30)
        with pytest.raises(UserError, match="is not a whole tar file"):
            read_dataset(tmp_path / "a.tar", extract_to=tmp_path / "out")


@pytest.mark.parametrize("depth", [200, 900, 990, 100_000])
@pytest.mark.parametrize("column", ["caption", "other"])
def test_deep_json_is_a_sentence_or_a_problem(folder: Path, depth: int, column: str) -> None:
    deep = "[" * depth + "]" * depth
    (folder / "metadata.jsonl").write_text(f'{{"file_name": "a.mp4", "{column}": {deep}}}\n')
    config = make_config({"clips": str(folder), "queries": "q", "model": "m"})
    try:
        entries = dataset_entries(config, "clip", folder.parent / "media")
    except UserError:
        return
    assert [entry.file_name for entry in entries] == ["a.mp4"]


def test_zero_bytes_and_half_characters_are_kept_or_named(folder: Path) -> None:
    rows = [{"file_name": "a.mp4", "caption": "a\0b", "note": "\ud800"}]
    (folder / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    config = make_config({"clips": str(folder), "queries": "q", "model": "m"})
    (entry,) = dataset_entries(config, "clip", folder.parent / "media")
    assert entry.caption == "a\0b"
    assert json.loads(entry.extra) == {"note": "\ud800"}
    entry.extra.encode()
    (folder / "metadata.jsonl").write_text('{"file_name": "a\\u0000.mp4"}')
    with pytest.raises(UserError, match="points outside"):
        read_dataset(folder)


def test_a_parquet_file_of_too_much_text_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    monkeypatch.setattr(tables, "_PARQUET_BYTES", 2**20)  # the real limit takes seconds to reach
    table = pa.table({"file_name": ["a.mp4"] * 300, "caption": ["x" * 2**13] * 300})
    parquet.write_table(table, folder / "metadata.parquet", compression="zstd")
    assert (folder / "metadata.parquet").stat().st_size < 2**14  # of 2.4 MB
    with pytest.raises(UserError, match="its texts are too long"):
        read_dataset(folder)


def test_a_title_in_another_encoding_does_not_matter(tmp_path: Path) -> None:
    import av

    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        container.metadata["title"] = "Wuerfel XX"
        stream = container.add_stream("ffv1", rate=8)
        stream.width = stream.height = 32
        for grey in (0, 80, 160):
            picture = np.full((32, 32, 3), grey, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    content = (tmp_path / "a.mkv").read_bytes()
    assert content.count(b"Wuerfel XX") == 1
    (tmp_path / "a.mkv").write_bytes(content.replace(b"Wuerfel XX", b"W\xfcrfel  XX"))  # Latin-1
    with pytest.raises(UnicodeDecodeError), av.open(str(tmp_path / "a.mkv")) as container:
        container.metadata.get("title")
    sampler = FrameSampler(max_frames=3, height=32, width=32)
    assert len(decode_clip(tmp_path / "a.mkv", sampler).frames_fhw3) == 3
