"""Specifications: what they say when little is said, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from motive import UserError
from motive.comparison.spec import make_spec, read_spec


def content(**changes: Any) -> dict[str, Any]:
    return {
        "run": "run",
        "model": "tiny-wan",
        "arms": {"base": "base", "all": "all", "random": "random", "mine": {"subset": "mine.csv"}},
        "training": {"steps": 3},
        "generation": {"prompts": "prompts.txt"},
        **changes,
    }


def test_paths_are_relative_to_the_specification(tmp_path: Path) -> None:
    for name in ("run", "mine.csv", "prompts.txt", "random"):
        (tmp_path / name).touch()
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(content()))
    spec = read_spec(tmp_path / "spec.yaml")
    assert spec.run == str(tmp_path / "run")
    assert spec.model == "tiny-wan"
    assert spec.generation.prompts == str(tmp_path / "prompts.txt")
    assert spec.arms["mine"].subset == str(tmp_path / "mine.csv")
    assert spec.arms["random"].subset == "random"  # a method, whatever lies there


def test_what_is_not_said() -> None:
    spec = make_spec(content())
    assert spec.seeds == (0, 1, 2)
    assert spec.against == "random"
    assert spec.seeds_of("base") == (None,)
    assert spec.seeds_of("random") == (0, 1, 2)
    assert make_spec(content(arms={"base": "base", "x": "all"})).against == "x"
    assert make_spec(content(reference="base")).against == "base"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"arms": {}}, "arms is wrong: name at least one arm"),
        ({"arms": {"../x": "all"}}, "'../x' cannot be a folder's name"),
        ({"arms": {"a": "all", "A": "random"}}, "differ in their capitals alone"),
        ({"arms": {"a": {"subset": "all", "fractoin": 1}}}, "fractoin is wrong"),
        ({"training": {}}, "give steps, to compare at matched steps, or repeats"),
        ({"training": {"steps": 1, "repeats": 1}}, "but not both"),
        ({"training": {"steps": 0}}, "training.steps is wrong"),
        ({"reference": "none"}, "'none' is none of the arms"),
        ({"seeds": [0, 0]}, "give different numbers"),
        ({"seeds": []}, "give different numbers"),
        ({"modle": "x"}, "the setting modle is wrong"),
    ],
)
def test_refusals(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError) as refused:
        make_spec(content(**changes))
    assert words in str(refused.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: [")
    (tmp_path / "b.yaml").write_text("- 1")
    for name, words in (
        ("a.yaml", "it is not YAML"),
        ("b.yaml", "holds no comparison"),
        ("c", "No such"),
    ):
        with pytest.raises(UserError, match=words):
            read_spec(tmp_path / name)
