"""What `motive doctor` says of a model that is too large for this machine, and of one that is not."""

import json
from pathlib import Path

import huggingface_hub
import pytest
import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel
from huggingface_hub.errors import LocalEntryNotFoundError
from peft import LoraConfig
from rich.console import Console

from motive.cli import main
from motive.doctor import Diagnosis, examine, machine
from motive.doctor.machine import Speed, batch_difference, calibrate
from motive.doctor.text import print_diagnosis
from motive.errors import UserError
from motive.runs.config import make_config


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wan2.1-T2V-1.3B's configurations, without a single weight."""
    folder = tmp_path_factory.mktemp("models") / "wan-1.3b"
    with torch.device("meta"):
        transformer = WanTransformer3DModel(num_attention_heads=12, num_layers=30, ffn_dim=8960)
        transformer.save_config(folder / "transformer")
        AutoencoderKLWan().save_config(folder / "vae")
    index = {
        "_class_name": "WanPipeline",
        "transformer": ["diffusers", "WanTransformer3DModel"],
        "vae": ["diffusers", "AutoencoderKLWan"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def diagnosis(model: Path, **settings: object) -> Diagnosis:
    """Without running anything on the device."""
    dotted = {name.replace("__", "."): value for name, value in settings.items()}
    config = make_config({"clips": "", "queries": "", "model": str(model), **dotted})
    return examine(config, calibrate=False)


@pytest.fixture(scope="module")
def found(large: Path) -> Diagnosis:
    return diagnosis(large, compute__device="cpu")


def test_an_estimator_of_many_draws_says_its_price(large: Path, found: Diagnosis) -> None:
    effect = diagnosis(large, compute__device="cpu", gradients__estimator="effect")
    assert (len(found.timesteps), found.query_passes, found.moments_passes) == (1, 1, 0)
    assert (len(effect.timesteps), effect.query_passes, effect.moments_passes) == (16, 32, 4)
    assert effect.flop_per_clip == 16 * found.flop_per_clip
    # 4 bytes for each parameter, and the largest gradient once more.
    added = effect.memory.total - found.memory.total
    assert added == 4 * found.parameters + found.memory.gradient
    half = diagnosis(
        large, compute__device="cpu", gradients__estimator="effect", gradients__draws=8
    )
    assert (len(half.timesteps), half.query_passes) == (8, 16)
    console = Console(record=True, width=120)
    print_diagnosis(effect, console)
    said = console.export_text()
    assert "16 passes for a clip, 32 for a query, and 4 more" in said
    assert "second moments" in said


def test_wan_21_1_3b_is_counted_without_weights(found: Diagnosis) -> None:
    assert (found.parameters, found.tensors) == (1_418_996_800, 825)
    assert found.chosen_parameters == found.parameters
    assert (found.frames, found.height, found.width) == (81, 480, 832)
    assert found.latent_cells == 21 * 60 * 104
    assert found.tokens == 32_760
    assert sum(found.memory.weights.values()) == 4 * found.parameters
    assert found.memory.gradient == 4 * 1536 * 9216 or found.memory.gradient == 4 * 8960 * 1536
    assert found.memory.projection < 10**6
    assert found.other_networks["vae"] == pytest.approx(508e6, rel=0.01)


def test_operations_of_wan_21_1_3b(found: Diagnosis) -> None:
    d, inner, tokens, text = 1536, 8960, 32_760, 512
    blocks = 30 * 2 * (tokens * (6 * d * d + 2 * d * inner) + text * 2 * d * d)
    attention = 30 * 4 * d * tokens * (tokens + text)
    assert found.flop_attention == attention
    assert found.flop_forward == pytest.approx(blocks + attention, rel=1e-3)
    # Of a clip this large, activations are computed again in the backward pass.
    assert found.recomputes
    assert found.flop_per_clip == 4 * found.flop_forward


def test_what_is_missing_is_said(found: Diagnosis) -> None:
    said = " ".join(found.missing)
    for part in ("transformer", "vae"):
        assert f"has no weights in its folder {part}" in said
    for part in ("text_encoder", "tokenizer", "scheduler"):
        assert f"has no folder {part}" in said


def test_settings_change_what_it_costs(large: Path, found: Diagnosis) -> None:
    small = diagnosis(
        large,
        compute__device="cpu",
        compute__dtype="bfloat16",
        sampling__frames=17,
        sampling__height=240,
        sampling__width=416,
        gradients__timestep=(200, 800),
        gradients__parameters="blocks.*.attn1.to_q.weight",
    )
    assert small.tokens == 5 * 15 * 26
    assert not small.recomputes
    assert small.flop_per_clip == 2 * 3 * small.flop_forward
    assert small.chosen_parameters == 30 * 1536 * 1536
    assert small.memory.gradient == 2 * 1536 * 1536
    assert small.memory.weights["bfloat16"] > 0.98 * sum(small.memory.weights.values())
    assert small.memory.total < found.memory.total / 2
    with pytest.raises(UserError, match="takes multiples of 16x16 pixels"):
        diagnosis(large, sampling__height=500, sampling__width=832)
    with pytest.raises(UserError, match="no parameter is called like 'lora"):
        diagnosis(large, gradients__parameters="lora*")


def test_a_trainers_objective_over_a_loras_factors(small_wan: Path, tmp_path: Path) -> None:
    model = WanTransformer3DModel.from_pretrained(small_wan / "transformer")
    model.add_adapter(LoraConfig(r=4, target_modules=["to_q", "to_v"]))
    model.save_lora_adapter(tmp_path)
    found = diagnosis(
        small_wan,
        compute__device="cpu",
        gradients__trainer="diffsynth",
        gradients__draws=3,
        finetuned__lora=str(tmp_path),
        finetuned__train="lora",
    )
    factors = [p for name, p in model.named_parameters() if ".lora_" in name]
    assert found.chosen_parameters == sum(p.numel() for p in factors)
    assert found.memory.gradient == 4 * max(p.numel() for p in factors)
    assert len(found.timesteps) == 3
    assert found.flop_per_clip == 3 * 3 * found.flop_forward
    with pytest.raises(UserError, match="there is no LoRA"):
        diagnosis(small_wan, finetuned__lora=str(tmp_path / "none"))


@pytest.mark.parametrize("gigabytes", [10, 16])
def test_what_it_advises_makes_it_fit(
    large: Path, monkeypatch: pytest.MonkeyPatch, gigabytes: int
) -> None:
    monkeypatch.setattr(machine, "memory_bytes", lambda device: gigabytes * 10**9)
    found = diagnosis(large, compute__device="cpu")
    assert not found.fits
    changes = [sentence.split()[:2] for sentence in found.advice]
    names = [name for name, _ in changes]
    assert names[-2:] == ["--frames", "--size"]
    for name, value in changes:
        if name == "--size":
            height, _, width = value.partition("x")
            settings = {"sampling__height": height, "sampling__width": width}
        else:
            settings = {{"--frames": "sampling__frames", "--dtype": "compute__dtype"}[name]: value}
        changed = diagnosis(large, compute__device="cpu", **settings)
        assert changed.memory.total < 1.03 * 0.9 * gigabytes * 10**9, name


def test_a_model_whose_weights_alone_do_not_fit(
    large: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "memory_bytes", lambda device: 10**8)
    found = diagnosis(large, compute__device="cpu")
    assert any("the vae alone has 507.6 MB" in sentence for sentence in found.advice)
    assert not any(sentence.startswith("--") for sentence in found.advice)


def test_a_person_can_read_it(found: Diagnosis) -> None:
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    print_diagnosis(found, console)
    text = console.export_text()
    for said in ("1,418,996,800", "825 tensors", "32,760", "283.00 TFLOP", "modelled", "not tried"):
        assert said in text, said


def test_the_command_prints_json(small_wan: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["doctor", str(small_wan), "--json", "--device", "cpu", "--clips", "7200"])
    assert end.value.code == 0
    said = json.loads(capsys.readouterr().out)
    assert said["parameters"] == sum(
        p.numel()
        for p in WanTransformer3DModel.from_pretrained(small_wan / "transformer").parameters()
    )
    assert said["missing"] == []
    assert said["fits"] is True
    assert said["advice"] == []
    assert set(said["other_networks"]) == {"vae", "text_encoder"}
    assert said["seconds_per_clip"] > 0
    assert said["hours"] == pytest.approx(2 * said["seconds_per_clip"])
    assert said["batch_difference"] < 1e-5
    parts = said["memory"]
    assert parts["total"] == sum(parts.pop("weights").values()) + sum(
        parts[name] for name in ("activations", "working", "gradient", "projection")
    )


def test_a_hub_id_that_cannot_be_fetched_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[list[str]] = []

    def offline(name: str, *, allow_patterns: list[str]) -> str:
        asked.append(allow_patterns)
        raise LocalEntryNotFoundError("no connection")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(["doctor", "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"])
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert (
        "there is no folder Wan-AI/Wan2.1-T2V-1.3B-Diffusers, and the hub does not give it" in said
    )
    assert len(said.splitlines()) == 1
    assert not any("safetensors" in pattern for pattern in asked[0])  # 28 GB for a few numbers


def test_a_batch_that_mixes_its_clips_is_noticed() -> None:
    torch.manual_seed(0)
    network = torch.nn.Linear(8, 8)
    clips = torch.randn(2, 4, 8)
    alone = lambda n: n(clips[:1])[0]  # noqa: E731
    assert batch_difference(network, alone, lambda n: n(clips)[0]) < 1e-6
    mixed = lambda n: (n(clips) - n(clips).mean(0))[0]  # noqa: E731
    assert batch_difference(network, alone, mixed) > 0.1


def test_a_calibration_gives_a_speed() -> None:
    cpu = torch.device("cpu")
    speed = calibrate(cpu, torch.float32, tokens=64, width=64, inner=128, heads=2)
    assert speed.linear > 1e6
    assert speed.attention > 1e6
    assert Speed(100.0, 10.0).seconds(200.0, 30.0) == 5.0
