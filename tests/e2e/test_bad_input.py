"""Whatever is wrong before the work begins: one sentence, exit code 2, nothing written."""

import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from commands import Terminal, in_python
from run_files import Finished, snapshot

AUDIO = "clips/io__gs-16b-2c-44100hz.mp4"


@pytest.fixture
def words(small_wan: Path, zoo: Path, queries: Path, tmp_path: Path) -> dict[str, object]:
    """Options of a curate command that would work. Its --out does not exist yet."""
    return {
        "--clips": zoo,
        "--queries": queries,
        "--media-root": zoo,
        "--model": small_wan,
        "--out": tmp_path / "made" / "run",
        "--quiet": None,
    }


def refusal(motive: Terminal, words: dict[str, object], changes: Mapping[str, object]) -> str:
    """What `motive curate` says to these options; fails if it wrote anything to --out."""
    options = {**words, **changes}
    out = Path(str(options["--out"]))
    before = snapshot(out)
    complaint = motive("curate", *flat(options)).complaint
    assert snapshot(out) == before
    assert before is not None or not out.parent.is_dir() or not any(out.parent.iterdir())
    return complaint


def flat(options: dict[str, object]) -> list[object]:
    """The words of a command; an option of None stands alone."""
    return [part for name, value in options.items() for part in (name, value) if part is not None]


SETTINGS: list[tuple[str, object, str]] = [
    ("--tracker", "compass", "there is no tracker 'compass'"),
    ("--mask", "soft", "motion.mask"),
    ("--static-below", -1, "motion.static_below"),
    ("--size", "huge", "the size 'huge' is wrong: write HEIGHTxWIDTH"),
    ("--size", "32x", "the size '32x' is wrong"),
    ("--size", "0x32", "sampling.height"),
    ("--frames", 0, "sampling.frames"),
    ("--fps", 0, "sampling.fps"),
    ("--fps", -8, "sampling.fps"),
    ("--mode", "last", "sampling.mode"),
    ("--fit", "pad", "sampling.fit"),
    ("--timestep", "late", "the timestep 'late' is wrong"),
    ("--timestep", 0, "the timestep is wrong: use numbers from 1 to 1000"),
    ("--timestep", 1001, "the timestep is wrong"),
    ("--timestep", "200,1001", "the timestep is wrong"),
    ("--dim", 0, "gradients.dim"),
    ("--dim", 100_000, "dim"),
    ("--dim", "many", "'--dim'"),
    ("--projection", "gaussian", "no projection called 'gaussian'"),
    ("--fraction", 0, "selection.fraction"),
    ("--fraction", 1.5, "selection.fraction"),
    ("--fraction", "nan", "selection.fraction"),
    ("--percentile", 100, "selection.percentile"),
    ("--seed", -1, "seed"),
    ("--device", "abacus", "abacus"),
    ("--dtype", "float8", "there is no dtype 'float8'"),
    ("--model", "no/such/folder", "there is no model folder"),
    ("--clips", "no/such/folder", "does not exist"),
    ("--queries", "no/such/folder", "does not exist"),
    ("--media-root", "no/such/folder", "no/such/folder"),
    ("--clips", "", "--clips is empty"),
    ("--queries", "", "--queries is empty"),
    ("--colour", "red", "--colour"),
]


@pytest.mark.parametrize(("option", "value", "said"), SETTINGS)
def test_a_wrong_setting(
    motive: Terminal, words: dict[str, object], option: str, value: object, said: str
) -> None:
    assert said in refusal(motive, words, {option: value})


def test_an_empty_out(motive: Terminal, words: dict[str, object]) -> None:
    """As of a shell's variable that is not set: not the working directory."""
    before = set(os.listdir())
    assert "--out is empty" in motive("curate", *flat({**words, "--out": ""})).complaint
    assert set(os.listdir()) == before


@pytest.mark.parametrize("option", ["--clips", "--queries"])
def test_a_run_into_the_folder_of_a_dataset(
    motive: Terminal, words: dict[str, object], zoo: Path, tmp_path: Path, option: str
) -> None:
    dataset = tmp_path / "dataset"
    shutil.copytree(zoo, dataset)
    said = refusal(motive, words, {option: dataset, "--out": f"{dataset}/../dataset"})
    assert "is a dataset's folder" in said


