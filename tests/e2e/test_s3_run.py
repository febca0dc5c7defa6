"""A whole run on an S3-compatible server: killed and run again, by two at once, and what is refused."""

import json
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from commands import KILLED, Outcome, Started, Terminal
from run_files import Finished, failures, selection
from test_killed import assert_like_undisturbed

from s3_server import S3Server

BUCKET = "runs"


@dataclass(frozen=True)
class Remote:
    """Runs commands from an empty folder, with what they need to find the server.

    words: of `motive curate`, but for --out.
    """

    motive: Terminal
    server: S3Server
    words: tuple[str, ...]
    folder: Path
    environment: dict[str, str]

    def start(self, *words: object, **changes: str) -> Started:
        environment = {**self.environment, **changes}
        return self.motive.start(*words, environment=environment, folder=self.folder)

    def __call__(self, *words: object, **changes: str) -> Outcome:
        return self.start(*words, **changes).outcome()

    def kill_once_there(self, started: Started, prefix: str) -> None:
        """SIGKILL as soon as the server has an object with this beginning."""
        end = time.monotonic() + 240
        while not self.server.objects(BUCKET, prefix):
            assert time.monotonic() < end, f"{prefix} did not come"
            if not started.process.is_alive():
                started.outcome().succeeded()
            time.sleep(0.02)
        started.process.kill()
        assert started.outcome().code == KILLED


@pytest.fixture(scope="module")
def remote(
    motive: Terminal,
    s3: S3Server,
    finished: Finished,
    tmp_path_factory: pytest.TempPathFactory,
) -> Remote:
    s3.client().create_bucket(Bucket=BUCKET)
    folder, cache = tmp_path_factory.mktemp("empty"), tmp_path_factory.mktemp("cache")
    environment = {**s3.environment, "XDG_CACHE_HOME": str(cache)}
    return Remote(motive, s3, finished.words, folder, environment)


@pytest.fixture(scope="module")
def address(remote: Remote) -> str:
    """A run that was killed twice and then went through."""
    where = f"s3://{BUCKET}/killed/run"
    words = (*remote.words, "--out", where)
    remote.kill_once_there(remote.start(*words), "killed/run/tables/motion.lance/_versions/")
    remote.kill_once_there(remote.start(*words), "killed/run/tables/features-512.lance/_versions/")
    remote(*words).succeeded()
    return where


def test_a_run_killed_twice_ends_like_an_undisturbed_one_on_a_disk(
    remote: Remote, address: str, finished: Finished, tmp_path: Path
) -> None:
    remote.server.download(BUCKET, "killed/run", tmp_path / "run")
    assert_like_undisturbed(tmp_path / "run", finished.path)
    assert list(remote.folder.iterdir()) == []
    assert list(Path(remote.environment["XDG_CACHE_HOME"]).iterdir()) == []


def test_two_processes_on_one_run_end_like_one(
    remote: Remote, finished: Finished, tmp_path: Path
) -> None:
    words = (*remote.words, "--out", f"s3://{BUCKET}/two")
    both = [remote.start(*words), remote.start(*words)]
    for started in both:
        started.outcome().succeeded()
    remote.server.download(BUCKET, "two", tmp_path / "run")
    assert_like_undisturbed(tmp_path / "run", finished.path)


