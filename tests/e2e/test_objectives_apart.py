"""Features of two objectives are never mixed: the error names the field that differs."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from commands import Terminal
from run_files import Finished, done, scores, snapshot

from motive import Run, UserError

# Command-line words and the setting that they change.
CHANGES = {
    "seed": ("--seed", 1),
    "gradients.dim": ("--dim", 256),
    "gradients.estimator": ("--estimator", "centred"),
    "gradients.timestep": ("--timestep", 500),
    "gradients.trainer": ("--trainer", "musubi"),
    "gradients.projection": ("--projection", "identity"),
    "gradients.parameters": ("--parameters", "blocks.*"),
    "motion.mask": ("--mask", "none"),
    "motion.static_below": ("--static-below", 0.2),
    "sampling.frames": ("--frames", 5),
    "sampling.height": ("--size", "16x32"),
    "sampling.fps": ("--fps", 8),
    "sampling.mode": ("--mode", "spread"),
    "sampling.fit": ("--fit", "stretch"),
    "compute.dtype": ("--dtype", "bfloat16"),
}
# Fields of run.yaml, another value, and the objective's field that must be named.
EDITS = {
    "seed": (7, "noise_seed"),
    "gradients.dim": (256, "dim"),
    "gradients.timestep": (500, "timesteps"),
    "gradients.length_factor": (False, "length_factor"),
    "motion.mask": ("none", "mask"),
    "motion.static_below": (0.5, "static_below"),
}


@pytest.mark.parametrize("setting", CHANGES)
def test_another_setting_is_refused_for_a_run_that_exists(
    motive: Terminal, finished: Finished, setting: str
) -> None:
    before = snapshot(finished.path)
    outcome = motive(*finished.words, *CHANGES[setting], "--out", finished.path)
    assert f"{setting} is " in outcome.complaint
    assert snapshot(finished.path) == before


def test_an_unknown_tracker_is_no_way_around(motive: Terminal, finished: Finished) -> None:
    outcome = motive(*finished.words, "--tracker", "other", "--out", finished.path)
    assert "motion.tracker is dis there and other now" in outcome.complaint


def test_another_model_is_refused(
    motive: Terminal, finished: Finished, small_wan: Path, tmp_path: Path
) -> None:
    link = tmp_path / "the-same-model"
    link.symlink_to(small_wan)
    outcome = motive(*finished.words, "--model", link, "--out", finished.path)
    assert "model is " in outcome.complaint


def test_another_selection_takes_the_same_features(
    motive: Terminal, finished: Finished, copied: Path
) -> None:
    before = done(copied)
    motive(*finished.words, "--fraction", 0.2, "--out", copied).succeeded()
    assert done(copied)["gradients"] == before["gradients"]
    assert sum(row["selected"] == "true" for row in Run.open(copied).selection()) == round(0.2 * 14)
    assert scores(copied) == scores(finished.path)


@pytest.mark.parametrize("stage", ["score", "select", "report"])
@pytest.mark.parametrize("setting", EDITS)
def test_an_edited_record_does_not_take_the_old_features(
    motive: Terminal,
    copied: Path,
    edit: Callable[[Path, str, object], None],
    setting: str,
    stage: str,
) -> None:
    value, field = EDITS[setting]
    edit(copied, setting, value)
    before = snapshot(copied)
    complaint = motive(stage, copied).complaint
    assert f"{field} is " in complaint
    assert outputs(snapshot(copied)) == outputs(before)


def test_an_edited_record_and_new_gradients_are_another_run_beside_the_old(
    motive: Terminal, finished: Finished, copied: Path, edit: Callable[[Path, str, object], None]
) -> None:
    """Every stage again, by itself: features of both objectives lie in the table and do not mix."""
    edit(copied, "seed", 7)
    motive("gradients", copied, "--quiet").succeeded()
    motive("score", copied).succeeded()
    assert scores(copied).keys() == scores(finished.path).keys()
    assert scores(copied) != scores(finished.path)
    edit(copied, "seed", 0)
    assert "noise_seed is " in motive("select", copied).complaint
    motive("score", copied).succeeded()
    assert scores(copied) == scores(finished.path)


def test_influence_across_objectives_is_refused(finished: Finished, copied: Path) -> None:
    run = Run.open(copied)
    clips, queries = run.features("clip"), run.features("query")
    assert queries.influence_of(clips).shape == (5, 14)
    other = replace(clips, objective=replace(clips.objective, mask_trusted=True))
    with pytest.raises(
        UserError, match="mask_trusted is True for the clips and False for the quer"
    ):
        queries.influence_of(other)
    with pytest.raises(UserError, match=r"dim is 256 .* and 512 "):
        run.features("clip", replace(run.objective, dim=256))


@pytest.fixture
def edit() -> Callable[[Path, str, object], None]:
    """Changes one setting in a run's run.yaml, by hand."""

    def change(run: Path, setting: str, value: object) -> None:
        record = run / "run.yaml"
        content = yaml.safe_load(record.read_text())
        *sections, last = setting.split(".")
        node = content["config"]
        for section in sections:
            node = node[section]
        assert node[last] != value
        node[last] = value
        record.write_text(yaml.safe_dump(content, sort_keys=False))

    return change


def outputs(files: dict[str, bytes] | None) -> dict[str, bytes]:
    assert files is not None
    names = ("scores.parquet", "selection.csv", "failures.csv", "report.html", "outputs.json")
    return {name: files[name] for name in names}