# The test model's VAE has a stride of 8 and its transformer patches of 2, and 26,144 parameters.
MODEL_SETTINGS: list[tuple[str, object, str]] = [
    ("--size", "36x32", "takes multiples of 16x16 pixels: use another --size, such as 32x32"),
    ("--size", "64x56", "the size 64x56 does not suit"),
    ("--size", "8x8", "such as 16x16"),
    ("--parameters", "lora_*", "no parameter is called like 'lora_*'"),
    ("--parameters", "blocks.7.*", "no parameter is called like 'blocks.7.*'"),
    ("--dim", 60_000, "cannot be projected to 60,000"),
]


@pytest.mark.parametrize(("option", "value", "said"), MODEL_SETTINGS)
def test_a_setting_that_does_not_suit_the_model(
    motive: Terminal, words: dict[str, object], option: str, value: object, said: str
) -> None:
    assert said in refusal(motive, words, {option: value})


def test_a_dim_that_does_not_suit_the_chosen_parameters(
    motive: Terminal, words: dict[str, object]
) -> None:
    """The whole model has more numbers than that, its two output biases have not."""
    changes = {"--parameters": "proj_out.bias", "--dim": 512}
    assert "A gradient of 64 numbers cannot be projected to 512" in refusal(motive, words, changes)


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [("--size", "36x32", "made with other settings"), *MODEL_SETTINGS[4:]],
)
def test_a_finished_run_is_not_changed_by_what_it_refuses(
    motive: Terminal, words: dict[str, object], copied: Path, option: str, value: object, said: str
) -> None:
    said = "made with other settings"
    assert said in refusal(motive, words, {"--out": copied, option: value})


def test_a_finished_run_on_a_device_that_is_not_there(
    motive: Terminal, finished: Finished, copied: Path
) -> None:
    before = snapshot(copied)
    words = (*finished.words, "--out", copied, "--device", "cuda:99")
    assert "the device cuda:99 is not there" in motive(*words).complaint
    assert snapshot(copied) == before


def test_a_missing_option(motive: Terminal, words: dict[str, object]) -> None:
    del words["--model"]
    assert "--model" in refusal(motive, words, {})


@pytest.mark.parametrize("group", [(), ("zoo",)])
def test_no_command_shows_the_help(motive: Terminal, group: tuple[str, ...]) -> None:
    outcome = motive(*group)
    assert outcome.code == 2
    assert outcome.err.startswith("Usage: ")
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize("role", ["--clips", "--queries"])
def test_an_empty_folder(
    motive: Terminal, words: dict[str, object], tmp_path: Path, role: str
) -> None:
    (tmp_path / "empty").mkdir()
    assert "holds no video file" in refusal(motive, words, {role: tmp_path / "empty"})


@pytest.mark.parametrize("role", ["--clips", "--queries"])
def test_a_file_that_is_no_dataset(
    motive: Terminal, words: dict[str, object], tmp_path: Path, role: str
) -> None:
    (tmp_path / "notes.md").write_text("nothing")
    assert "is no dataset" in refusal(motive, words, {role: tmp_path / "notes.md"})


@pytest.mark.parametrize("role", ["--clips", "--queries"])
@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "/etc/passwd", "a/../../secret.mp4", "..\\x.mp4"]
)
def test_metadata_that_points_outside_its_folder(
    motive: Terminal, words: dict[str, object], tmp_path: Path, role: str, name: str
) -> None:
    table = tmp_path / "data" / "metadata.jsonl"
    table.parent.mkdir()
    table.write_text(json.dumps({"file_name": name, "text": "a secret"}) + "\n")
    assert "points outside its folder" in refusal(motive, words, {role: table.parent})


