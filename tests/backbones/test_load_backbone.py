"""Which adapter a model gets, and what is refused before anything is loaded."""

from pathlib import Path

import pytest
import torch

from motive.backbones import load_backbone
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
        ({"_class_name": "LTXPipeline"}, "is a LTXPipeline pipeline, which has no adapter yet"),
        ({"_class_name": "WanImageToVideoPipeline"}, "WanImageToVideoPipeline pipeline"),
        ({}, "is a nameless pipeline"),
        ({"_class_name": "WanPipeline", "expand_timesteps": True}, "is a Wan 2.2 pipeline"),
        ({"_class_name": "WanPipeline", "boundary_ratio": 0.875}, "is a Wan 2.2 pipeline"),
    ],
)
def test_a_model_that_is_no_wan_21_is_refused(
    tmp_path: Path, index: dict[str, object], says: str
) -> None:
    with pytest.raises(UserError) as error:
        load_backbone(ModelSource("that one", tmp_path, index))
    assert str(error.value).startswith("that one ")
    assert says in str(error.value)
    assert ": use " in str(error.value)


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
        load_backbone(find_model(str(small_wan)), **options)


def test_an_adapter_must_do_everything_that_attribution_needs() -> None:
    class Half(Backbone):
        def default_timestep(self) -> int:
            return 751

    with pytest.raises(TypeError, match="abstract"):
        Half(ModelSource("x", Path(), {}), torch.float32, torch.device("cpu"))  # type: ignore[abstract]
