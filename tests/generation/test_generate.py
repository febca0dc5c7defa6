"""Videos from real pipelines of diffusers, as small as these allow, and going on with them."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from motive.backbones import load_backbone
from motive.backbones.source import find_model
from motive.commands.generate import generate as command
from motive.errors import UserError
from motive.evaluation.video import read_video
from motive.generation import generate
from motive.generation.pipeline import noise_seed, pipeline_class
from motive.generation.settings import Asked, call_parameters, settle
from motive.generation.video_file import exact_rate, is_whole_video, write_video

PROMPTS = ["a cat", "a dog"]


def made(model: Path, out: Path, prompts: list[str] = PROMPTS, **options: Any) -> list[Path]:
    settings = {"seeds": 2, "steps": 2, "device": "cpu"} | options
    return generate(str(model), prompts, out, **settings)


def contents(videos: list[Path]) -> dict[str, bytes]:
    return {video.name: video.read_bytes() for video in videos}


@pytest.fixture(scope="module")
def folder(small_wan: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two prompts, two videos of each."""
    out = tmp_path_factory.mktemp("generated") / "videos"
    made(small_wan, out)
    return out


def test_names_frames_and_rate(small_wan: Path, folder: Path) -> None:
    names = [f"{prompt}-{i}.mp4" for prompt in PROMPTS for i in (0, 1)]
    assert [video.name for video in made(small_wan, folder)] == names
    for name in names:
        video = read_video(folder / name)
        assert video.frames_fhw3.shape == (9, 32, 32, 3)
        assert video.fps == 16
    assert sorted(f.name for f in folder.iterdir()) == sorted([*names, "generation.json"])


def test_the_record_tells_the_videos_and_their_prompts(folder: Path) -> None:
    record = json.loads((folder / "generation.json").read_text())
    assert record["videos"] == [
        {"file_name": f"{prompt}-{i}.mp4", "prompt": prompt, "seed": i}
        for prompt in PROMPTS
        for i in (0, 1)
    ]
    settings = record["settings"]
    assert (settings["steps"], settings["frames"], settings["fps"]) == (2, 9, 16)
    assert settings["guidance"] == 5.0
    assert "crf=12" in settings["encoding"]


def test_a_video_depends_on_nothing_else_that_is_asked_for(
    small_wan: Path, folder: Path, tmp_path: Path
) -> None:
    (alone,) = made(small_wan, tmp_path / "alone", ["a dog"], seeds=1)
    assert alone.read_bytes() == (folder / alone.name).read_bytes()
    whole = contents(made(small_wan, folder))
    assert len(set(whole.values())) == len(whole)


def test_what_is_there_is_not_made_again(small_wan: Path, folder: Path) -> None:
    videos = made(small_wan, folder)
    before, times = contents(videos), [video.stat().st_mtime_ns for video in videos]
    made(small_wan, folder)
    assert [video.stat().st_mtime_ns for video in videos] == times
    videos[1].write_bytes(before[videos[1].name][:-200])
    videos[2].unlink()
    made(small_wan, folder)
    assert contents(videos) == before
    now = [video.stat().st_mtime_ns for video in videos]
    assert (now[0], now[3]) == (times[0], times[3])
    # More of them are added to the same folder.
    made(small_wan, folder, ["a bird"], seeds=1)
    record = json.loads((folder / "generation.json").read_text())
    assert len(record["videos"]) == 5
    (folder / "a bird-0.mp4").unlink()
    made(small_wan, folder)


