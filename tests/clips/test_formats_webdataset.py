"""Tar shards: grouping, extraction, and members that no honest shard has."""

import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from motive.clips.formats import ExportClip, read_dataset, webdataset, write_dataset
from motive.errors import UserError


def make_tar(path: Path, members: list[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def test_samples(tmp_path: Path) -> None:
    shard = make_tar(
        tmp_path / "000000.tar",
        [
            ("a.mp4", b"A"),
            ("a.txt", b" caption\r\n"),
            ("a.json", json.dumps({"caption": "not this one", "score": 2}).encode()),
            ("dir/b.json", json.dumps({"text": "from json", "fps": 8}).encode()),
            ("dir/b.MP4", b"B"),
            ("c.webm", b"C"),
            ("._c.webm", b"resource fork"),
            ("d.txt", b"no video"),
            ("e.mp4", b"E"),
            ("e.mask.mp4", b"second"),
            ("f.mp4", b"F"),
            ("f.txt", b"\xff"),
            ("README", b""),
        ],
    )
    dataset = read_dataset(shard, extract_to=tmp_path / "out")
    assert dataset.format == "webdataset"
    assert [(r.file_name, r.caption) for r in dataset.records] == [
        ("000000/a.mp4", " caption\r\n"),
        ("000000/dir/b.MP4", "from json"),
        ("000000/c.webm", ""),
        ("000000/e.mp4", ""),
    ]
    assert [r.path.read_bytes() for r in dataset.records] == [b"A", b"B", b"C", b"E"]
    assert dataset.records[0].path == tmp_path / "out/000000/a.mp4"
    assert dataset.records[0].extra == {"caption": "not this one", "score": 2}
    assert dataset.records[1].extra == {"fps": 8}
    assert {p.file_name: p.reason.split(":")[0] for p in dataset.problems} == {
        "000000.tar, d": "is a sample without a video",
        "000000/e.mask.mp4": "is a further video of the sample e",
        "000000/f.mp4": "has text in its shard that cannot be read",
    }


def test_a_folder_of_shards_and_loose_videos(tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "more").mkdir(parents=True)
    for name in ("1.tar", "0.tar", "more/0.tar"):
        make_tar(data / name, [("x.mp4", name.encode())])
    (data / "loose.mp4").touch()
    dataset = read_dataset(data, extract_to=tmp_path / "out")
    names = [record.file_name for record in dataset.records]
    assert names == ["0/x.mp4", "1/x.mp4", "more/0/x.mp4", "loose.mp4"]
    assert [r.path.read_bytes() for r in dataset.records[:3]] == [b"0.tar", b"1.tar", b"more/0.tar"]


def test_a_member_is_extracted_once_and_again_when_the_tar_changes(tmp_path: Path) -> None:
    shard = make_tar(tmp_path / "0.tar", [("x.mp4", b"one")])
    os.utime(shard, (1_000_000, 1_000_000))
    path = read_dataset(shard, extract_to=tmp_path / "out").records[0].path
    inode = path.stat().st_ino
    read_dataset(shard, extract_to=tmp_path / "out")
    assert path.stat().st_ino == inode
    path.write_bytes(b"on")  # as if it had been cut short
    os.utime(path, (1_000_000, 1_000_000))
    assert read_dataset(shard, extract_to=tmp_path / "out").records[0].path.read_bytes() == b"one"
    make_tar(shard, [("x.mp4", b"two")])
    assert read_dataset(shard, extract_to=tmp_path / "out").records[0].path.read_bytes() == b"two"
    assert [p.name for p in (tmp_path / "out/0").iterdir()] == ["x.mp4"]


def test_a_tar_needs_a_place_to_extract_to(tmp_path: Path) -> None:
    shard = make_tar(tmp_path / "0.tar", [("x.mp4", b"one")])
    with pytest.raises(UserError, match="where to extract"):
        read_dataset(shard)


@pytest.mark.parametrize(
    "name", ["../x.mp4", "/x.mp4", "a/../../x.mp4", "..\\x.mp4", "C:\\x.mp4", "..", "\\x.mp4"]
)
def test_a_member_that_points_outside_refuses_the_shard(tmp_path: Path, name: str) -> None:
    shard = make_tar(tmp_path / "0.tar", [("a.mp4", b"A"), (name, b"x")])
    with pytest.raises(UserError, match="points outside"):
        read_dataset(shard, extract_to=tmp_path / "deep/out")
    assert not list(tmp_path.rglob("x.mp4"))


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
)
def test_links_and_devices_refuse_the_shard(tmp_path: Path, kind: bytes) -> None:
    shard = tmp_path / "0.tar"
    with tarfile.open(shard, "w") as tar:
        member = tarfile.TarInfo("a.mp4")
        member.type, member.linkname = kind, "/etc/passwd"
        tar.addfile(member)
    with pytest.raises(UserError, match="no regular file"):
        read_dataset(shard, extract_to=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_sparse_member_refuses_the_shard(tmp_path: Path) -> None:
    """A few bytes in the tar that would become a terabyte on the disk."""
    shard = tmp_path / "0.tar"
    with tarfile.open(shard, "w", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("a.mp4")
        member.size = 1
        member.pax_headers = {"GNU.sparse.map": "0,1", "GNU.sparse.size": "1000000"}
        tar.addfile(member, io.BytesIO(b"x"))
    with pytest.raises(UserError, match="no regular file"):
        read_dataset(shard, extract_to=tmp_path / "out")


def test_what_was_extracted_into_the_folder_is_no_part_of_it(tmp_path: Path) -> None:
    for name in ("0", "1"):
        make_tar(tmp_path / f"{name}.tar", [("x.mp4", name.encode())])
    for names in (["0/x.mp4", "1/x.mp4"], ["0/x.mp4", "1/x.mp4"]):
        dataset = read_dataset(tmp_path, extract_to=tmp_path / "out")
        assert [record.file_name for record in dataset.records] == names
    (tmp_path / "1.tar").unlink()
    dataset = read_dataset(tmp_path, extract_to=tmp_path / "out")
    assert [record.file_name for record in dataset.records] == ["0/x.mp4"]


def test_the_size_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = make_tar(tmp_path / "0.tar", [("a.txt", b"12345"), ("a.mp4", b"1234567")])
    monkeypatch.setattr(webdataset, "MAX_VIDEO_BYTES", 6)
    with pytest.raises(UserError, match="7 bytes"):
        read_dataset(shard, extract_to=tmp_path / "out")
    monkeypatch.setattr(webdataset, "MAX_VIDEO_BYTES", 7)
    monkeypatch.setattr(webdataset, "MAX_TEXT_BYTES", 4)
    with pytest.raises(UserError, match="5 bytes"):
        read_dataset(shard, extract_to=tmp_path / "out")


def test_a_tar_that_breaks_off_leaves_no_half_video(tmp_path: Path) -> None:
    shard = make_tar(tmp_path / "0.tar", [("a.mp4", bytes(5000))])
    shard.write_bytes(shard.read_bytes()[:3000])
    with pytest.raises(UserError, match="not a whole tar"):
        read_dataset(shard, extract_to=tmp_path / "out")
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


@pytest.mark.parametrize("data", [b"", b"no tar at all", b"\x1f\x8b compressed"])
def test_what_is_no_tar(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "0.tar").write_bytes(data)
    with pytest.raises(UserError, match="not a whole tar"):
        read_dataset(tmp_path, extract_to=tmp_path / "out")


def test_shards_are_split_and_do_not_depend_on_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webdataset, "SHARD_SAMPLES", 2)
    clips = []
    for rank in range(1, 6):
        path = tmp_path / f"{rank}.mp4"
        path.write_bytes(b"x" * rank)
        clips.append(ExportClip(path, path.name, f"caption {rank}", rank, {}))
    for out in ("one", "two"):
        report = write_dataset("webdataset", clips, tmp_path / out, link=True)
        assert any("copied" in note for note in report.notes)
    shards = sorted(path.name for path in (tmp_path / "one/shards").iterdir())
    assert shards == ["000000.tar", "000001.tar", "000002.tar"]
    for name in shards:
        one, two = (tmp_path / out / "shards" / name for out in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()
    dataset = read_dataset(tmp_path / "one", extract_to=tmp_path / "out")
    assert [record.caption for record in dataset.records] == [f"caption {n}" for n in range(1, 6)]
    assert "{000000..000002}.tar" in (tmp_path / "one/README.md").read_text()
