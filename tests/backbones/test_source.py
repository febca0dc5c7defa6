"""Finding a model, and telling one from another by its files."""

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest
from diffusers import WanTransformer3DModel
from huggingface_hub.errors import LocalEntryNotFoundError
from huggingface_hub.utils import filter_repo_objects

from motive.backbones.source import ComponentKind, ModelSource, file_digest, find_model
from motive.errors import UserError


@pytest.fixture
def model(small_wan: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_wan, tmp_path / "model"))


def test_a_folder_is_found_and_described(small_wan: Path) -> None:
    source = find_model(str(small_wan))
    assert source.pipeline_class == "WanPipeline"
    assert source.path == small_wan.resolve()
    assert source.config("scheduler")["shift"] == 3.0
    assert source.config("tokenizer")["model_max_length"] == 24
    assert source.config("no such part") == {}
    assert source.recommended() == {"frames": 9, "height": 32, "width": 32}


def break_index(model: Path) -> str:
    (model / "model_index.json").unlink()
    return "is no diffusers pipeline (it has no model_index.json)"


def break_json(model: Path) -> str:
    (model / "model_index.json").write_text('{"_class_name": ')
    return "cannot be read as JSON"


def break_object(model: Path) -> str:
    (model / "model_index.json").write_text("[]")
    return "holds no JSON object"


def remove(model: Path) -> str:
    shutil.rmtree(model)
    return "there is no model folder"


@pytest.mark.parametrize("harm", [break_index, break_json, break_object, remove])
def test_what_is_no_pipeline_is_refused(model: Path, harm: Callable[[Path], str]) -> None:
    says = harm(model)
    with pytest.raises(UserError) as error:
        find_model(str(model))
    assert says in str(error.value)
    assert str(model) in str(error.value)


def test_a_damaged_configuration_is_refused(model: Path) -> None:
    (model / "vae/config.json").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"vae/config\.json cannot be read as JSON"):
        find_model(str(model)).config("vae")


