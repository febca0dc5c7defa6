"""A whole comparison on a small model: trained, generated, evaluated, broken off and gone on with."""

import csv
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from motive import Run, UserError
from motive.comparison import compare
from motive.comparison.spec import make_spec
from motive.subsets import choose_subset

PROMPTS = ("a circle spins", "a square falls")


@pytest.fixture(scope="module")
def run(zoo: Path, small_wan: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    made = Run.create(
        tmp_path_factory.mktemp("comparison") / "run",
        clips=str(zoo / "metadata.csv"),
        queries=str(zoo / "metadata.csv"),
        model=str(small_wan),
        selection__fraction=0.25,
    )
    made.curate(report=False)
    return made


def spec_of(run: Run, **changes: Any) -> dict[str, Any]:
    return {
        "run": str(run.path),
        "model": run.config.model,
        "arms": {"base": "base", "random": "random", "motive": "selection"},
        "training": {"steps": 2, "batch": 2, "lr": 1e-3},
        "generation": {"prompts": PROMPTS, "seeds": 1, "steps": 1, "frames": 5, "guidance": 1.0},
        "evaluation": {"dimensions": ["jerk", "subject_consistency"]},
        "seeds": [0, 1],
        **changes,
    }


class Counted:
    """An extra evaluator that says how often it was asked, and breaks off where it is told to."""

    def __init__(self, broken_at: int = 0) -> None:
        self.asked: list[Path] = []
        self.broken_at = broken_at

    def __call__(self, videos: Path) -> Mapping[str, float]:
        self.asked.append(videos)
        if len(self.asked) == self.broken_at:
            raise KeyboardInterrupt
        return {"bytes": float(sum(f.stat().st_size for f in videos.glob("*.mp4")))}


@pytest.fixture(scope="module")
def finished(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison that was broken off in its fourth arm, and gone on with."""
    out = tmp_path_factory.mktemp("comparison") / "out"
    spec = make_spec(spec_of(run))
    with pytest.raises(KeyboardInterrupt):
        compare(spec, out, extra_evaluator=Counted(broken_at=4))
    known = json.loads((out / "comparison.json").read_text())
    assert known["arms"]["motive"]["dimensions"]["jerk"]["score"]["values"].keys() == {"0"}
    second = Counted()
    compare(spec, out, extra_evaluator=second)
    assert [p.relative_to(out).parts[:2] for p in second.asked] == [
        ("random", "seed-1"),
        ("motive", "seed-1"),
    ]
    return out


def test_every_arm_has_its_videos_and_its_place_in_the_table(run: Run, finished: Path) -> None:
    found = json.loads((finished / "comparison.json").read_text())
    assert list(found["arms"]) == ["base", "random", "motive"]
    assert (found["matched"], found["reference"]) == ("steps", "random")
    assert {name: (arm["clips"], arm["steps"]) for name, arm in found["arms"].items()} == {
        "base": (0, 0),
        "random": (4, 2),
        "motive": (4, 2),
    }
    assert list(found["missing"]) == ["subject_consistency"]
    for name, places in {"base": ["base"], "random": ["seed-0", "seed-1"]}.items():
        for place in places:
            videos = sorted(p.name for p in (finished / name / place / "videos").glob("*.mp4"))
            assert videos == sorted(f"{prompt}-0.mp4" for prompt in PROMPTS)
    cell = found["arms"]["motive"]["dimensions"]["bytes"]
    assert set(cell["score"]["values"]) == {"0", "1"}
    assert cell["difference"]["low"] < cell["difference"]["mean"] < cell["difference"]["high"]
    page = (finished / "comparison.md").read_text()
    assert "matched steps" in page
    assert "subject_consistency: " in page
    with (finished / "comparison.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {(r["arm"], r["dimension"]) for r in rows} == {
        (arm, dimension) for arm in found["arms"] for dimension in ("jerk", "bytes")
    }


def test_random_is_drawn_anew_for_each_training(run: Run, finished: Path) -> None:
    for seed in (0, 1):
        with (finished / "random" / f"seed-{seed}" / "clips.csv").open(newline="") as file:
            listed = tuple(row["clip_id"] for row in csv.DictReader(file))
        assert listed == choose_subset(run, "random", seed=seed).clip_ids
    one, other = (
        json.loads((finished / "motive" / f"seed-{s}" / "model" / "training.json").read_text())
        for s in (0, 1)
    )
    assert one["settings"]["subset_clips"] == other["settings"]["subset_clips"]
    assert one["settings"]["seed"] != other["settings"]["seed"]


def test_done_is_done(run: Run, finished: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*.mp4")}
    again = Counted()
    table = (finished / "comparison.json").read_text()
    compare(make_spec(spec_of(run)), finished, extra_evaluator=again)
    assert not again.asked
    assert {p: p.stat().st_mtime_ns for p in finished.rglob("*.mp4")} == before
    assert (finished / "comparison.json").read_text() == table


def test_an_arm_may_be_added_and_its_model_dropped(
    run: Run, finished: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(finished, tmp_path / "out"))
    arms = {**spec_of(run)["arms"], "fast": {"subset": "magnitude", "fraction": 0.1}}
    spec = make_spec(spec_of(run, arms=arms, keep_models=False))
    found = compare(spec, out, extra_evaluator=Counted())
    assert found.clips["fast"] == 1
    assert len(found.cells["fast"]["bytes"].score.values) == 2
    assert not list(out.glob("*/*/model"))
    # Without their models the arms are still done.
    assert compare(spec, out, extra_evaluator=Counted()).cells == found.cells


def test_a_lora_is_generated_from(run: Run, tmp_path: Path) -> None:
    spec = spec_of(
        run,
        arms={"base": "base", "motive": "selection"},
        training={"steps": 2, "lr": 2.0, "lora": 2},
        seeds=[0],
        reference="base",
    )
    compare(make_spec(spec), tmp_path / "out")
    base, tuned = (
        (tmp_path / "out" / place / "videos" / f"{PROMPTS[0]}-0.mp4").read_bytes()
        for place in ("base/base", "motive/seed-0")
    )
    assert base != tuned


def test_a_removed_video_is_made_again(run: Run, finished: Path, tmp_path: Path) -> None:
    spec = make_spec(spec_of(run))
    kept, gone = (Path(shutil.copytree(finished, tmp_path / name)) for name in ("kept", "gone"))
    shutil.rmtree(gone / "motive" / "seed-1" / "model")
    before = json.loads((finished / "comparison.json").read_text())["arms"]
    for out in (kept, gone):
        for name in ("base/base", "motive/seed-1"):
            video = out / name / "videos" / f"{PROMPTS[0]}-0.mp4"
            content = video.read_bytes()
            video.unlink()
            compare(spec, out, extra_evaluator=Counted())
            assert video.read_bytes() == content
            assert json.loads((out / "comparison.json").read_text())["arms"] == before
    (kept / "base" / "base" / "videos" / "a film-0.mp4").write_bytes(content)
    with pytest.raises(UserError, match="is of no prompt of the comparison"):
        compare(spec, kept)


def test_an_arm_that_was_left_out_stays_known(run: Run, finished: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(finished, tmp_path / "out"))
    others = {"base": "base", "random": "random"}
    compare(make_spec(spec_of(run, arms=others)), out, extra_evaluator=Counted())
    with pytest.raises(UserError, match=r"another arms\.motive"):
        compare(make_spec(spec_of(run, arms={**others, "motive": "magnitude"})), out)
    again = Counted()
    assert "motive" in compare(make_spec(spec_of(run)), out, extra_evaluator=again).cells
    assert not again.asked


def test_other_content_under_the_same_settings_is_refused(run: Run, tmp_path: Path) -> None:
    prompts, listed, out = tmp_path / "p.txt", tmp_path / "mine.csv", tmp_path / "out"
    ids = choose_subset(run, "selection").clip_ids

    def words(*lines: str) -> str:
        return "clip_id\n" + "\n".join(lines) + "\n"

    def work(**changes: Any) -> None:
        spec = spec_of(run, arms={"mine": str(listed)}, seeds=[0], **changes)
        spec["generation"]["prompts"] = str(prompts)
        compare(make_spec(spec), out)

    prompts.write_text("\n".join(PROMPTS))
    listed.write_text(words(*ids))
    work()
    prompts.write_text("\n".join(["", *reversed(PROMPTS)]))  # the same prompts
    work()
    prompts.write_text(f"{PROMPTS[0]}\na star falls\n")
    with pytest.raises(UserError, match=r"another content of generation\.prompts"):
        work()
    prompts.write_text("\n".join(PROMPTS))
    with pytest.raises(UserError, match=r"another compute\.dtype"):
        work(compute={"dtype": "bfloat16"})
    work(compute={"threads": 1})
    listed.write_text(words(*ids[1:]))
    with pytest.raises(UserError, match="whose arm mine took other clips"):
        work()


def test_a_new_selection_is_refused(run: Run, finished: Path, tmp_path: Path) -> None:
    """As it is told by the clips that a training was begun with, whatever spec.json says."""
    out = Path(shutil.copytree(finished, tmp_path / "out"))
    spec = json.loads((out / "spec.json").read_text())
    places = spec["inputs"]["clips"]
    assert places["motive"]["seed-0"] == places["motive"]["seed-1"]
    assert places["random"]["seed-0"] != places["random"]["seed-1"]
    spec["inputs"]["clips"]["motive"]["seed-0"] = "0" * 20
    (out / "spec.json").write_text(json.dumps(spec))
    with pytest.raises(UserError, match="whose arm motive took other clips"):
        compare(make_spec(spec_of(run)), out)
    del spec["inputs"]
    (out / "spec.json").write_text(json.dumps(spec))
    listed = out / "random" / "seed-1" / "clips.csv"
    listed.write_text("".join(listed.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(UserError, match="whose arm random took other clips"):
        compare(make_spec(spec_of(run)), out)


def test_a_lora_of_two_networks_is_refused_before_training(
    run: Run, small_wan: Path, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(small_wan, tmp_path / "two"))
    shutil.copytree(model / "transformer", model / "transformer_2")
    index = json.loads((model / "model_index.json").read_text())
    index |= {"transformer_2": index["transformer"], "boundary_ratio": 0.875}
    (model / "model_index.json").write_text(json.dumps(index))
    training = {"steps": 1, "lora": 2, "timestep_range": (0, 875)}
    with pytest.raises(UserError, match=r"two networks.*leave out training\.lora"):
        compare(make_spec(spec_of(run, model=str(model), training=training)), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_refusals_come_before_any_training(run: Run, finished: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the arm near: the subset embedding needs"):
        compare(make_spec(spec_of(run, arms={"near": "embedding"})), tmp_path / "a")
    assert not list((tmp_path / "a").glob("*/*"))
    with pytest.raises(UserError, match="has a comparison with another training"):
        compare(make_spec(spec_of(run, training={"steps": 3})), finished)
    arms = {"base": "base", "random": "magnitude", "motive": "selection"}
    with pytest.raises(UserError, match=r"has a comparison with another arms\.random"):
        compare(make_spec(spec_of(run, arms=arms)), finished)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "something").touch()
    with pytest.raises(UserError, match="holds no comparison"):
        compare(make_spec(spec_of(run)), tmp_path / "b")
