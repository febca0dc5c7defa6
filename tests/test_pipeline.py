"""A run from end to end through the Python API."""

import csv
from pathlib import Path

from motive import Run


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
