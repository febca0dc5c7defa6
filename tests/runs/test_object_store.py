"""What a run keeps, on an object store: addresses, whole objects, tables, two writers, and errors."""

import json
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from motive.errors import UserError
from motive.influence.score_file import ScoreFile, write_score_file
from motive.influence.stored import stored_features
from motive.record import with_absolute_paths
from motive.runs.config import make_config
from motive.runs.provenance import StageLog, write_atomically
from motive.runs.remote import RemotePath, cache_folder, on_disk, run_path, whole_file
from motive.runs.tables import Row, Table
from s3_server import S3Server

SCHEMA = pa.schema([("feature", pa.list_(pa.float32(), 4))])
_numbers = count()


@pytest.fixture
def bucket(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A new bucket, and the environment in which it is found."""
    import s3fs

    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    name = f"bucket-{next(_numbers)}"
    s3.client().create_bucket(Bucket=name)
    yield name
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def folder(bucket: str) -> RemotePath:
    found = run_path(f"s3://{bucket}/runs/mine")
    assert isinstance(found, RemotePath)
    return found


def deny(s3: S3Server, bucket: str, *actions: str) -> None:
    """Nobody may do this with the bucket's objects."""
    rule = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": list(actions),
        "Resource": f"arn:aws:s3:::{bucket}/*",
    }
    policy = {"Version": "2012-10-17", "Statement": [rule]}
    s3.client().put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))


def row(key: str, made_by: str = "me") -> Row:
    return {"key": key, "made_by": made_by, "feature": np.full(4, len(key), np.float32)}


def given_up(place: RemotePath) -> bool:
    """Begin a file and stop in the middle; whether it is there."""
    with suppress(KeyError), whole_file(place) as part:
        part.write_bytes(b"half")
        raise KeyError
    return place.is_file()


# Addresses.


def test_an_address_is_a_place_of_its_own_and_a_folder_stays_a_path() -> None:
    place = run_path("s3://bucket/runs/mine/")
    assert isinstance(place, RemotePath)
    assert str(place) == "s3://bucket/runs/mine"
    assert str(place / "tables" / "a.lance") == "s3://bucket/runs/mine/tables/a.lance"
    assert (place.name, str(place.parent)) == ("mine", "s3://bucket/runs")
    assert place == run_path("s3://bucket/runs/mine") != run_path("s3://bucket/runs/other")
    assert run_path("runs/mine") == Path("runs/mine")
    assert run_path(Path("runs/mine")) == Path("runs/mine")
    assert run_path(place) is place


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("s3://bucket", "whole bucket"),
        ("s3://", "whole bucket"),
        ("ftp://host/run", "no place for a run"),
        ("memory://run/a", "no place for a run"),
        (Path("s3://bucket/run"), "give it as a string"),
    ],
)
def test_what_is_no_place_for_a_run_is_refused(where: str | Path, said: str) -> None:
    with pytest.raises(UserError, match=said):
        run_path(where)


def test_a_store_whose_package_is_missing_is_refused_with_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("motive.runs.remote.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'motive-attribution\[s3\]'"):
        run_path("s3://bucket/run")
    with pytest.raises(UserError, match="pip install 'gcsfs'"):
        run_path("gs://bucket/run")


def test_what_needs_a_disk_refuses_an_address() -> None:
    with pytest.raises(UserError, match=r"s3://bucket/run lies on an object store.*aws s3 sync"):
        on_disk(run_path("s3://bucket/run"))
    assert on_disk(Path("run")) == Path("run")


@pytest.mark.parametrize("name", ["clips", "queries", "media_root"])
def test_clips_on_an_object_store_are_refused(name: str) -> None:
    config = make_config({"clips": "a", "queries": "b", "model": "m", name: "s3://bucket/clips"})
    with pytest.raises(UserError, match=f"{name} cannot be read from s3://bucket/clips"):
        with_absolute_paths(config)


def test_unpacked_clips_lie_in_the_run_or_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder(Path("run"), "media") == Path("run/media")
    mine = cache_folder(run_path("s3://bucket/runs/../../mine"), "media")
    assert mine.resolve().is_relative_to(tmp_path)
    assert mine != cache_folder(run_path("s3://other/runs/../../mine"), "media")


# Objects.


