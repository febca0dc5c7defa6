"""Prompts of every kind of file, and what cannot be the name of a video."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from motive.errors import UserError
from motive.evaluation.prompt_lists import prompt_of
from motive.generation.prompts import LONGEST_NAME, read_prompts, require_names, video_name


def test_every_kind_of_file(tmp_path: Path) -> None:
    expected = ["a cat, asleep", "ein Hund läuft", "a cat, asleep"]
    (tmp_path / "p.txt").write_text("\ufeffa cat, asleep \n\n  ein Hund läuft\na cat, asleep\n")
    entries = [{"prompt_en": prompt, "dimension": ["scene"]} for prompt in expected]
    (tmp_path / "full_info.json").write_text(json.dumps(entries))
    (tmp_path / "list.json").write_text(json.dumps(expected))
    rows = "".join(f'clips/{i}.mp4,"{prompt}"\n' for i, prompt in enumerate(expected))
    (tmp_path / "metadata.csv").write_text("file_name,caption\n" + rows)
    (tmp_path / "p.csv").write_text("file_name,prompt\n" + rows)
    for file in tmp_path.iterdir():
        assert read_prompts(file) == expected, file.name


def test_vbenchs_own_lists_can_be_names(shared: Path) -> None:
    files = sorted((shared / "vbench" / "prompts").glob("*_*.txt"))
    assert files
    for file in files:
        require_names(read_prompts(file), 25)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("p.txt", "\n \n", "has no prompt"),
        ("p.md", "a", "is no file of prompts"),
        ("p.json", '{"a": 1}', "it holds no list"),
        ("p.json", "[", "cannot be read as prompts"),
        ("p.json", '["a", {"prompt": "b"}]', "entry 2 is neither"),
        ("p.csv", "file_name,text\na,b\n", "no column prompt or caption"),
    ],
)
def test_what_is_no_file_of_prompts(tmp_path: Path, name: str, content: str, sentence: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=sentence):
        read_prompts(tmp_path / name)
    with pytest.raises(UserError, match="No such file"):
        read_prompts(tmp_path / "none.txt")


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        ("one/two", "slash"),
        ("one\\two", "slash"),
        ("one\ntwo", "control character"),
        ("../up", "slash"),
        (".hidden", "begins with a dot"),
        ("é" * 130, "is too long"),
        ("\ud800", "control character"),
    ],
)
def test_what_cannot_be_a_name_is_refused(prompt: str, reason: str) -> None:
    with pytest.raises(UserError, match=f"1 of 2 prompts cannot be file names.*{reason}") as error:
        require_names(["a cat", prompt], 5)
    assert "\n" not in str(error.value)


def test_the_longest_name_depends_on_the_number_of_seeds() -> None:
    prompt = "x" * (LONGEST_NAME - len("-9.mp4"))
    require_names([prompt], 10)
    with pytest.raises(UserError, match="too long"):
        require_names([prompt], 11)


@given(st.text(min_size=1, max_size=60), st.integers(0, 24))
def test_what_is_not_refused_is_a_name_that_tells_its_prompt(prompt: str, index: int) -> None:
    try:
        require_names([prompt], 25)
    except UserError:
        return
    name = video_name(prompt, index)
    assert Path(name).name == name
    assert prompt_of(Path(name)) == prompt