def test_other_settings_are_refused_by_name(small_wan: Path, folder: Path, tmp_path: Path) -> None:
    before = contents(sorted(folder.glob("*.mp4")))
    with pytest.raises(
        UserError, match=r"guidance is 5.0 there and 3.0 now; steps is 2 there and 3"
    ):
        made(small_wan, folder, steps=3, guidance=3.0)
    other = find_model(str(small_wan)).path
    copy = tmp_path / "other"
    copy.mkdir()
    for part in other.iterdir():
        (copy / part.name).symlink_to(part)
    (copy / "scheduler").unlink()
    (copy / "scheduler").mkdir()
    config = json.loads((other / "scheduler" / "scheduler_config.json").read_text())
    (copy / "scheduler" / "scheduler_config.json").write_text(json.dumps(config | {"shift": 5.0}))
    with pytest.raises(UserError, match=r"weights is .* there and .* now"):
        made(copy, folder)
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "film.mp4").write_bytes(b"film")
    with pytest.raises(UserError, match="videos of another origin"):
        made(small_wan, foreign)
    assert contents(sorted(folder.glob("*.mp4"))) == before


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"frames": 8}, r"1 \+ 4k frames, not of 8: use another --frames, such as 5"),
        ({"height": 40, "width": 30}, "takes multiples of 16x16 pixels"),
        ({"steps": 0}, "--steps 0 is wrong"),
        ({"fps": -1.0}, "--fps -1 is wrong"),
        ({"seeds": 0}, "--seeds 0 is wrong"),
        ({"images": "."}, "begins with no picture"),
        ({"prompts": []}, "there is no prompt"),
        ({"prompts": ["a/b"]}, "cannot be file names"),
        ({"device": "cuda:77"}, "the device cuda:77 is not there"),
    ],
)
def test_what_is_refused_is_refused_before_anything_is_written(
    small_wan: Path, tmp_path: Path, options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        made(small_wan, tmp_path / "out", **options)
    assert not list(tmp_path.glob("out/*.mp4"))


KILLED = """
import os, signal, sys
from motive.generation import generate

done = 0
def hook(event, arguments):
    global done
    if event == "os.rename" and str(arguments[1]).endswith(".mp4"):
        done += 1
        if done == 3:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
generate(sys.argv[1], ["a cat", "a dog"], sys.argv[2], 2, steps=2, device="cpu")
"""


def test_goes_on_after_a_kill(small_wan: Path, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    words = [sys.executable, "-c", KILLED, str(small_wan), str(out)]
    done = subprocess.run(words, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list(out.glob("*.mp4"))) == 2
    assert len(list(out.glob(".*.part"))) == 1
    known = json.loads((out / "generation.json").read_text())["videos"]
    assert [entry["file_name"] for entry in known] == ["a cat-0.mp4", "a cat-1.mp4"]
    whole = contents(made(small_wan, folder))
    assert contents(made(small_wan, out)) == whole
    assert not list(out.glob(".*.part"))
    records = [json.loads((f / "generation.json").read_text())["videos"] for f in (out, folder)]
    assert records[0] == records[1]


def test_a_lora_changes_the_videos_and_their_record(
    small_wan: Path, folder: Path, tmp_path: Path
) -> None:
    peft = pytest.importorskip("peft")
    from diffusers import WanPipeline
    from peft.utils import get_peft_model_state_dict

    pipeline = WanPipeline.from_pretrained(small_wan)
    pipeline.transformer.add_adapter(
        peft.LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "to_v"], init_lora_weights=False)
    )
    factors = get_peft_model_state_dict(pipeline.transformer)
    WanPipeline.save_lora_weights(tmp_path / "lora", transformer_lora_layers=factors)
    (video,) = made(small_wan, tmp_path / "out", ["a cat"], seeds=1, lora=str(tmp_path / "lora"))
    assert video.read_bytes() != (folder / video.name).read_bytes()
    with pytest.raises(UserError, match="weights is"):
        made(small_wan, tmp_path / "out", ["a cat"], seeds=1)


