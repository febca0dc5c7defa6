"""`motive backbones`: every family, its classes, what was tested, and its published sizes."""

import json
import subprocess
import sys

import pytest

from motive.backbones import FAMILIES
from motive.backbones.base import Backbone
from motive.backbones.catalog import adapter_class, catalog
from motive.cli import main


def test_every_pipeline_class_is_listed_once_with_what_its_adapter_says() -> None:
    families = catalog()
    listed = [name for family in families for name in family["pipeline_classes"]]
    assert sorted(listed) == sorted(FAMILIES)
    assert len({family["family"] for family in families}) == len(families)
    for family in families:
        assert family["tested"]
        for name in family["pipeline_classes"]:
            adapter = adapter_class(name)
            assert issubclass(adapter, Backbone)
            assert not adapter.__abstractmethods__
            assert name in adapter.pipeline_classes
            assert set(adapter.pipeline_classes) <= set(FAMILIES)
        for model in family["models"]:
            assert "/" in model["model"]
            assert model["parameters"] > 1e8
            assert model["weight_bytes"] == {
                "bfloat16": 2 * model["parameters"], "float32": 4 * model["parameters"],
            }  # fmt: skip


def test_the_published_number_of_the_papers_model() -> None:
    (wan,) = [family for family in catalog() if family["family"] == "wan"]
    assert {"model": "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "parameters": 1_418_996_800}.items() <= (
        wan["models"][0].items()
    )


@pytest.mark.parametrize("words", [["backbones"], ["backbones", "--json"]])
def test_the_command_prints_it_for_people_and_for_programs(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(words)
    assert not end.value.code
    out = capsys.readouterr().out
    if "--json" in words:
        assert json.loads(out) == catalog()
    else:
        assert "wan (WanPipeline)" in out
        (line,) = [text for text in out.splitlines() if "Wan2.1-T2V-1.3B" in text]
        assert "1.42 B" in line
        assert "2.8 GB in bfloat16" in line
        assert "No published weights were run." in out.replace("\n", " ")


def test_listing_needs_neither_torch_nor_diffusers() -> None:
    code = (
        "import sys; from motive.backbones.catalog import catalog; catalog(); "
        "print({'torch', 'diffusers', 'transformers'} & set(sys.modules))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.strip() == "set()"
