"""Which adapter a model gets, and what is refused before anything is loaded."""

from pathlib import Path

import pytest
import torch

from motive.backbones import FAMILIES, load_backbone
from motive.backbones.base import Backbone
from motive.backbones.source import ModelSource, find_model
from motive.backbones.wan import WanBackbone
from motive.errors import UserError


def test_a_wan_pipeline_gets_its_adapter(small_wan: Path) -> None:
    backbone = load_backbone(find_model(str(small_wan)))
    assert isinstance(backbone, WanBackbone)
    assert backbone.source.pipeline_class in WanBackbone.pipeline_classes
    expected = ("cuda", torch.bfloat16) if torch.cuda.is_available() else ("cpu", torch.float32)
    assert (backbone.device.type, backbone.dtype) == expected
    other = load_backbone(find_model(str(small_wan)), dtype="bfloat16", device="cpu")
    assert (other.device.type, other.dtype) == ("cpu", torch.bfloat16)


@pytest.mark.parametrize(
    ("index", "says"),
    [
        ({"_class_name": "NoSuchPipeline"}, "is a NoSuchPipeline pipeline"),
        ({"_class_name": "WanVACEPipeline"}, "is a WanVACEPipeline pipeline"),
        ({}, "is a nameless pipeline"),
    ],
)
def test_an_unknown_pipeline_is_refused_with_the_known_ones_and_the_page(
    tmp_path: Path, index: dict[str, object], says: str
) -> None:
    with pytest.raises(UserError) as error:
        load_backbone(ModelSource("that one", tmp_path, index))
    message = str(error.value)
    assert message.startswith(f"that one {says}, which has no adapter yet: use one of ")
    assert all(f"{known}, " in message for known in FAMILIES)
    assert message.endswith("or write one as docs/adapters.md shows")
    assert (Path(__file__).parents[2] / "docs/adapters.md").is_file()


def test_a_wan_21_index_with_empty_wan_22_fields_is_taken(tmp_path: Path) -> None:
    index = {"_class_name": "WanPipeline", "expand_timesteps": False, "boundary_ratio": None}
    assert load_backbone(ModelSource("x", tmp_path, index)).default_sampler().max_frames == 81


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"device": "abacus"}, "the device abacus is not there"),
        ({"device": "cuda:99"}, "the device cuda:99 is not there"),
        ({"dtype": "float8"}, "there is no dtype 'float8'"),
        ({"dtype": "int64"}, "there is no dtype 'int64'"),
    ],
)
def test_a_device_or_dtype_that_is_not_there(
    small_wan: Path, options: dict[str, str], says: str
) -> None:
    with pytest.raises(UserError, match=says):
        load_backbone(find_model(str(small_wan)), **options).device  # noqa: B018


def test_a_backbone_knows_its_precision_without_asking_a_device(small_wan: Path) -> None:
    source = find_model(str(small_wan))
    # A device that is not there: asking for it would be refused.
    cuda = load_backbone(source, device="cuda:99")
    assert (cuda.dtype_name, cuda.text_dtype_name) == ("bfloat16", "bfloat16")
    chosen = load_backbone(source, device="cuda:99", dtype="float16", text_dtype="float32")
    assert (chosen.dtype_name, chosen.text_dtype_name) == ("float16", "float32")
    assert (chosen.dtype, chosen.text_dtype()) == (torch.float16, torch.float32)
    cpu = load_backbone(source, device="cpu")
    assert (cpu.dtype_name, cpu.text_dtype_name) == ("float32", "float32")


def test_the_number_of_threads_is_set_before_anything_runs(small_wan: Path) -> None:
    load_backbone(find_model(str(small_wan)), device="cpu", threads=3).load_denoiser()
    assert torch.get_num_threads() == 3
    load_backbone(find_model(str(small_wan)), device="cpu").load_denoiser()
    assert torch.get_num_threads() == 3


def test_an_adapter_must_do_everything_that_attribution_needs() -> None:
    class Half(Backbone):
        def default_timestep(self) -> int:
            return 751

    with pytest.raises(TypeError, match="abstract"):
        Half(ModelSource("x", Path(), {}), torch.float32, torch.device("cpu"))  # type: ignore[abstract]
