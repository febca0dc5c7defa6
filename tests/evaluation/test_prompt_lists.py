"""VBench's own prompts, and which videos they ask for."""

from pathlib import Path

import pytest

from motive.errors import UserError
from motive.evaluation.catalog import OFFICIAL
from motive.evaluation.prompt_lists import choose, prompt_of, read_prompt_lists


def test_every_dimension_has_vbenchs_prompts(shared: Path) -> None:
    lists = read_prompt_lists(shared / "vbench" / "prompts")
    assert lists.keys() == set(OFFICIAL)
    counts = {name: len(prompts) for name, prompts in lists.items()}
    assert counts["subject_consistency"] == counts["dynamic_degree"] == 72
    assert counts["background_consistency"] == 86
    assert counts["aesthetic_quality"] == counts["imaging_quality"] == 93
    assert counts["temporal_flickering"] == 75


def test_five_videos_of_a_prompt() -> None:
    videos = [Path(f"a-{i}.mp4") for i in range(7)] + [Path("b-0.mp4")]
    lists = {"subject_consistency": ["a", "c"]}
    choice = choose("subject_consistency", videos, lists)
    assert [video.name for video in choice.videos] == [f"a-{i}.mp4" for i in range(5)]
    assert choice.missing == [f"c-{i}.mp4" for i in range(5)]
    assert len(choose("subject_consistency", videos, lists, per_prompt=None).videos) == 7
    assert choose("subject_consistency", videos, None).videos == videos
    assert choose("jerk", videos, lists).videos == []


def test_a_prompt_may_end_in_a_number() -> None:
    assert prompt_of(Path("the year 1984-3.mp4")) == "the year 1984"
    assert prompt_of(Path("no number.mp4")) == "no number"


def test_what_is_no_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no prompt lists"):
        read_prompt_lists(tmp_path)
    with pytest.raises(UserError, match="No such file"):
        read_prompt_lists(tmp_path / "none.json")
    (tmp_path / "wrong.json").write_text('[{"prompt": 1}]')
    with pytest.raises(UserError, match="no list of prompts with dimensions"):
        read_prompt_lists(tmp_path / "wrong.json")