def test_the_commands_of_a_run_take_an_address(
    remote: Remote, address: str, finished: Finished, tmp_path: Path
) -> None:
    there = json.loads(remote("info", address, "--json").succeeded().out)
    here = json.loads(remote("info", finished.path, "--json").succeeded().out)
    assert there["run"] == address
    told = ("clips", "clips_ranked", "queries", "selected", "objective_id", "failures")
    assert {name: there[name] for name in told} == {name: here[name] for name in told}
    remote("export", address, "--format", "videofolder", "--out", tmp_path / "there").succeeded()
    exported = sorted(path.name for path in (tmp_path / "there").rglob("*.mp4"))
    assert len(exported) == there["selected"] > 0
    for stage in ("gradients", "score", "report"):
        remote(stage, address, "--quiet").succeeded()
    remote("subset", address, "selection", "--out", tmp_path / "subset.csv").succeeded()
    again = "selection.fraction=1.0"
    remote("run", f"{address}/run.yaml", again, "--quiet").succeeded()
    remote.server.download(BUCKET, "killed/run", tmp_path / "run")
    assert {row["selected"] for row in selection(tmp_path / "run")} == {"true"}
    assert failures(tmp_path / "run") == failures(finished.path)
    scores = (tmp_path / "run" / "scores.parquet").read_bytes()
    assert scores == (finished.path / "scores.parquet").read_bytes()
    assert list(remote.folder.iterdir()) == []


def test_a_lost_object_is_found_and_made_again(
    remote: Remote, finished: Finished, tmp_path: Path
) -> None:
    where, tables = f"s3://{BUCKET}/lost", "lost/tables"
    words = (*remote.words, "--out", where)
    remote(*words).succeeded()
    said = remote("check", where).succeeded().out
    assert "the run is sound" in said
    assert "on an object store" in said
    lost = next(iter(remote.server.objects(BUCKET, f"{tables}/motion.lance/data/")))
    remote.server.client().delete_object(Bucket=BUCKET, Key=lost)
    found = remote("check", where, "--json")
    assert found.code == 1
    assert [f["where"] for f in json.loads(found.out)["findings"] if f["level"] == "damage"] == [
        "motion.lance"
    ]
    remote("check", where, "--mend")
    remote(*words).succeeded()
    remote("check", where).succeeded()
    remote.server.download(BUCKET, "lost", tmp_path / "run")
    assert (tmp_path / "run/scores.parquet").read_bytes() == (
        finished.path / "scores.parquet"
    ).read_bytes()


@pytest.mark.parametrize(
    "words",
    [
        ("explore", "ADDRESS", "--no-browser"),
        ("explain", "ADDRESS", "--clip", "a", "--query", "b"),
        ("finetune", "ADDRESS", "--subset", "all", "--model", "tiny-wan", "--out", "tuned"),
    ],
)
def test_what_works_on_a_disk_alone_says_so(remote: Remote, words: tuple[str, ...]) -> None:
    address = f"s3://{BUCKET}/killed/run"
    outcome = remote(*(address if word == "ADDRESS" else word for word in words))
    assert outcome.complaint == (
        f"{address} lies on an object store, and this works on a disk alone: copy the run to a folder "
        f"and name that one, as with aws s3 sync {address} run"
    )
    assert list(remote.folder.iterdir()) == []


def test_other_settings_are_refused(remote: Remote, address: str) -> None:
    complaint = remote(*remote.words, "--out", address, "--seed", 1).complaint
    assert "was made with other settings" in complaint
    assert "seed is 0 there and 1 now" in complaint


def test_what_is_wrong_with_the_store_is_one_sentence(remote: Remote) -> None:
    words = (*remote.words, "--out")
    assert "there is no bucket none" in remote(*words, "s3://none-such/run").complaint
    assert "names a whole bucket" in remote(*words, f"s3://{BUCKET}").complaint
    said = remote(*words, f"s3://{BUCKET}/x", AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="")
    assert "no credentials were found" in said.complaint
    assert "holds no run" in remote("info", f"s3://{BUCKET}/nothing").complaint
    client = remote.server.client()
    client.create_bucket(Bucket="closed")
    rule = {"Effect": "Deny", "Principal": "*", "Resource": "arn:aws:s3:::closed/*"}
    policy = {"Version": "2012-10-17", "Statement": [{**rule, "Action": "s3:PutObject"}]}
    client.put_bucket_policy(Bucket="closed", Policy=json.dumps(policy))
    assert "cannot be written: the store refuses" in remote(*words, "s3://closed/run").complaint
    assert remote.server.objects("closed") == {}
