"""`motive explain` on a run of rendered clips, by the command line and from Python."""

import json
import shutil
from pathlib import Path

import av
import numpy as np
import pytest

from motive import Run
from motive.cli import main
from motive.errors import UserError
from motive.explanation import explain
from motive.explanation.explanation import FOLDER
from motive.zoo.render import render_corpus


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, small_wan: Path) -> Run:
    """Four clips of which one stands still, two queries, and no projection at all."""
    folder = tmp_path_factory.mktemp("explained")
    render_corpus(
        folder / "clips", 4, seed=1, kinds=["bounce", "swing", "static", "explode"], lengths=(9,)
    )
    render_corpus(folder / "queries", 2, seed=2, kinds=["bounce", "swing"], lengths=(9,))
    made = Run.create(
        folder / "run",
        clips=str(folder / "clips" / "metadata.csv"),
        queries=str(folder / "queries" / "metadata.csv"),
        model=str(small_wan),
        gradients__projection="identity",
        motion__static_below=0.5,
        compute__threads=1,
    )
    made.curate(report=False)
    return made


def call(*words: str) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([str(w) for w in words])
    return int(stopped.value.code or 0)


def test_without_a_projection_the_heat_sums_to_the_score(run: Run) -> None:
    clips, queries = run.features("clip"), run.features("query")
    scores_qn = queries.influence_of(clips)
    for n in (0, 1, 3):
        found = explain(run, clips.members[n].clip_id, queries.members[1].clip_id)
        assert found.influence == pytest.approx(float(scores_qn[1, n]), abs=1e-4)
        assert found.heat_fhw.sum() == pytest.approx(found.influence, abs=1e-6)
        assert found.curve.sum() == pytest.approx(found.influence, abs=1e-6)
        assert found.curve.shape == (9,)
        assert found.frame_map == ((0, 1), (1, 5), (5, 9))


def test_it_is_kept_and_read_again(run: Run) -> None:
    first = explain(run, "clips/000000.mp4", "clips/000001.mp4")
    files = sorted((run.path / FOLDER).iterdir())
    before = [file.stat().st_mtime_ns for file in files]
    again = explain(Run.open(run.path), first.clip_id, first.query_id)
    assert [file.stat().st_mtime_ns for file in sorted((run.path / FOLDER).iterdir())] == before
    np.testing.assert_array_equal(again.heat_fhw, first.heat_fhw)
    assert again.best_interval == first.best_interval
    assert again.frame_map == first.frame_map


def test_the_command_prints_json_and_writes_the_video(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = tmp_path / "heat.mp4"
    names = ("--clip", "clips/000003.mp4", "--query", "clips/000000.mp4")
    assert call("explain", str(run.path), *names, "--video", str(video), "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert np.sum(told["heat_fhw"]) == pytest.approx(told["influence"], abs=1e-6)
    with av.open(str(video)) as container:
        frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    assert len(frames) == 9
    assert frames[0].shape == (256, 256, 3)
    first, after = told["best_interval"]
    orange = [frame[-2, :, 0].mean() - frame[-2, :, 2].mean() > 150 for frame in frames]
    assert orange == [first <= i < after for i in range(9)]


def test_the_command_tells_it_in_words(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    names = ("--clip", "clips/000001.mp4", "--query", "clips/000001.mp4")
    assert call("explain", str(run.path), *names) == 0
    told = capsys.readouterr().out
    found = explain(run, "clips/000001.mp4", "clips/000001.mp4")
    assert f"influence {found.influence:+.4f}" in told
    assert f"frames {found.best_interval[0]} to {found.best_interval[1] - 1} of 9" in told


def test_mistakes_are_one_sentence(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        call("explain", str(run.path), "--clip", "nowhere.mp4", "--query", "clips/000000.mp4") == 2
    )
    assert "has no clip 'nowhere.mp4'" in capsys.readouterr().err
    video = tmp_path / "nowhere" / "heat.mp4"
    names = ("--clip", "clips/000000.mp4", "--query", "clips/000000.mp4")
    assert call("explain", str(run.path), *names, "--video", str(video)) == 2
    assert "is not there: make it" in capsys.readouterr().err
    assert call("explain", str(run.path), *names, "--video", str(tmp_path / "heat.gif")) == 2
    assert "end in .mp4" in capsys.readouterr().err
    with pytest.raises(UserError, match="shows no motion"):
        explain(run, "clips/000002.mp4", "clips/000000.mp4")


def test_a_clip_that_changed_is_not_drawn_over(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copied = tmp_path / "run"
    shutil.copytree(run.path, copied)
    clip = Path(run.usable("clip")[explain(run, *("clips/000000.mp4",) * 2).clip_id].path)
    before = clip.read_bytes()
    names = ("--clip", "clips/000000.mp4", "--query", "clips/000000.mp4")
    try:
        clip.write_bytes(before + b"0")
        video = tmp_path / "heat.mp4"
        assert call("explain", str(copied), *names, "--video", str(video)) == 2
        assert "the file changed after it was ingested" in capsys.readouterr().err
        assert not video.exists()
    finally:
        clip.write_bytes(before)
