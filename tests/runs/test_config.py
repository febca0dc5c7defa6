"""A run's configuration: what is understood, and what is refused in one sentence with its name."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from motive.errors import UserError
from motive.runs.config import (
    RunConfig,
    flatten,
    make_config,
    parse_overrides,
    read_yaml,
    refuse_changes,
)

BASE = {"clips": "clips", "queries": "queries", "model": "tiny-wan"}


def config(**values: Any) -> RunConfig:
    return make_config({**BASE, **{k.replace("__", "."): v for k, v in values.items()}})


def assert_one_sentence(message: str) -> None:
    assert "\n" not in message
    assert ". " not in message


def test_the_defaults_are_the_papers() -> None:
    found = config()
    assert (found.selection.fraction, found.selection.percentile) == (0.1, 90)
    assert (found.gradients.dim, found.gradients.timestep) == (512, "auto")
    assert (found.gradients.projection, found.gradients.length_factor) == ("fastfood", True)
    assert (found.motion.tracker, found.motion.mask) == ("dis", "paper")


def test_dotted_and_nested_names_are_the_same() -> None:
    dotted = config(selection__fraction=0.2, selection__percentile=80)
    nested = config(selection={"fraction": 0.2, "percentile": 80})
    both = config(selection={"fraction": 0.2}, selection__percentile=80)
    assert dotted == nested == both
    assert config(seed=None, selection__fraction=None) == config()


def test_the_callers_dictionaries_are_left_alone() -> None:
    section = {"fraction": 0.2}
    config(selection=section, selection__percentile=80)
    assert section == {"fraction": 0.2}


@pytest.mark.parametrize("timestep", ["auto", 751, [751], [751, 500]])
def test_timesteps(timestep: Any) -> None:
    found = config(gradients__timestep=timestep).gradients.timestep
    assert found == (tuple(timestep) if isinstance(timestep, list) else timestep)


WRONG: list[tuple[str, Any]] = [
    ("seed", -1),
    ("seed", "many"),
    ("seed", 1.5),
    ("model", None),
    ("clips", 3),
    ("selection.fraction", 0),
    ("selection.fraction", 1.1),
    ("selection.fraction", float("nan")),
    ("selection.percentile", 100),
    ("sampling.frames", 0),
    ("sampling.height", 4),
    ("sampling.fps", 0),
    ("sampling.fps", float("inf")),
    ("sampling.mode", "last"),
    ("sampling.fit", "pad"),
    ("motion.mask", "median"),
    ("motion.static_below", -0.1),
    ("gradients.dim", 0),
    ("gradients.timestep", "late"),
    ("gradients.timestep", [751, "late"]),
    ("sampling", 3),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_a_wrong_setting_is_one_sentence_with_its_name(name: str, value: Any) -> None:
    values: dict[str, Any] = {**BASE, name: value}
    with pytest.raises(UserError) as error:
        make_config(values)
    assert f"the setting {name} is wrong: " in str(error.value)
    assert_one_sentence(str(error.value))


@pytest.mark.parametrize("name", ["nonsense", "selection.nonsense"])
def test_a_setting_that_there_is_not_is_named(name: str) -> None:
    with pytest.raises(UserError, match=f"there is no setting {name}: ") as error:
        make_config({**BASE, name: 1})
    assert_one_sentence(str(error.value))


@pytest.mark.parametrize(
    "values",
    [
        {"seed": 3, "seed.more": 1},
        {"sampling.fps": 3, "sampling": 1},
        {"seed.a": 1, "seed": 3},
        {"seed.a": 1},
    ],
)
def test_a_name_that_is_both_a_value_and_a_section(values: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"the setting [a-z.]+ is wrong"):
        make_config({**BASE, **values})


def test_a_configuration_survives_its_file(tmp_path: Path) -> None:
    first = config(seed=7, gradients__timestep=[751, 500], sampling__fps=16, media_root="/media ü")
    (tmp_path / "run.yaml").write_text(
        yaml.safe_dump(first.model_dump(mode="json"), allow_unicode=True), encoding="utf-8"
    )
    assert make_config(flatten(read_yaml(tmp_path / "run.yaml"))) == first


leaf = st.integers() | st.text() | st.booleans() | st.none() | st.lists(st.integers())
names = st.text("abcdef_", min_size=1)


@settings(deadline=None, max_examples=40)
@given(
    st.recursive(
        st.dictionaries(names, leaf), lambda t: st.dictionaries(names, leaf | t), max_leaves=8
    )
)
def test_flatten_names_every_leaf(tree: dict[str, Any]) -> None:
    flat = flatten(tree)
    for name, value in flat.items():
        node: Any = tree
        for part in name.split("."):
            node = node[part]
        assert node == value

    def leaves(node: dict[str, Any]) -> int:
        return sum(leaves(v) if isinstance(v, dict) else 1 for v in node.values())

    assert len(flat) == leaves(tree)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model", "other"), ("seed", 1), ("sampling.frames", 9), ("sampling.mode", "spread"),
        ("motion.tracker", "raft"), ("motion.static_below", 0.2), ("gradients.dim", 8),
        ("gradients.timestep", 500), ("gradients.parameters", "blocks.*"), ("compute.dtype", "bfloat16"),
    ],
)  # fmt: skip
def test_a_change_that_needs_other_features_is_refused_by_name(name: str, value: Any) -> None:
    old, new = config(), make_config({**BASE, name: value})
    was = flatten(old.model_dump(mode="json"))[name]
    with pytest.raises(UserError) as error:
        refuse_changes(old, new, Path("run"))
    assert f"{name} is {was} there and {value} now" in str(error.value)
    assert str(error.value).count(" there and ") == 1
    assert_one_sentence(str(error.value))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("clips", "more"), ("queries", "more"), ("media_root", "/"), ("selection.fraction", 0.5),
        ("selection.percentile", 50), ("compute.device", "cpu"), ("compute.threads", 1),
    ],
)  # fmt: skip
def test_a_change_that_the_features_do_not_feel_is_allowed(name: str, value: Any) -> None:
    refuse_changes(config(), make_config({**BASE, name: value}), Path("run"))


def test_several_changes_are_all_named() -> None:
    with pytest.raises(UserError, match=r"seed is 0 there and 1 now; gradients\.dim is 512"):
        refuse_changes(config(), config(seed=1, gradients__dim=8), Path("run"))


def test_overrides() -> None:
    words = ["selection.fraction=0.2", "seed=3", "clips=a=b", "gradients.timestep=[751, 500]"]
    assert parse_overrides(words) == {
        "selection.fraction": 0.2, "seed": 3, "clips": "a=b", "gradients.timestep": [751, 500],
    }  # fmt: skip
    assert parse_overrides([]) == {}


@pytest.mark.parametrize(
    "word", ["seed", "", "=3", "seed=", "seed=[", "seed={", "clips=!!python/object:os.system x"]
)
def test_what_is_no_override(word: str) -> None:
    with pytest.raises(UserError) as error:
        parse_overrides([word])
    assert str(error.value).startswith(f"'{word}' is no override: write it as name=value")
    assert_one_sentence(str(error.value))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "(No such file or directory)"),
        (b"a: [", "(it is not YAML)"),
        (b"\xff\xfe\x00", "(it is not YAML)"),
        (b"- a\n", "holds no settings"),
        (b"", "holds no settings"),
        (b"!!python/object/apply:os.system ['true']", "(it is not YAML)"),
    ],
)
def test_a_file_without_settings(tmp_path: Path, content: bytes | None, says: str) -> None:
    path = tmp_path / "run.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read_yaml(path)
    assert str(path) in str(error.value)
    assert says in str(error.value)
    assert_one_sentence(str(error.value).replace(str(path), ""))
