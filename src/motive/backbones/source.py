"""Where a model's files are, and what they are: a local diffusers folder or a hub id."""

import hashlib
import json
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from motive.errors import UserError

ASSETS = Path(__file__).resolve().parents[1] / "assets"
AGAIN = "download or save the model again"

# What a pipeline's component consists of: a configuration with weights, with a vocabulary, or alone.
ComponentKind = Literal["network", "tokenizer", "settings"]

_DESCRIPTIONS = ("*.json", "*.txt")
_DOWNLOADED = (*_DESCRIPTIONS, "*.safetensors", "*.model")
_CONFIGS = (
    "config.json",
    "scheduler_config.json",
    "tokenizer_config.json",
    "preprocessor_config.json",
)
_WEIGHTS = ("diffusion_pytorch_model.safetensors", "model.safetensors")
_VOCABULARIES = ("tokenizer.json", "*.model", "vocab.*")
_LONGEST_HEADER = 100_000_000  # bytes, the safetensors format's own limit


@dataclass(frozen=True)
class ModelSource:
    """A diffusers pipeline on disk.

    name: what the user called it.
    path: the folder that holds model_index.json.
    index: the content of model_index.json.
    """

    name: str
    path: Path
    index: dict[str, object]

    @property
    def pipeline_class(self) -> str:
        return str(self.index.get("_class_name", ""))

    def names(self, component: str) -> bool:
        """Whether model_index.json names such a component, and not as one that is left out."""
        entry = self.index.get(component)
        return isinstance(entry, list) and len(entry) == 2 and entry[1] is not None

    def config(self, component: str) -> dict[str, object]:
        """A component's configuration, without loading it; empty when the component has none.

        Raises UserError when the file is damaged.
        """
        for name in _CONFIGS:
            file = self.path / component / name
            if file.is_file():
                return _read_json(file)
        return {}

    def require(self, component: str, kind: ComponentKind, *, weights: bool = True) -> None:
        """Check that a component's files are there and whole, without reading more than their headers.

        weights: False is content without the weights, for what only wants to know the model.

        Raises UserError, naming what is missing.
        """
        folder = self.path / component
        if not folder.is_dir():
            raise UserError(f"{self.name} has no folder {component}: {AGAIN}")
        if not self.config(component):
            raise UserError(f"{self.name} has no configuration in its folder {component}: {AGAIN}")
        if kind == "tokenizer" and not any(any(folder.glob(v)) for v in _VOCABULARIES):
            raise UserError(f"{self.name} has no vocabulary in its folder {component}: {AGAIN}")
        if kind == "network" and weights:
            files = self.weights(component)
            if not files:
                raise UserError(
                    f"{self.name} has no weights in its folder {component} "
                    f"(no {' or '.join(_WEIGHTS)}): {AGAIN}"
                )
            for file in files:
                if not is_whole(file):
                    raise UserError(f"{self.name} has no whole {component}/{file.name}: {AGAIN}")

    def weights(self, component: str) -> list[Path]:
        """The safetensors files that a component's weights lie in, there or not; empty when none is named.

        Raises UserError when the list of a model in several files is damaged.
        """
        for name in _WEIGHTS:
            file = self.path / component / name
            if file.is_file():
                return [file]
            listed = file.with_name(f"{name}.index.json")
            if listed.is_file():
                places = _read_json(listed).get("weight_map")
                if not isinstance(places, dict) or not places:
                    raise UserError(f"{listed} names no weights: {AGAIN}")
                # Names of the folder's own files, whatever the list says.
                return [file.with_name(Path(str(n)).name) for n in sorted(set(places.values()))]
        return []

    def recommended(self) -> dict[str, object]:
        """The model folder's own `motive.json` (frames, height, width), if it has one."""
        file = self.path / "motive.json"
        return _read_json(file) if file.is_file() else {}

    def fingerprint(self, cached: Callable[[Path], str] | None = None) -> str:
        """A digest of every weight and configuration file, 20 hex digits.

        cached: a function from a file to its digest, to replace hashing the file again.
        """
        digest_of = cached or file_digest
        whole = hashlib.blake2b(digest_size=10)
        for file in self.files():
            name = file.relative_to(self.path).as_posix()
            whole.update(f"{name}\0{digest_of(file)}\n".encode())
        return whole.hexdigest()

    def files(self) -> list[Path]:
        """The weight and configuration files of the model's components, sorted."""
        parts = [p for p in self.path.iterdir() if p.is_dir() and p.name in self.index]
        suffixes = (".safetensors", ".json", ".bin", ".model")
        return sorted(f for part in parts for f in part.rglob("*") if f.suffix in suffixes)


def file_digest(file: Path) -> str:
    """BLAKE2b of a file's bytes, 32 hex digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def find_model(name: str, *, weights: bool = True) -> ModelSource:
    """The pipeline that `name` means: a local folder, `tiny-wan` (ships with the package), or a hub id.

    weights: False fetches no weights from the hub, for what only wants to know the model.

    Raises UserError when there is no such folder, when the hub cannot be asked, or when what is found
    is no diffusers pipeline.
    """
    path = ASSETS / "tiny-wan" if name == "tiny-wan" else Path(name).expanduser()
    if not path.exists():
        path = fetch_folder(
            name,
            _DOWNLOADED if weights else _DESCRIPTIONS,
            missing=f"there is no model folder {name}: give a folder or a hub id (owner/name)",
            advice="check the name, your connection, and `hf auth login` for a gated model",
        )
    index = path / "model_index.json"
    if not index.is_file():
        raise UserError(
            f"{name} is no diffusers pipeline (it has no model_index.json): "
            "give a folder written by save_pretrained, or a hub id"
        )
    return ModelSource(name, path.resolve(), _read_json(index))


def fetch_folder(name: str, files: Iterable[str], *, missing: str, advice: str) -> Path:
    """The folder of a hub id, with those of its files that fit the patterns.

    Raises UserError, saying `missing`, when the name is no hub id, and with `advice` when the hub does
    not give it.
    """
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise UserError(missing)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=list(files)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"there is no folder {name}, and the hub does not give it ({reason}): {advice}"
        ) from None


def is_whole(file: Path) -> bool:
    """Whether a safetensors file has all the bytes that its header speaks of."""
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > _LONGEST_HEADER:
                return False
            header = json.loads(stream.read(length))
            ends = [entry["data_offsets"][1] for n, entry in header.items() if n != "__metadata__"]
            return file.stat().st_size >= 8 + length + max(ends, default=0)
    except (OSError, ValueError, struct.error, AttributeError, LookupError, TypeError):
        return False


def _read_json(file: Path) -> dict[str, object]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read as JSON ({error}): {AGAIN}") from None
    if not isinstance(content, dict):
        raise UserError(f"{file} holds no JSON object: {AGAIN}")
    return content
