"""The stages that turn clips into latents and captions into embeddings."""

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa

from motive.backbones.base import Backbone
from motive.clips.ingest import decode_unchanged
from motive.clips.sampling import FrameSampler
from motive.errors import ClipError
from motive.runs.stage import Stage
from motive.runs.tables import Row


def caption_id(caption: str) -> str:
    """16 hex digits of the caption's text."""
    return hashlib.blake2b(caption.encode(), digest_size=8).hexdigest()


class EncodeVideoStage(Stage):
    """Takes rows of key (clip id), file (`file_key`) and path; gives normalised latents."""

    name = "encode"
    table = "latents"
    schema = pa.schema([("shape", pa.list_(pa.int32())), ("latents", pa.list_(pa.float32()))])

    def __init__(self, backbone: Backbone, model: str, sampler: FrameSampler) -> None:
        self.backbone, self.model, self.sampler = backbone, model, sampler

    def fingerprint(self) -> str:
        return f"{self.model} posterior=mean"

    def open(self) -> None:
        self.backbone.load_vae()

    def close(self) -> None:
        self.backbone.unload()

    def prepare(self, row: Row) -> Row:
        return {**row, "decoded": decode_unchanged(row["file"], Path(row["path"]), self.sampler)}

    def process(self, row: Row) -> Row:
        latents = self.backbone.encode_video(row["decoded"].frames_fhw3).cpu().numpy()
        if not np.isfinite(latents).all():
            raise ClipError("the VAE's latents are not finite")
        return {"shape": np.asarray(latents.shape, np.int32), "latents": latents.ravel()}


class EncodeTextStage(Stage):
    """Takes rows of key (caption id) and caption; gives embeddings without their padding."""

    name = "encode text"
    table = "texts"
    schema = pa.schema([("shape", pa.list_(pa.int32())), ("embedding", pa.list_(pa.float32()))])

    def __init__(self, backbone: Backbone, model: str, prompt_length: int) -> None:
        self.backbone, self.model, self.prompt_length = backbone, model, prompt_length

    def fingerprint(self) -> str:
        return f"{self.model} length={self.prompt_length} {self.backbone.text_dtype()}"

    def open(self) -> None:
        self.backbone.load_text_encoder()

    def close(self) -> None:
        self.backbone.unload()

    def process(self, row: Row) -> Row:
        text = self.backbone.encode_text(row["caption"], self.prompt_length).cpu().numpy()
        return {"shape": np.asarray(text.shape, np.int32), "embedding": text.ravel()}
