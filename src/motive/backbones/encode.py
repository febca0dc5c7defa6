"""The stages that turn clips into latents and captions into embeddings."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from motive.backbones.base import Backbone
from motive.clips.ingest import decode_unchanged
from motive.clips.sampling import FrameSampler
from motive.errors import ClipError
from motive.runs.stage import Resources, Stage
from motive.runs.tables import Row

if TYPE_CHECKING:
    import torch


# Tensors by name, each flattened, with its shape.
TENSORS = pa.schema(
    [
        ("names", pa.list_(pa.string())),
        ("shapes", pa.list_(pa.list_(pa.int32()))),
        ("values", pa.list_(pa.list_(pa.float32()))),
    ]
)


def as_row(tensors: "Mapping[str, torch.Tensor]") -> Row:
    """Named float32 tensors as a row of `TENSORS`.

    Raises ClipError, naming the tensor, when a number is not finite.
    """
    arrays = {name: tensor.cpu().numpy() for name, tensor in tensors.items()}
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise ClipError(f"the encoder gives {name} that are not finite")
    return {
        "names": list(arrays),
        "shapes": [list(array.shape) for array in arrays.values()],
        "values": [array.ravel() for array in arrays.values()],
    }


def tensors_of(row: Row) -> "dict[str, torch.Tensor]":
    """The tensors that `as_row` made the row of."""
    import torch

    return {
        # Rows come read-only from the table; torch wants memory of its own.
        str(name): torch.from_numpy(np.array(values, np.float32).reshape(tuple(shape)))
        for name, shape, values in zip(row["names"], row["shapes"], row["values"], strict=True)
    }


def caption_id(caption: str) -> str:
    """16 hex digits of the caption's text."""
    return hashlib.blake2b(caption.encode(), digest_size=8).hexdigest()


class _EncodeStage(Stage):
    """One part of a pipeline over rows; it loads that part and nothing else."""

    backbone: Backbone

    @property
    def resources(self) -> Resources:
        return self.backbone.resources

    @property
    def places(self) -> list[Path]:
        return [self.backbone.source.path]

    def close(self) -> None:
        self.backbone.unload()


class EncodeVideoStage(_EncodeStage):
    """Takes rows of key (clip id), file (`file_key`) and path; gives normalised latents.

    posterior: what they are of the VAE's posterior, with the seed of a draw. The backbone does it.
    """

    name = "encode"
    table = "latents"
    schema = TENSORS

    def __init__(
        self, backbone: Backbone, model: str, sampler: FrameSampler, posterior: str = "mean"
    ) -> None:
        self.backbone, self.model, self.sampler = backbone, model, sampler
        self.posterior = posterior

    def fingerprint(self) -> str:
        return f"{self.model} posterior={self.posterior}"

    def open(self) -> None:
        self.backbone.load_vae()

    def prepare(self, row: Row) -> Row:
        return {**row, "decoded": decode_unchanged(row["file"], Path(row["path"]), self.sampler)}

    def process(self, row: Row) -> Row:
        return as_row(self.backbone.encode_video(row["decoded"].frames_fhw3))


class EncodeTextStage(_EncodeStage):
    """Takes rows of key (caption id) and caption; gives embeddings without their padding."""

    name = "encode text"
    table = "texts"
    schema = TENSORS

    def __init__(self, backbone: Backbone, model: str, prompt_length: int) -> None:
        self.backbone, self.model, self.prompt_length = backbone, model, prompt_length

    def fingerprint(self) -> str:
        return f"{self.model} length={self.prompt_length} torch.{self.backbone.text_dtype_name}"

    def open(self) -> None:
        self.backbone.load_text_encoder()

    def process(self, row: Row) -> Row:
        return as_row(self.backbone.encode_text(row["caption"], self.prompt_length))