def test_out_that_is_a_file_is_refused(small_wan: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(UserError, match="out is a file: choose another --out"):
        made(small_wan, tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


@pytest.fixture(scope="module")
def image_model(small_wan: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The image-to-video pipeline that the small text-to-video one's parts make."""
    from diffusers import WanImageToVideoPipeline, WanPipeline, WanTransformer3DModel

    parts = WanPipeline.from_pretrained(small_wan)
    torch.manual_seed(1)
    transformer = WanTransformer3DModel.from_config({**parts.transformer.config, "in_channels": 36})
    pipeline = WanImageToVideoPipeline(
        tokenizer=parts.tokenizer, text_encoder=parts.text_encoder, vae=parts.vae,
        scheduler=parts.scheduler, transformer=transformer, image_encoder=None, image_processor=None,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("models") / "small-wan-image"
    pipeline.save_pretrained(folder)
    (folder / "motive.json").write_text('{"frames": 5, "height": 32, "width": 32}')
    return folder


def test_an_image_to_video_model_begins_with_the_prompts_picture(
    image_model: Path, tmp_path: Path
) -> None:
    from PIL import Image

    with pytest.raises(UserError, match="is an image-to-video model: give --images"):
        made(image_model, tmp_path / "out")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.new("RGB", (64, 48), (200, 30, 30)).save(pictures / "a cat.png")
    with pytest.raises(UserError, match="no picture for 1 of 2 prompts, such as 'a dog'"):
        made(image_model, tmp_path / "out", images=pictures)
    (video,) = made(image_model, tmp_path / "out", ["a cat"], seeds=1, images=pictures)
    red = read_video(video).frames_fhw3
    assert red.shape == (5, 32, 32, 3)
    # Another picture under the same name would be another video.
    Image.new("RGB", (64, 48), (30, 30, 200)).save(pictures / "a cat.png")
    with pytest.raises(UserError, match="was made from another picture"):
        made(image_model, tmp_path / "out", ["a cat"], seeds=1, images=pictures)
    (blue,) = made(image_model, tmp_path / "blue", ["a cat"], seeds=1, images=pictures)
    assert np.abs(read_video(blue).frames_fhw3.astype(int) - red).mean() > 1
    # The advice holds: a video that was removed is made from the new picture.
    red_bytes = video.read_bytes()
    video.unlink()
    made(image_model, tmp_path / "out", ["a cat"], seeds=1, images=pictures)
    assert video.read_bytes() == blue.read_bytes() != red_bytes
    # A kill between a video and its record leaves one of which it is not known what it was made from.
    video.write_bytes(red_bytes)
    file = tmp_path / "out" / "generation.json"
    record = json.loads(file.read_text())
    file.write_text(json.dumps(record | {"videos": []}))
    made(image_model, tmp_path / "out", ["a cat"], seeds=1, images=pictures)
    assert video.read_bytes() == blue.read_bytes()
    assert json.loads(file.read_text()) == record


def test_tiny_wans_own_settings() -> None:
    backbone = load_backbone(find_model("tiny-wan"), device="cpu")
    parameters = call_parameters(pipeline_class(backbone.source))
    found = settle(Asked(), backbone, parameters)
    assert (found.frames, found.height, found.width) == (33, 64, 64)
    assert (found.steps, found.fps, found.guidance) == (20, 16.0, 5.0)
    asked = Asked(steps=4, frames=9, guidance=1.0, fps=12.5, negative_prompt="blur")
    found = settle(asked, backbone, parameters)
    assert (found.steps, found.frames, found.guidance, found.fps) == (4, 9, 1.0, 12.5)
    assert found.negative_prompt == "blur"


def test_noise_is_of_the_prompt_and_its_number_alone() -> None:
    seeds = {noise_seed(prompt, i) for prompt in ("a", "a0", "0a", "") for i in range(25)}
    assert len(seeds) == 100
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert noise_seed("a cat", 0) == 3566743826402710589


@pytest.mark.parametrize("fps", [8, 16, 23.976, 29.97, 12.5])
def test_the_rate_is_exact(tmp_path: Path, fps: float) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (7, 32, 48, 3)).astype(np.uint8)
    write_video(tmp_path / "v.mp4", frames, fps)
    with av.open(str(tmp_path / "v.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == exact_rate(fps)
        assert float(exact_rate(fps)) == pytest.approx(fps, abs=1e-3)
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
    assert is_whole_video(tmp_path / "v.mp4", 7)
    assert not is_whole_video(tmp_path / "v.mp4", 8)
    assert not is_whole_video(tmp_path / "none.mp4", 7)
    whole = (tmp_path / "v.mp4").read_bytes()
    for length in (0, 4, 40, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.mp4").write_bytes(whole[:length])
        assert not is_whole_video(tmp_path / "cut.mp4", 7)


def test_smooth_pictures_survive_the_file(tmp_path: Path) -> None:
    y, x = np.mgrid[:64, :64]
    shades = np.stack([[x * 3 + f, y * 3 + f, x + y] for f in range(9)]).transpose(0, 2, 3, 1)
    write_video(tmp_path / "v.mp4", shades.astype(np.uint8), 16)
    off = read_video(tmp_path / "v.mp4").frames_fhw3.astype(float) - shades
    assert np.sqrt((off**2).mean()) < 3
    with pytest.raises(UserError, match="even sizes, not 33x32"):
        write_video(tmp_path / "odd.mp4", np.zeros((2, 33, 32, 3), np.uint8), 16)


def test_the_command(small_wan: Path, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a cat\na dog\na cat\n")
    app = typer.Typer()
    app.command()(command)
    words = ["--model", str(small_wan), "--prompts", str(tmp_path / "prompts.txt"), "--quiet"]
    words += ["--out", str(folder), "--seeds", "2", "--steps", "2", "--size", "32x32"]
    words += ["--frames", "9", "--device", "cpu"]
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0
    assert done.stdout == f"4 videos in {folder}\n"
