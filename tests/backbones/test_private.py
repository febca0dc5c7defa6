"""Adapters outside the package: what the user names is imported, and nothing else."""

from pathlib import Path

import pytest

from motive.backbones import load_backbone, private
from motive.backbones.catalog import adapter_class, catalog
from motive.backbones.private import code_digest, use_adapter
from motive.backbones.source import ModelSource, find_model
from motive.backbones.wan import WanBackbone
from motive.cli import main
from motive.errors import UserError
from motive.plan import Plan
from motive.runs.config import make_config

OWN = """
from motive.backbones.wan import WanBackbone

class Own(WanBackbone):
    family = "own"
    pipeline_classes = ("OwnPipeline",)

class Wan(WanBackbone):
    family = "wan-of-mine"
"""


@pytest.fixture(autouse=True)
def _no_adapters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private, "named", {})
    monkeypatch.delenv("MOTIVE_ADAPTER", raising=False)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "own.py"
    path.write_text(OWN)
    return path


def test_a_named_adapter_is_taken_for_its_pipeline_class(file: Path, tmp_path: Path) -> None:
    source = ModelSource("x", tmp_path, {"_class_name": "OwnPipeline"})
    with pytest.raises(UserError, match="OwnPipeline pipeline, which has no adapter yet"):
        load_backbone(source)
    adapter = use_adapter(f"{file}:Own")
    assert type(load_backbone(source)) is adapter
    assert adapter_class("OwnPipeline") is adapter
    (entry,) = [family for family in catalog() if family["family"] == "own"]
    assert entry["pipeline_classes"] == ["OwnPipeline"]
    assert use_adapter(f"{file}:Own") is adapter  # the same file is one module


def test_a_users_adapter_comes_before_the_packages(file: Path, tmp_path: Path) -> None:
    source = ModelSource("x", tmp_path, {"_class_name": "WanPipeline"})
    assert type(load_backbone(source)) is WanBackbone
    adapter = use_adapter(f"{file}:Wan")
    assert type(load_backbone(source)) is adapter


def test_the_adapters_code_is_part_of_what_made_a_feature(
    file: Path, small_wan: Path, tmp_path: Path
) -> None:
    config = make_config({"clips": "c", "queries": "q", "model": str(small_wan)})

    def fingerprint() -> str:
        return Plan(tmp_path / "run", config).model_fingerprint

    plain = fingerprint()
    assert code_digest(WanBackbone) == ""
    assert plain == find_model(str(small_wan)).fingerprint()
    use_adapter(f"{file}:Wan")
    first = fingerprint()
    file.write_text(OWN + "\n# changed\n")
    use_adapter(f"{file}:Wan")
    assert len({plain, first, fingerprint()}) == 3


@pytest.mark.parametrize(
    ("content", "where", "says"),
    [
        (OWN, "{file}", "is wrong: write FILE.PY:CLASS"),
        (OWN, "motive.backbones.wan:WanBackbone", "is wrong: write FILE.PY:CLASS"),
        (OWN, "{file}:not a name", "is wrong: write FILE.PY:CLASS"),
        (OWN, "{file}x.py:Own", "there is no file"),
        (OWN, "{file}:Missing", "has no class Missing that is a motive.backbones.base.Backbone"),
        ("Own = 3", "{file}:Own", "has no class Own"),
        ("class Own: pass", "{file}:Own", "has no class Own"),
        ("import no_such_module", "{file}:Own", "ModuleNotFoundError: No module named"),
        ("def (", "{file}:Own", "cannot be imported .SyntaxError"),
        (
            "from motive.backbones.base import Backbone\nclass Own(Backbone): family = 'own'",
            "{file}:Own",
            "lacks add_noise, default_prompt_length, .* components, denoiser: see docs/adapters.md",
        ),
    ],
)
def test_what_is_no_adapter_is_refused_in_one_sentence(
    tmp_path: Path, content: str, where: str, says: str
) -> None:
    file = tmp_path / "own.py"
    file.write_text(content)
    with pytest.raises(UserError, match=says) as error:
        use_adapter(where.format(file=file))
    assert "\n" not in str(error.value)
    assert private.named == {}


def test_the_command_line_and_the_environment_name_adapters(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def listed(*words: str) -> str:
        private.named.clear()
        with pytest.raises(SystemExit) as end:
            main([*words, "backbones"])
        assert not end.value.code
        return capsys.readouterr().out

    assert "own (OwnPipeline)" not in listed()
    assert "own (OwnPipeline)" in listed("--adapter", f"{file}:Own")
    monkeypatch.setenv("MOTIVE_ADAPTER", f"{file}:Own")
    assert "own (OwnPipeline)" in listed()


def test_no_model_folder_names_code(tmp_path: Path, small_wan: Path) -> None:
    """A pipeline that says where its own code lies is not asked for it."""
    (tmp_path / "pipeline.py").write_text("raise SystemExit('imported')")
    index = {"_class_name": ["pipeline", "OwnPipeline"], "adapter": "pipeline.py:OwnPipeline"}
    with pytest.raises(UserError, match="has no adapter yet"):
        load_backbone(ModelSource("x", tmp_path, index))
