"""The encoding stages: stored rows are the adapter's latents and embeddings again."""

from pathlib import Path

import numpy as np
import pytest
import torch

from motive.backbones import load_backbone
from motive.backbones.base import Backbone
from motive.backbones.encode import EncodeTextStage, EncodeVideoStage, caption_id, tensors_of
from motive.backbones.source import find_model
from motive.clips.decoding import decode_clip
from motive.clips.ingest import file_key
from motive.runs.stage import Failure
from motive.runs.tables import Row, Table


@pytest.fixture
def backbone(small_wan: Path) -> Backbone:
    return load_backbone(find_model(str(small_wan)), dtype="float32", device="cpu")


def row_for(path: Path) -> Row:
    return {"key": "clip", "file": file_key(path), "path": str(path)}


def test_stored_latents_are_the_adapters(backbone: Backbone, zoo: Path, tmp_path: Path) -> None:
    path = zoo / "clips/000003.mp4"
    stage = EncodeVideoStage(backbone, "model", backbone.default_sampler())
    stage.open()
    (row,) = stage([row_for(path)])
    expected = backbone.encode_video(decode_clip(path, stage.sampler).frames_fhw3)
    stage.close()
    assert isinstance(row, dict)
    table = Table(tmp_path / "latents.lance", stage.schema)
    table.append([row])
    (stored,) = table.rows(stage.fingerprint())
    (read,) = tensors_of(stored).values()
    assert read.shape == (16, 3, 4, 4)
    assert torch.equal(read, expected["latents"])


def test_closing_lets_the_vae_go(backbone: Backbone) -> None:
    stage = EncodeVideoStage(backbone, "model", backbone.default_sampler())
    stage.open()
    stage.close()
    with pytest.raises(AssertionError, match="load_vae first"):
        backbone.encode_video(np.zeros((1, 32, 32, 3), np.uint8))


def test_latents_that_are_not_finite_are_a_failure(
    backbone: Backbone, zoo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        backbone, "encode_video", lambda frames: {"latents": torch.full((16, 3, 4, 4), np.nan)}
    )
    stage = EncodeVideoStage(backbone, "model", backbone.default_sampler())
    outcome = stage.attempt(row_for(zoo / "clips/000000.mp4"))
    assert outcome == Failure("clip", "the encoder gives latents that are not finite")


def test_a_file_that_changed_since_ingest_is_a_failure(backbone: Backbone, zoo: Path) -> None:
    stage = EncodeVideoStage(backbone, "model", backbone.default_sampler())
    row = row_for(zoo / "clips/000000.mp4") | {"file": "another time"}
    outcome = stage.attempt(row)
    assert isinstance(outcome, Failure)
    assert "changed after it was ingested" in outcome.reason


def test_stored_text_is_the_adapters(backbone: Backbone, tmp_path: Path) -> None:
    stage = EncodeTextStage(backbone, "model", 24)
    stage.open()
    rows = stage([{"key": caption_id(c), "caption": c} for c in ("a ball", "")])
    expected = backbone.encode_text("a ball", 24)
    stage.close()
    table = Table(tmp_path / "texts.lance", stage.schema)
    table.append([r for r in rows if isinstance(r, dict)])
    stored = table.lookup([caption_id("a ball"), caption_id("")], stage.fingerprint())
    ball = stored[caption_id("a ball")]
    assert torch.equal(tensors_of(ball)["text"], expected["text"])
    assert tensors_of(stored[caption_id("")])["text"].shape == (1, 16)


def test_captions_have_ids_and_settings_have_fingerprints(backbone: Backbone) -> None:
    ids = {caption_id(c) for c in ("", "a", "A", "a ", "ä")}
    assert len(ids) == 5
    assert all(len(i) == 16 for i in ids)
    assert caption_id("a ball") == caption_id("a ball")
    sampler = backbone.default_sampler()
    prints = {
        EncodeVideoStage(backbone, "one", sampler).fingerprint(),
        EncodeVideoStage(backbone, "two", sampler).fingerprint(),
        EncodeTextStage(backbone, "one", 24).fingerprint(),
        EncodeTextStage(backbone, "two", 24).fingerprint(),
        EncodeTextStage(backbone, "one", 25).fingerprint(),
    }
    assert len(prints) == 5