@pytest.mark.parametrize("name", ["./wan", "../wan", "/wan", "~/no-such-folder", "wan", "a/b/c"])
def test_a_name_that_cannot_be_on_the_hub_is_not_asked_for(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def asked(*_: object, **__: object) -> str:
        raise AssertionError("the hub was asked")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", asked)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="there is no model folder"):
        find_model(name)


def test_a_hub_model_comes_with_every_file_that_it_needs(
    small_wan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub's own filter decides what of the repository arrives."""
    repository = tmp_path / "repository"
    shutil.copytree(small_wan, repository)
    (repository / "README.md").write_text("a card")
    (repository / "transformer/diffusion_pytorch_model.bin").write_bytes(b"a pickle")

    def download(name: str, *, allow_patterns: list[str]) -> str:
        assert name == "Wan-AI/Wan2.1"
        names = [p.relative_to(repository).as_posix() for p in repository.rglob("*") if p.is_file()]
        for file in filter_repo_objects(names, allow_patterns=allow_patterns):
            (tmp_path / "cache" / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(repository / file, tmp_path / "cache" / file)
        return str(tmp_path / "cache")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.chdir(tmp_path)
    source = find_model("Wan-AI/Wan2.1")
    assert (source.name, source.pipeline_class) == ("Wan-AI/Wan2.1", "WanPipeline")
    assert source.fingerprint() == find_model(str(small_wan)).fingerprint()
    assert not (source.path / "README.md").exists()
    assert not list(source.path.rglob("*.bin"))


def test_a_hub_that_does_not_answer_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*_: object, **__: object) -> str:
        raise LocalEntryNotFoundError("no connection\nand a long story")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        find_model("owner/name")
    assert "no folder owner/name" in str(error.value)
    assert "(no connection)" in str(error.value)
    assert "long story" not in str(error.value)


def test_the_fingerprint_is_of_the_components_files(model: Path) -> None:
    source = find_model(str(model))
    before = source.fingerprint()
    assert len(before) == 20
    # Neither the place nor what is no part of the pipeline counts.
    (model / "README.md").write_text("a card")
    (model / "examples").mkdir()
    (model / "examples/config.json").write_text("{}")
    moved = Path(shutil.copytree(model, model.parent / "elsewhere"))
    assert find_model(str(moved)).fingerprint() == before
    seen = {before}
    for name in (
        "transformer/diffusion_pytorch_model.safetensors", "transformer/config.json",
        "vae/config.json", "text_encoder/model.safetensors", "scheduler/scheduler_config.json",
    ):  # fmt: skip
        content = bytearray((model / name).read_bytes())
        content[-2] ^= 1
        (model / name).write_bytes(content)
        seen.add(source.fingerprint())
    assert len(seen) == 6
    (model / "transformer/config.json").rename(model / "transformer/other.json")
    assert source.fingerprint() not in seen


# --- whole or not


def test_a_whole_model_lacks_nothing(small_wan: Path) -> None:
    source = find_model(str(small_wan))
    for part in ("transformer", "vae", "text_encoder"):
        source.require(part, "network")
        assert [file.is_file() for file in source.weights(part)] == [True]
    source.require("tokenizer", "tokenizer")
    source.require("scheduler", "settings")


def in_shards(folder: Path) -> list[Path]:
    """Saves the transformer again in several files; returns them."""
    WanTransformer3DModel.from_pretrained(folder).save_pretrained(folder, max_shard_size="50KB")
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    return sorted(folder.glob("*.safetensors"))


def test_a_model_in_several_files_needs_all_of_them(model: Path) -> None:
    files = in_shards(model / "transformer")
    assert len(files) > 1
    source = find_model(str(model))
    source.require("transformer", "network")
    assert source.weights("transformer") == [file.resolve() for file in files]
    files[1].unlink()
    with pytest.raises(UserError, match=f"has no whole transformer/{files[1].name}"):
        source.require("transformer", "network")
    source.require("transformer", "network", weights=False)


def test_a_list_of_files_names_none_outside_the_folder(model: Path) -> None:
    in_shards(model / "transformer")
    (listed,) = (model / "transformer").glob("*.index.json")
    listed.write_text('{"weight_map": {"a": "../vae/diffusion_pytorch_model.safetensors"}}')
    source = find_model(str(model))
    assert [file.parent.name for file in source.weights("transformer")] == ["transformer"]
    for content in ('{"weight_map": {}}', '{"weight_map": 3}', "{}"):
        listed.write_text(content)
        with pytest.raises(UserError, match="names no weights"):
            source.require("transformer", "network")


def cut_header(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:5])


def cut_numbers(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


def lfs_pointer(file: Path) -> None:
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")


def no_object(file: Path) -> None:
    file.write_bytes(struct.pack("<Q", 2) + b"[]")


def no_entries(file: Path) -> None:
    file.write_bytes(struct.pack("<Q", 10) + b'{"a": 3}  ')


@pytest.mark.parametrize("harm", [cut_header, cut_numbers, lfs_pointer, no_object, no_entries])
def test_weights_that_are_not_whole(model: Path, harm: Callable[[Path], None]) -> None:
    harm(model / "vae/diffusion_pytorch_model.safetensors")
    with pytest.raises(UserError, match=r"has no whole vae/diffusion_pytorch_model\.safetensors"):
        find_model(str(model)).require("vae", "network")


@pytest.mark.parametrize(
    ("part", "kind", "lost", "says"),
    [
        ("vae", "network", ["config.json"], "has no configuration in its folder vae"),
        ("scheduler", "settings", ["scheduler_config.json"], "no configuration in its folder sch"),
        ("tokenizer", "tokenizer", ["tokenizer.json"], "has no vocabulary in its folder tokenizer"),
    ],
)
def test_a_part_without_what_describes_it(
    model: Path, part: str, kind: ComponentKind, lost: list[str], says: str
) -> None:
    for name in lost:
        (model / part / name).unlink()
    with pytest.raises(UserError, match=says):
        find_model(str(model)).require(part, kind)


def test_digests_may_come_from_a_cache(small_wan: Path) -> None:
    source = find_model(str(small_wan))
    asked: list[Path] = []

    def cached(file: Path) -> str:
        asked.append(file)
        return file_digest(file)

    assert source.fingerprint(cached) == source.fingerprint()
    assert asked == source.files() == sorted(asked)
    assert source.fingerprint(lambda file: "0") != source.fingerprint()


def test_a_source_is_its_index_and_nothing_is_loaded(tmp_path: Path) -> None:
    assert ModelSource("x", tmp_path, {}).pipeline_class == ""
    assert ModelSource("x", tmp_path, json.loads('{"_class_name": "A"}')).pipeline_class == "A"
