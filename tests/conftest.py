"""Fixtures that several test modules share."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ray_server import ray_cluster
from s3_server import S3Server

# Before torch is imported, and for every process that a test starts: models this small compute on one
# thread in less time than two spend waiting for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Every test begins with one torch thread, whatever the one before it or the environment set."""
    torch = sys.modules.get("torch")  # a test that needs no torch does not wait for its import
    if torch is not None:
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of clips, specifications and golden vectors that lies beside the checkout.

    Users do not have it: without it these tests skip, but where CI is set its absence is a failure.
    """
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        if os.environ.get("CI"):
            pytest.fail(f"{folder} is missing, and CI is set")
        pytest.skip(f"{folder} is not there")
    return folder


@pytest.fixture(scope="session")
def small_wan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A WanPipeline folder with random weights, as small as its real classes allow.

    Saved by diffusers and transformers in their own format; takes up to 9 frames of 32 × 32 pixels.
    """
    import torch
    from diffusers import (
        AutoencoderKLWan,
        FlowMatchEulerDiscreteScheduler,
        WanPipeline,
        WanTransformer3DModel,
    )
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

    torch.manual_seed(0)
    letters = {"<pad>": 0, "</s>": 1, "<unk>": 2} | {chr(c): c - 94 for c in range(97, 123)}
    core = Tokenizer(models.WordLevel(letters, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    core.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    pipeline = WanPipeline(
        tokenizer=PreTrainedTokenizerFast(
            tokenizer_object=core, pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
            model_max_length=24,
        ),
        text_encoder=UMT5EncoderModel(
            UMT5Config(
                vocab_size=32, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2,
                pad_token_id=0, eos_token_id=1,
            )
        ),
        vae=AutoencoderKLWan(
            base_dim=4, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1,
            temperal_downsample=[False, True, True],
        ),
        transformer=WanTransformer3DModel(
            patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=16,
            out_channels=16, text_dim=16, freq_dim=16, ffn_dim=32, num_layers=2,
            cross_attn_norm=True, qk_norm="rms_norm_across_heads", rope_max_seq_len=32,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("models") / "small-wan"
    pipeline.save_pretrained(folder)
    (folder / "motive.json").write_text('{"frames": 9, "height": 32, "width": 32}')
    return folder


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fourteen rendered clips, one of each kind, with metadata.csv and their true motion."""
    from motive.zoo.render import render_corpus

    folder = tmp_path_factory.mktemp("zoo") / "corpus"
    render_corpus(folder, 14, seed=3)
    return folder


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """An S3-compatible server on this machine, without buckets."""
    server = S3Server()
    yield server
    server.close()


@pytest.fixture(scope="session")
def ray_address(s3: S3Server) -> Iterator[str]:
    """A Ray cluster of this machine: two CPUs, which find the S3-compatible server."""
    with ray_cluster(s3.environment) as address:
        yield address