def test_queries_of_which_none_can_be_read(
    motive: Terminal, words: dict[str, object], shared: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    shutil.copy(shared / AUDIO, folder / "audio.mp4")
    (folder / "empty.webm").touch()
    (folder / "text.mov").write_text("no video")
    said = refusal(motive, words, {"--queries": folder})
    assert said.startswith("none of the 3 queries can be used")


MODELS: dict[str, tuple[object, str]] = {
    "not a pipeline": (None, "is no diffusers pipeline"),
    "broken": ("{", "model_index.json cannot be read as JSON"),
    "a list": ([], "holds no JSON object"),
    "not Wan": ({"_class_name": "StableDiffusionPipeline"}, "is a StableDiffusionPipeline"),
    "nameless": ({}, "is a nameless pipeline"),
    "only an index": ({"_class_name": "WanPipeline"}, "has no folder"),
}


@pytest.mark.parametrize("kind", MODELS)
def test_a_folder_that_is_no_wan_pipeline(
    motive: Terminal, words: dict[str, object], tmp_path: Path, kind: str
) -> None:
    index, said = MODELS[kind]
    folder = tmp_path / "model"
    folder.mkdir()
    if index is not None:
        text = index if isinstance(index, str) else json.dumps(index)
        (folder / "model_index.json").write_text(text)
    assert said in refusal(motive, words, {"--model": folder})


PARTS = ("transformer", "vae", "text_encoder", "tokenizer", "scheduler")


@pytest.mark.parametrize("part", PARTS)
def test_a_wan_pipeline_without_one_part(
    motive: Terminal, words: dict[str, object], small_wan: Path, tmp_path: Path, part: str
) -> None:
    model = Path(shutil.copytree(small_wan, tmp_path / "model"))
    shutil.rmtree(model / part)
    said = refusal(motive, words, {"--model": model})
    assert f"has no folder {part}: download or save the model again" in said


@pytest.mark.parametrize("part", PARTS[:3])
@pytest.mark.parametrize("harm", ["none", "half"])
def test_a_wan_pipeline_without_all_its_weights(
    motive: Terminal,
    words: dict[str, object],
    small_wan: Path,
    tmp_path: Path,
    part: str,
    harm: str,
) -> None:
    model = Path(shutil.copytree(small_wan, tmp_path / "model"))
    (file,) = (model / part).glob("*.safetensors")
    if harm == "none":
        file.unlink()
        expected = f"has no weights in its folder {part}"
    else:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        expected = f"has no whole {part}/{file.name}"
    assert expected in refusal(motive, words, {"--model": model})


def test_queries_are_looked_at_before_clips_are_unpacked(
    motive: Terminal, words: dict[str, object], zoo: Path, tmp_path: Path
) -> None:
    with tarfile.open(tmp_path / "shard.tar", "w") as shard:
        shard.add(zoo / "clips" / "000001.mp4", "000001.mp4")
    changes = {"--clips": tmp_path / "shard.tar", "--queries": tmp_path / "missing"}
    assert "does not exist" in refusal(motive, words, changes)


def test_another_family_saved_by_diffusers(
    motive: Terminal, words: dict[str, object], tmp_path: Path
) -> None:
    from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel

    unet = UNet2DModel(
        sample_size=8,
        block_out_channels=(8,),
        norm_num_groups=4,
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
    )
    DDPMPipeline(unet, DDPMScheduler()).save_pretrained(tmp_path / "ddpm")
    said = refusal(motive, words, {"--model": tmp_path / "ddpm"})
    assert "is a DDPMPipeline pipeline, which has no adapter yet" in said


@pytest.fixture(params=["a file", "below a file", "proc", "no rights"])
def unwritable(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A place in which no run directory can be made."""
    file, folder = tmp_path / "file", tmp_path / "locked"
    file.write_text("kept")
    if request.param == "a file":
        yield file
    elif request.param == "below a file":
        yield file / "deeper" / "run"
    elif request.param == "proc":
        if not Path("/proc/self").exists():
            pytest.skip("there is no /proc")
        yield Path("/proc/motive/run")
    else:
        folder.mkdir()
        with read_only(folder):
            yield folder / "run"
    assert file.read_text() == "kept"


class read_only:  # noqa: N801  (a context manager, used like a function)
    """A folder that nobody can write into while it lasts, root neither. Skips where that cannot be."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> None:
        self.folder.chmod(0o555)
        if os.access(self.folder, os.W_OK) and not self._chattr("+i"):
            self.folder.chmod(0o755)
            pytest.skip("root writes everywhere here, and the file system has no immutable folders")

    def __exit__(self, *error: object) -> None:
        self._chattr("-i")
        self.folder.chmod(0o755)

    def _chattr(self, flag: str) -> bool:
        if shutil.which("chattr") is None:
            return False
        command = ["chattr", flag, str(self.folder)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0


def test_an_out_that_cannot_be_written(
    motive: Terminal, words: dict[str, object], unwritable: Path
) -> None:
    said = refusal(motive, words, {"--out": unwritable})
    assert said.startswith(str(unwritable))
    assert "choose another --out" in said


def test_a_finished_run_that_can_no_longer_be_written(motive: Terminal, copied: Path) -> None:
    before = snapshot(copied)
    with read_only(copied):
        said = motive("score", copied).complaint
    assert "cannot be written" in said
    assert snapshot(copied) == before


STAGES = ("ingest", "track", "encode", "gradients", "score", "select", "report", "info", "export")


@pytest.mark.parametrize("command", STAGES)
@pytest.mark.parametrize("place", ["missing", "a folder", "a file"])
def test_a_command_on_what_is_no_run(
    motive: Terminal, tmp_path: Path, command: str, place: str
) -> None:
    run = tmp_path / "run"
    if place == "a folder":
        run.mkdir()
    elif place == "a file":
        run.write_text("no run")
    more = ("--format", "musubi", "--out", tmp_path / "out") if command == "export" else ()
    before = snapshot(tmp_path)
    assert f"{run} holds no run" in motive(command, run, *more).complaint
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (("nonsense",), "motive"),
        (("curate", "--nonsense"), "motive curate"),
        (("zoo", "render", "--nonsense"), "motive zoo render"),
        (("info",), "motive info"),
    ],
)
def test_a_mistake_in_the_words_names_the_help_that_helps(
    motive: Terminal, words: tuple[str, ...], asked: str
) -> None:
    assert motive(*words).complaint.endswith(f"(see {asked} --help)")


RECORDS: dict[str, tuple[str | bytes | None, str]] = {
    "missing": (None, "No such file"),
    "binary": (b"\x93NUMPY\xff\xfe", "it is not YAML"),
    "not YAML": ("a: [1,", "it is not YAML"),
    "a list": ("- 1\n- 2\n", "holds no settings"),
    "empty": ("", "holds no settings"),
    "unknown field": ("config: {clips: a, queries: b, model: c, colour: red}", "colour"),
    "unknown section": ("config: {clips: a, queries: b, model: c, gradients: 3}", "gradients"),
    "no model": ("config: {clips: a, queries: b}", "model"),
    "python": ("!!python/object/apply:os.system ['true']", "it is not YAML"),
}


@pytest.mark.parametrize("kind", RECORDS)
def test_a_record_that_cannot_be_replayed(motive: Terminal, tmp_path: Path, kind: str) -> None:
    content, said = RECORDS[kind]
    record = tmp_path / "in" / "run.yaml"
    record.parent.mkdir()
    if content is not None:
        record.write_bytes(content.encode() if isinstance(content, str) else content)
    assert said in motive("run", record, "--out", tmp_path / "out").complaint
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("override", ["seed", "seed=one", "colour=red", "gradients=3"])
def test_an_override_that_makes_no_sense(
    motive: Terminal, finished: Finished, tmp_path: Path, override: str
) -> None:
    words = ("run", finished.path / "run.yaml", override, "--out", tmp_path / "out")
    assert override.partition("=")[0] in motive(*words).complaint
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("stage", ["track", "encode", "gradients", "score", "select", "report"])
def test_a_stage_before_its_turn(
    motive: Terminal, finished: Finished, tmp_path: Path, stage: str
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(finished.path / "run.yaml", run)
    assert "run motive " in motive(stage, run).complaint
    assert not {"scores.parquet", "selection.csv", "report.html"} & set(os.listdir(run))


def test_the_real_command_refuses_in_the_same_way(words: dict[str, object]) -> None:
    """Once without the fork server."""
    options = flat({**words, "--tracker": "compass"})
    assert "there is no tracker 'compass'" in in_python(["curate", *options]).complaint
    assert not Path(str(words["--out"])).exists()
