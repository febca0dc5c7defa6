"""A run from end to end through the Python API."""

import csv
import hashlib
from pathlib import Path

import numpy as np
import pytest

import motive
from motive import Run
from motive.errors import ClipError
from motive.motion.track import TrackStage
from motive.runs.tables import Row


def test_curate_accounts_for_every_file(small_wan: Path, zoo: Path, tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", clips=str(zoo), queries=str(zoo), model=str(small_wan))
    run.curate()
    ranked = [row["file_name"] for row in run.selection()]
    failed = [name for name, _, _ in run.failures()]
    names = [row["file_name"] for row in csv.DictReader((zoo / "metadata.csv").open())]
    assert sorted(ranked) == sorted(names)
    assert set(failed) <= set(names)
    assert (run.path / "report.html").stat().st_size > 10_000


def test_what_failed_is_tried_again_only_when_asked(
    small_wan: Path, zoo: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "clips"
    broken.mkdir()
    for name in ("000000.mp4", "000001.mp4"):
        (broken / name).write_bytes((zoo / "clips" / name).read_bytes())
    run = Run.create(tmp_path / "run", clips=str(broken), queries=str(zoo), model=str(small_wan))
    run.ingest()
    clip_id = run.members[0].clip_id
    stage = run.plan.track_stage
    failure = {"key": clip_id, "made_by": stage.fingerprint(), "stage": "track", "reason": "no"}
    run.store.failures.append([failure])
    run.track()
    assert clip_id not in run.motion()
    run.forget_failures()
    run.track()
    assert clip_id in run.motion()


def test_the_stamp_is_of_everything_joined_by_line_feeds(two_clips: Run) -> None:
    run = two_clips
    stage = run.plan.track_stage
    failure = {
        "key": run.members[0].clip_id,
        "made_by": stage.fingerprint(),
        "stage": "track",
        "reason": "é",
    }
    run.store.failures.append([failure])
    parts = [run.objective.id, run.config.selection.model_dump_json()]
    parts += map(repr, [*run.members, *run.failures()])
    assert len(parts) == 6
    digest = hashlib.blake2b("\n".join(parts).encode(), digest_size=10)
    assert run.stamp() == digest.hexdigest()


def test_what_failed_and_is_done_counts_as_done_where_nothing_is_left_to_do(two_clips: Run) -> None:
    run = two_clips
    stage = run.plan.ingest_stage
    twice, lost = (m.file for m in run.members[:2])
    for key in (twice, "gone"):
        row = {"key": key, "made_by": stage.fingerprint(), "stage": "ingest", "reason": "no"}
        run.store.failures.append([row])
    run.ingest()
    assert run.store.failed(stage).keys() == {"gone"}
    entry = run.store.log.read()["ingest"]
    assert (entry["done"], entry["failed"]) == (3, 1)
    assert lost in run.store.done(stage)


@pytest.fixture
def two_clips(small_wan: Path, zoo: Path, tmp_path: Path) -> Run:
    """A run of two clips and one query, ingested."""
    for folder, names in (("clips", ("000000", "000001")), ("queries", ("000002",))):
        (tmp_path / folder).mkdir()
        for name in names:
            content = (zoo / "clips" / f"{name}.mp4").read_bytes()
            (tmp_path / folder / f"{name}.mp4").write_bytes(content)
            (tmp_path / folder / f"{name}.txt").write_text(f"caption of {name}")
    run = Run.create(
        tmp_path / "run",
        clips=str(tmp_path / "clips"),
        queries=str(tmp_path / "queries"),
        model=str(small_wan),
    )
    run.ingest()
    return run


def test_a_clip_that_cannot_be_tracked_is_not_encoded(
    two_clips: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, (lost, *others) = two_clips, two_clips.members
    process = TrackStage.process

    def losing(self: TrackStage, row: Row) -> Row:
        if row["key"] == lost.clip_id:
            raise ClipError("nothing to follow")
        return process(self, row)

    monkeypatch.setattr(TrackStage, "process", losing)
    run.curate()
    plan, store = run.plan, run.store
    assert store.done(plan.encode_stage) == {m.clip_id for m in others}
    assert store.done(plan.text_stage) == {m.caption_id for m in others}
    assert run.failures() == [(lost.file_name, "track", "nothing to follow")]
    assert [row["file_name"] for row in run.selection()] == ["000001.mp4"]
    # Tried again and followed, it is encoded as any other.
    monkeypatch.undo()
    run.forget_failures()
    run.curate()
    assert run.failures() == []
    assert len(run.selection()) == 2
    assert lost.clip_id in store.done(plan.encode_stage)


def test_a_file_put_back_is_tried_again_even_if_a_kill_came_between(
    two_clips: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, member = two_clips, two_clips.members[0]
    file = Path(member.path)
    content = file.read_bytes()
    file.write_bytes(b"something else")
    run.track()
    assert run.store.failed(run.plan.track_stage).keys() == {member.clip_id}
    file.write_bytes(content)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    # The file's row is committed, and then the process is no more.
    with monkeypatch.context() as patch:
        patch.setattr("motive.runs.settling.settle", killed)
        with pytest.raises(KeyboardInterrupt):
            run.ingest()
    again = Run.open(run.path)
    assert again.store.failed(again.plan.track_stage).keys() == {member.clip_id}
    again.ingest()
    assert again.store.failed(again.plan.track_stage) == {}
    again.track()
    assert member.clip_id in again.motion()


def test_a_run_keeps_the_precision_that_auto_was(two_clips: Run) -> None:
    """On another machine `auto` may mean another dtype: the features would be of another objective."""
    record = two_clips.path / "run.yaml"
    text = record.read_text()
    assert text.count("dtype: float32") == 2
    record.write_text(text.replace("dtype: float32", "dtype: bfloat16"))
    run = Run.open(two_clips.path)
    assert run.objective.dtype == run.objective.text_dtype == "bfloat16"
    assert str(run.plan.backbone.dtype) == str(run.plan.backbone.text_dtype()) == "torch.bfloat16"
    assert two_clips.objective.dtype == "float32"


def test_the_package_says_that_it_is_typed() -> None:
    assert (Path(motive.__file__).parent / "py.typed").is_file()


def test_few_features_and_many_are_read_alike(
    two_clips: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_clips.curate(report=False)
    by_name = two_clips.features("clip")
    assert len(by_name.members) == 2
    monkeypatch.setattr("motive.found._LOOKED_UP", 1)
    whole = two_clips.features("clip")
    assert [m.clip_id for m in whole.members] == [m.clip_id for m in by_name.members]
    for name in ("features_nd", "norms", "static"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(by_name, name))