def test_objects_are_written_and_read(folder: RemotePath) -> None:
    file = folder / "a.csv"
    assert not file.is_file()
    assert not folder.exists()
    write_atomically(file, "ä\r\nb\n")
    assert file.is_file()
    assert folder.exists()
    assert not folder.is_file()
    assert file.read_bytes() == "ä\r\nb\n".encode()
    assert file.read_text() == "ä\nb\n"
    with file.open(newline="") as opened:
        assert opened.read() == "ä\r\nb\n"
    write_atomically(file, b"new")
    assert file.read_bytes() == b"new"
    (folder / "below" / "b").write_bytes(b"")
    assert folder.children() == [folder / "a.csv", folder / "below"]
    assert (folder / "none").children() == []


def test_nothing_is_remembered_that_another_machine_may_change(
    s3: S3Server, bucket: str, folder: RemotePath
) -> None:
    file = folder / "stages.json"
    assert not file.is_file()
    s3.client().put_object(Bucket=bucket, Key="runs/mine/stages.json", Body=b"1")
    assert file.is_file()
    assert file.read_bytes() == b"1"
    s3.client().delete_object(Bucket=bucket, Key="runs/mine/stages.json")
    assert not file.is_file()


def test_of_several_who_create_an_object_one_succeeds(folder: RemotePath) -> None:
    file, together = folder / "mine", threading.Barrier(8)

    def create(i: int) -> bool:
        together.wait()
        return file.create(str(i).encode())

    with ThreadPoolExecutor(8) as pool:
        created = list(pool.map(create, range(8)))
    assert created.count(True) == 1
    assert file.read_bytes() == str(created.index(True)).encode()


def test_a_large_file_is_there_whole_or_not_at_all(
    s3: S3Server, bucket: str, folder: RemotePath
) -> None:
    content = os.urandom(1 << 20) * 9  # more than one part of an upload
    with whole_file(folder / "big") as part:
        part.write_bytes(content)
        here = part
    assert (folder / "big").read_bytes() == content
    assert not here.exists()
    assert not given_up(folder / "none")
    assert s3.objects(bucket) == {"runs/mine/big": len(content)}


def test_the_stage_log_adds_up(folder: RemotePath) -> None:
    for _ in range(2):
        with StageLog(folder / "stages.json").measure("track") as measured:
            measured.done = 3
    entry = StageLog(folder / "stages.json").read()["track"]
    assert entry["done"] == 3
    assert entry["seconds"] >= 0


def test_scores_come_back_in_parts(folder: RemotePath, tmp_path: Path) -> None:
    scores_qn = np.random.default_rng(0).standard_normal((3, 500)).astype(np.float32)
    clips = [f"clip{i:03}" for i in range(500)]
    for place in (folder, tmp_path):
        write_score_file(place / "scores.parquet", iter(scores_qn), ["a", "b", "c"], clips, "{}")
    there = (folder / "scores.parquet").read_bytes()
    assert there == (tmp_path / "scores.parquet").read_bytes()
    found = ScoreFile(folder / "scores.parquet")
    assert (found.query_ids, found.clip_ids) == (["a", "b", "c"], clips)
    assert np.array_equal(np.stack(list(found.rows())), scores_qn)


def test_second_moments_are_kept_and_the_first_ones_count(folder: RemotePath) -> None:
    import torch

    from motive.gradients.moments_file import MomentsFile

    file = MomentsFile(folder, "objective")
    assert file.digest() is None
    kept = file.save({"w": torch.arange(6.0)}, {})
    assert file.save({"w": torch.zeros(6)}, {}) == kept == file.digest()
    assert torch.equal(file.load(kept)["w"], torch.arange(6.0))


# Tables.


def test_a_table_is_written_and_read(folder: RemotePath) -> None:
    table = Table(folder / "tables" / "a.lance", SCHEMA)
    assert not table.exists()
    assert table.keys("me") == set()
    table.append([row("b"), row("aa")])
    table.append([row("c"), row("c", "you")])
    assert table.exists()
    assert table.keys("me") == {"b", "aa", "c"}
    assert table.lookup(["aa"], "me")["aa"]["feature"].tolist() == [2, 2, 2, 2]
    keys, features = zip(*stored_features(table, "me", 4), strict=True)
    assert {k for part in keys for k in part.to_pylist()} == {"b", "aa", "c"}
    assert sum(map(len, features)) == 3
    table.drop(["b"])
    assert Table(folder / "tables" / "a.lance", SCHEMA).keys("me") == {"aa", "c"}
    table.replace([row("d")])
    assert [r["key"] for r in table.rows()] == ["d"]


