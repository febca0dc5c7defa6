"""A study's folder: what is in it, what is refused, and what nothing in it may tell."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from study_parts import PROMPTS

from motive.errors import ClipError, UserError
from motive.study import creation
from motive.study.creation import create_study
from motive.study.database import open_database
from motive.study.design import Rules, read_design
from motive.study.roster import read_tokens, standings
from motive.study.videos import copy_standing, copy_video, moves_plainly, outline, read_frames
from motive.zoo.render import write_mp4
from thread_count import threads_of

MakeStudy = Callable[..., Path]


def test_a_study_has_every_pair_of_arms_prompt_and_seed(make_study: MakeStudy) -> None:
    design = read_design(make_study("base", "motive", "random"))
    assert design.arm_pairs == [("motive", "base"), ("random", "base"), ("random", "motive")]
    assert len(design.pairs) == 3 * len(PROMPTS) * 2
    keys = {(p.prompt, p.seed) for p in design.pairs if p.arms == ("motive", "base")}
    assert keys == {(prompt, seed) for prompt in PROMPTS for seed in range(2)}
    # One arm's video of one prompt is one file, whatever it is compared with.
    assert len({video for p in design.pairs for video in (p.video_a, p.video_b)}) == 12


def test_against_compares_with_one_arm(make_study: MakeStudy) -> None:
    design = read_design(make_study("base", "motive", "random", against="motive", seeds=1))
    assert design.arm_pairs == [("base", "motive"), ("random", "motive")]
    assert {p.seed for p in design.pairs} == {0}


def test_nothing_that_is_served_tells_the_arm(make_study: MakeStudy, arms: dict[str, Path]) -> None:
    study = make_study()
    files = sorted((study / "videos").iterdir())
    assert len(files) == 8 + 1
    for file in files:
        assert re.fullmatch(r"[0-9a-f]{24}\.mp4", file.name)
        content = file.read_bytes()
        for word in (*arms, *PROMPTS, str(arms["base"].parent)):
            assert word.encode() not in content
        with av.open(str(file)) as container:
            assert set(container.metadata) <= {
                "major_brand",
                "minor_version",
                "compatible_brands",
                "encoder",
            }
            (stream,) = container.streams
            assert (stream.codec.name, stream.pix_fmt) == ("h264", "yuv420p")
    assert len({file.stat().st_mtime for file in files}) == 1
    assert (study / "links.csv").stat().st_mode & 0o077 == 0
    database = (study / "study.db").read_bytes()
    for token in read_tokens(study).values():
        assert len(token) >= 43  # 256 bits
        assert token.encode() not in database


def test_metadata_of_the_source_is_left_behind(tmp_path: Path) -> None:
    source, copy = tmp_path / "source.mp4", tmp_path / "copy.mp4"
    with av.open(str(source), "w") as container:
        container.metadata["title"] = "arm motive"
        container.metadata["comment"] = "seed 3"
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 33, 17, "yuv444p"
        for k in range(5):
            image = np.full((17, 33, 3), 40 * k, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    copy_video(source, copy)
    assert b"arm motive" not in copy.read_bytes()
    frames, times = read_frames(copy)
    assert frames.shape == (5, 18, 34, 3)  # even, as 4:2:0 wants; the edge goes on
    assert [float(time) for time in times] == pytest.approx([k / 8 for k in range(6)], abs=1e-4)
    original, _ = read_frames(source)
    assert np.abs(frames[:, :17, :33].astype(int) - original).mean() < 3


def test_the_copy_of_a_check_stands_still_as_long(arms: dict[str, Path], tmp_path: Path) -> None:
    source = arms["motive"] / f"{PROMPTS[0]}-0.mp4"
    copy_standing(source, tmp_path / "still.mp4")
    frames, times = read_frames(tmp_path / "still.mp4")
    original, original_times = read_frames(source)
    assert times == original_times
    assert np.abs(frames.astype(int) - original[0]).mean() < 3
    assert moves_plainly(source)
    assert not moves_plainly(tmp_path / "still.mp4")
    assert outline(tmp_path / "still.mp4") == outline(source)


def test_an_uneven_frame_rate_is_kept(tmp_path: Path) -> None:
    source = tmp_path / "source.mp4"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for tick in (0, 1, 5, 6, 20):
            frame = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
            frame.pts = tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    copy_video(source, tmp_path / "copy.mp4")
    _, times = read_frames(tmp_path / "copy.mp4")
    assert [round(float(time) * 30, 3) for time in times[:-1]] == [0, 1, 5, 6, 20]


def test_a_video_that_is_cut_off_is_refused(arms: dict[str, Path], tmp_path: Path) -> None:
    copy_video(
        arms["base"] / f"{PROMPTS[0]}-0.mp4", tmp_path / "whole.mp4"
    )  # its index comes first
    whole = (tmp_path / "whole.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(ClipError):
        read_frames(tmp_path / "cut.mp4")


@pytest.mark.parametrize("content", [b"", b"no video at all", None])
def test_what_is_no_video_is_named(
    content: bytes | None, arms: dict[str, Path], tmp_path: Path
) -> None:
    source = tmp_path / "bad.mp4"
    if content is None:
        whole = (arms["base"] / f"{PROMPTS[0]}-0.mp4").read_bytes()
        source.write_bytes(whole[: len(whole) // 3])
    else:
        source.write_bytes(content)
    with pytest.raises(ClipError):
        copy_video(source, tmp_path / "copy.mp4")
    assert not (tmp_path / "copy.mp4").exists()


def test_a_missing_video_is_named(arms: dict[str, Path], tmp_path: Path) -> None:
    copied = Path(shutil.copytree(arms["base"].parent, tmp_path / "arms"))
    gone = copied / "motive" / f"{PROMPTS[1]}-1.mp4"
    gone.unlink()
    with pytest.raises(UserError) as refused:
        create(copied, tmp_path / "study")
    assert str(gone) in str(refused.value)
    assert not (tmp_path / "study").exists()


def create(root: Path, out: Path, **changes: object) -> None:
    settings: dict[str, object] = {"annotators": ["ann", "bob"], "checks": 1} | changes
    names = settings.pop("arms", ("base", "motive"))
    rules = settings.pop("rules", Rules(per_pair=2))
    assert isinstance(rules, Rules)
    create_study(
        out,
        {name: root / name for name in names},  # type: ignore[attr-defined]
        root / "prompts.txt",
        rules,
        **settings,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"arms": ("base",)}, "at least twice"),
        ({"arms": ("base", "nowhere")}, "is no folder"),
        ({"against": "random"}, "is no arm"),
        ({"annotators": []}, "nobody is to judge"),
        ({"annotators": ["ann", "ann"]}, "one name"),
        ({"annotators": ["ann", " "]}, "cannot name an annotator"),
        ({"rules": Rules(per_pair=3)}, "cannot judge each pair 3 times"),
        ({"seeds": 3}, "is missing"),
        ({"checks": 9}, "only 8 of the videos move enough"),
    ],
)
def test_what_makes_no_study_is_refused_before_anything_is_written(
    changes: dict[str, object], reason: str, arms: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=reason):
        create(arms["base"].parent, tmp_path / "study", **changes)
    assert not (tmp_path / "study").exists()


def test_standing_videos_make_no_check(tmp_path: Path) -> None:
    for arm in ("base", "motive"):
        (tmp_path / arm).mkdir()
        write_mp4(tmp_path / arm / "grey-0.mp4", np.full((6, 32, 32, 3), 99, np.uint8), 8)
    (tmp_path / "prompts.txt").write_text("grey\n")
    with pytest.raises(UserError, match="only 0 of the videos move"):
        create(tmp_path, tmp_path / "study")
    create(tmp_path, tmp_path / "study", checks=0)
    assert read_design(tmp_path / "study").checks == ()


def test_an_interrupted_creation_goes_on_where_it_was(
    arms: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, out = arms["base"].parent, tmp_path / "study"
    calls = 0

    def copy(source: Path, target: Path) -> None:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        copy_video(source, target)

    monkeypatch.setattr(creation, "copy_video", copy)
    with pytest.raises(KeyboardInterrupt):
        create(root, out)
    with pytest.raises(UserError, match="half made"):
        read_design(out)
    there = {p.name: p.stat().st_mtime_ns for p in (out / "videos").iterdir()}
    draft = json.loads((out / "draft.json").read_text())
    with pytest.raises(UserError, match="begun with other settings"):
        create(root, out, rules=Rules(per_pair=1))
    create(root, out)
    assert json.loads((out / "study.json").read_text()) == draft
    for name in there:
        assert (out / "videos" / name).exists()
    assert calls <= 4 + 8 - 3 + 1
    with pytest.raises(UserError, match="holds a study already"):
        create(root, out)


def test_a_creation_stopped_after_the_database_was_filled_ends_well(
    arms: dict[str, Path], tmp_path: Path
) -> None:
    root, out = arms["base"].parent, tmp_path / "study"
    create(root, out)
    tokens = read_tokens(out)
    os.replace(out / "study.json", out / "draft.json")  # as if it had stopped right before the end
    create(root, out)
    assert read_tokens(out) == tokens
    held = open_database(out, read_design(out))
    assert [(one.name, one.done, one.total) for one in standings(held)] == [
        ("ann", 0, 5),
        ("bob", 0, 5),
    ]
    held.close()


def test_videos_that_differ_in_size_are_told_to_the_organiser(
    arms: dict[str, Path], tmp_path: Path
) -> None:
    from rich.console import Console

    from motive.runs.progress import Progress

    root = Path(shutil.copytree(arms["base"].parent, tmp_path / "arms"))
    frames, _ = read_frames(root / "motive" / f"{PROMPTS[0]}-0.mp4")
    write_mp4(root / "motive" / f"{PROMPTS[0]}-0.mp4", frames[:, :64], 12)
    with (tmp_path / "log").open("w") as log:
        create(root, tmp_path / "study", progress=Progress(Console(file=log, width=200)))
    said = (tmp_path / "log").read_text()
    assert "in 1 of 4 pairs the two videos differ in size or length" in said


def test_copies_do_not_depend_on_when_they_are_made(arms: dict[str, Path], tmp_path: Path) -> None:
    source = arms["base"] / f"{PROMPTS[0]}-0.mp4"
    digests = set()
    for k in range(2):
        copy_video(source, tmp_path / f"{k}.mp4")
        digests.add(hashlib.sha256((tmp_path / f"{k}.mp4").read_bytes()).hexdigest())
    assert len(digests) == 1


def test_frames_are_read_in_one_thread_as_in_several(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 106, 3), np.uint8)
    write_mp4(tmp_path / "noise.mp4", noise.repeat(8, 1).repeat(8, 2), 16)
    threads, (frames, _) = threads_of(lambda: read_frames(tmp_path / "noise.mp4"))
    assert threads == 1
    with av.open(str(tmp_path / "noise.mp4")) as container:
        several = [f.to_ndarray(format="rgb24", threads=4) for f in container.decode(video=0)]
    np.testing.assert_array_equal(frames, np.stack(several))
