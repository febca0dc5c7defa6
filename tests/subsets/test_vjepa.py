"""The V-JEPA 2 baseline, on a small model that transformers itself saved."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import VJEPA2Config, VJEPA2Model

from motive import Run, UserError
from motive.clips.decoding import decode_clip
from motive.results import used_queries
from motive.subsets import choose_subset
from motive.subsets.vjepa import VjepaStage, clip_embeddings

CROP, FRAMES = 32, 4
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)


@pytest.fixture(scope="module")
def vjepa(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    config = VJEPA2Config(
        patch_size=8, crop_size=CROP, frames_per_clip=FRAMES, hidden_size=24, num_hidden_layers=2,
        num_attention_heads=2, pred_hidden_size=12, pred_num_attention_heads=2,
        pred_num_hidden_layers=1, num_pooler_layers=1,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("vjepa") / "model"
    VJEPA2Model(config).save_pretrained(folder)
    (folder / "video_preprocessor_config.json").write_text(
        json.dumps(
            {"crop_size": {"height": CROP, "width": CROP}, "size": {"shortest_edge": 36},
             "image_mean": MEAN, "image_std": STD, "resample": 2}
        )
    )  # fmt: skip
    return folder


def test_embeddings_are_the_models_mean_token(run: Run, vjepa: Path) -> None:
    """Against frames that Pillow resized, through the model alone."""
    from PIL import Image

    clips = list(run.featured("clip"))[:3]
    found = clip_embeddings(run, str(vjepa), clips, used_queries(run).members)
    model = VJEPA2Model.from_pretrained(vjepa).eval()
    for clip in clips:
        frames = decode_clip(Path(clip.path), run.sampler).frames_fhw3
        chosen = np.round(np.linspace(0, len(frames) - 1, FRAMES)).astype(int)
        images = [
            np.asarray(Image.fromarray(frames[i]).resize((36, 36), Image.Resampling.BILINEAR))
            for i in chosen
        ]
        pixels = np.stack(images)[:, 2:34, 2:34].astype(np.float32) / 255
        pixels = ((pixels - MEAN) / STD).astype(np.float32).transpose(0, 3, 1, 2)
        with torch.inference_mode():
            tokens = model.get_vision_features(torch.from_numpy(pixels)[None])[0]
        expected = tokens.mean(0) / tokens.mean(0).norm()
        # Pillow and torch may round a byte apart.
        assert np.dot(found[clip.clip_id], expected.numpy()) > 0.9999
        assert np.linalg.norm(found[clip.clip_id]) == pytest.approx(1, abs=1e-6)


def test_the_subset_is_resumable_and_of_the_models_weights(
    run: Run, vjepa: Path, tmp_path: Path
) -> None:
    subset = choose_subset(run, "embedding", embedding_model=str(vjepa))
    assert len(subset.clip_ids) == 4
    table = run.store.table("embeddings", VjepaStage.schema)
    count = table.count()
    assert count == len(run.featured("clip"))  # the queries are among the clips
    assert choose_subset(Run.open(run.path), "embedding", embedding_model=str(vjepa)) == subset
    assert table.count() == count
    other = Path(shutil.copytree(vjepa, tmp_path / "other"))
    torch.manual_seed(1)
    VJEPA2Model(VJEPA2Config.from_pretrained(vjepa)).save_pretrained(other)
    choose_subset(run, "embedding", embedding_model=str(other))
    assert table.count() == 2 * count


def test_a_clip_that_cannot_be_embedded_is_a_failure_and_not_chosen(run: Run, vjepa: Path) -> None:
    clips = [m for m in run.featured("clip") if m.clip_id not in run.usable("query")]
    file = Path(clips[0].path)
    before = file.stat()
    file.touch()  # changed since it was ingested
    try:
        subset = choose_subset(run, "embedding", embedding_model=str(vjepa), fraction=1.0)
    finally:
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert clips[0].clip_id not in subset.clip_ids
    assert len(subset.clip_ids) == len(run.featured("clip")) - 1
    assert "1 clips have no embedding" in subset.note
    failed = [r for r in run.store.failures.rows() if r["stage"] == "embed"]
    assert [r["key"] for r in failed] == [clips[0].clip_id]


@pytest.mark.parametrize(
    ("frames", "expected"),
    [(1, [0]), (2, [0, 1]), (3, [0, 2]), (5, [0, 1, 3, 4]), (9, [0, 3, 5, 8])],
)
def test_which_frames_it_sees(run: Run, vjepa: Path, frames: int, expected: list[int]) -> None:
    assert VjepaStage(vjepa, run.sampler).chosen(frames).tolist() == expected


def test_folders_that_are_no_such_model(run: Run, vjepa: Path, tmp_path: Path) -> None:
    def refused(folder: Path, words: str) -> None:
        with pytest.raises(UserError, match=words):
            choose_subset(run, "embedding", embedding_model=str(folder))

    refused(tmp_path / "nowhere", "there is no folder")
    empty = tmp_path / "empty"
    empty.mkdir()
    refused(empty, "cannot be read as JSON")
    (empty / "config.json").write_text('{"model_type": "vit"}')
    refused(empty, "holds no V-JEPA 2 model")
    (empty / "config.json").write_text('{"model_type": "vjepa2"}')
    refused(empty, "has no weights")
    spoilt = Path(shutil.copytree(vjepa, tmp_path / "spoilt"))
    (spoilt / "video_preprocessor_config.json").write_text('{"do_resize": false}')
    refused(spoilt, "asks for other preprocessing")
    (spoilt / "video_preprocessor_config.json").unlink()
    (spoilt / "model.safetensors").write_bytes(b"1234")
    refused(spoilt, "cannot be loaded")