def test_of_racing_appends_none_is_lost_and_no_key_is_there_twice(folder: RemotePath) -> None:
    path, writers, each = folder / "tables" / "a.lance", 4, 4
    together = threading.Barrier(writers)

    def write(i: int) -> None:
        mine = Table(path, SCHEMA)
        together.wait()
        for j in range(each):
            # One row of its own, and one that all of them write at the same time.
            mine.append([row(f"{i}-{j}"), row(f"all-{j}")])

    with ThreadPoolExecutor(writers) as pool:
        list(pool.map(write, range(writers)))
    keys = [r["key"] for r in Table(path, SCHEMA).rows("me")]
    wanted = [f"{i}-{j}" for i in range(writers) for j in range(each)]
    wanted += [f"all-{j}" for j in range(each)]
    assert sorted(keys) == sorted(wanted)


@pytest.mark.parametrize("there", [False, True])
def test_racing_replacements_leave_one_of_them_whole(folder: RemotePath, there: bool) -> None:
    path, writers = folder / "tables" / "a.lance", 4
    together = threading.Barrier(writers)
    if there:
        Table(path, SCHEMA).replace([row("before")])

    def write(i: int) -> None:
        mine = Table(path, SCHEMA)
        together.wait()
        for j in range(4):
            mine.replace([row(f"{i}-{j}-{k}") for k in range(3)])
            mine.drop([f"{i}-{j}-0"])

    with ThreadPoolExecutor(writers) as pool:
        list(pool.map(write, range(writers)))
    keys = [r["key"] for r in Table(path, SCHEMA).rows("me")]
    (left,) = {key.rpartition("-")[0] for key in keys}
    assert left.endswith("-3")
    assert sorted(keys) == [f"{left}-1", f"{left}-2"]


def test_http_is_allowed_only_where_the_endpoint_is_http(
    folder: RemotePath, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs

    address = s3.environment["AWS_ENDPOINT_URL"]
    assert folder.lance_options() == {
        "aws_region": "us-east-1",
        "aws_endpoint": address,
        "allow_http": "true",
    }
    # The endpoint of this service alone goes first, as botocore has it, for the tables too.
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "https://127.0.0.1:1")
    s3fs.S3FileSystem.clear_instance_cache()
    assert folder.lance_options() == {
        "aws_region": "us-east-1",
        "aws_endpoint": "https://127.0.0.1:1",
    }
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    s3fs.S3FileSystem.clear_instance_cache()
    assert folder.lance_options() == {}


# Errors: one sentence, and never "not there".


def test_a_missing_bucket_is_named(bucket: str) -> None:
    place = RemotePath("s3://no-such-bucket/run/run.yaml")
    for ask in (place.is_file, place.exists, place.read_bytes, lambda: place.write_bytes(b"")):
        with pytest.raises(UserError, match="there is no bucket no-such-bucket"):
            ask()


def test_an_object_that_is_not_there_cannot_be_read(folder: RemotePath) -> None:
    with pytest.raises(UserError, match=r"s3://.*/runs/mine/a cannot be read: it is not there"):
        (folder / "a").read_text()


def test_missing_rights_are_told_from_a_missing_object(
    s3: S3Server, bucket: str, folder: RemotePath
) -> None:
    file = folder / "run.yaml"
    file.write_bytes(b"1")
    deny(s3, bucket, "s3:PutObject")
    with pytest.raises(UserError, match="cannot be written: the store refuses"):
        file.write_bytes(b"2")
    assert file.read_bytes() == b"1"
    table = Table(folder / "tables" / "a.lance", SCHEMA)
    with pytest.raises(UserError, match=r"a\.lance cannot be written"):
        table.append([row("a")])
    deny(s3, bucket, "s3:PutObject", "s3:GetObject", "s3:HeadObject")
    for ask in (file.is_file, file.read_bytes):
        with pytest.raises(UserError, match="cannot be read: the store refuses"):
            ask()


def test_missing_credentials_are_told_from_a_missing_object(
    folder: RemotePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs

    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(UserError, match="no credentials were found"):
        (folder / "run.yaml").is_file()


def test_a_server_that_is_away_is_told_from_a_missing_object(
    folder: RemotePath, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    with pytest.raises(UserError, match="the store does not answer"):
        (folder / "run.yaml").is_file()
