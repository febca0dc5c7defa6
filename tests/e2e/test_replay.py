"""`motive run RUN/run.yaml` replays a run: the same configuration gives the same bits."""

from pathlib import Path
from typing import Any

import yaml
from commands import Terminal
from run_files import Finished, done, scores, selection, snapshot, versions


def test_a_replay_elsewhere_gives_the_same_bits(
    motive: Terminal, finished: Finished, tmp_path: Path
) -> None:
    run = tmp_path / "new"
    motive("run", finished.path / "run.yaml", "--out", run, "--quiet").succeeded()
    for name in ("scores.parquet", "selection.csv", "failures.csv"):
        assert (run / name).read_bytes() == (finished.path / name).read_bytes(), name
    assert config(run) == config(finished.path)
    assert done(run)["gradients"] == done(finished.path)["gradients"]


def test_a_replay_in_place_computes_nothing(motive: Terminal, copied: Path) -> None:
    files, before = snapshot(copied), (done(copied), versions(copied))
    motive("run", copied / "run.yaml", "--quiet").succeeded()
    assert (done(copied), versions(copied)) == before
    after = snapshot(copied)
    assert files is not None
    assert after is not None
    assert {n for n in files | after if files.get(n) != after.get(n)} <= {"stages.json", "run.yaml"}


def test_a_replay_with_an_override(motive: Terminal, finished: Finished, tmp_path: Path) -> None:
    run = tmp_path / "new"
    words = ("selection.fraction=0.2", "seed=5", "--out", run, "--quiet")
    motive("run", finished.path / "run.yaml", *words).succeeded()
    assert config(run) == {
        **config(finished.path),
        "seed": 5,
        "selection": {**config(finished.path)["selection"], "fraction": 0.2},
    }
    assert sum(row["selected"] == "true" for row in selection(run)) == round(0.2 * 14)
    assert scores(run) != scores(finished.path)


def test_a_configuration_written_by_hand(
    motive: Terminal, finished: Finished, small_wan: Path, zoo: Path, queries: Path, tmp_path: Path
) -> None:
    """Only what differs from the defaults, without the record's other sections."""
    file = tmp_path / "mine.yaml"
    mine = {"clips": zoo, "queries": queries, "media_root": zoo, "model": small_wan}
    text = {name: str(path) for name, path in mine.items()} | {"selection": {"fraction": 0.5}}
    file.write_text(yaml.safe_dump(text))
    motive("run", file, "--out", tmp_path / "run", "--quiet").succeeded()
    theirs = finished.path / "scores.parquet"
    assert (tmp_path / "run" / "scores.parquet").read_bytes() == theirs.read_bytes()


def test_a_moved_run_is_still_the_run(motive: Terminal, copied: Path, tmp_path: Path) -> None:
    moved = copied.rename(tmp_path / "moved")
    before = scores(moved)
    motive("score", moved).succeeded()
    assert scores(moved) == before


def config(run: Path) -> dict[str, Any]:
    """The settings in the run's record."""
    return dict(yaml.safe_load((run / "run.yaml").read_text())["config"])
