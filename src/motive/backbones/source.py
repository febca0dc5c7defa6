"""Where a model's files are, and what they are: a local diffusers folder or a hub id."""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from motive.errors import UserError

ASSETS = Path(__file__).resolve().parents[1] / "assets"
_WEIGHTS = ("*.json", "*.safetensors", "*.model", "*.txt")


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

    def config(self, component: str) -> dict[str, object]:
        """A component's configuration, without loading it; empty when the component has none.

        Raises UserError when the file is damaged.
        """
        for name in ("config.json", "scheduler_config.json", "tokenizer_config.json"):
            file = self.path / component / name
            if file.is_file():
                return _read_json(file)
        return {}

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


def find_model(name: str) -> ModelSource:
    """The pipeline that `name` means: a local folder, `tiny-wan` (ships with the package), or a hub id.

    Raises UserError when there is no such folder, when the hub cannot be asked, or when what is found
    is no diffusers pipeline.
    """
    path = ASSETS / "tiny-wan" if name == "tiny-wan" else Path(name).expanduser()
    if not path.exists():
        path = _download(name)
    index = path / "model_index.json"
    if not index.is_file():
        raise UserError(
            f"{name} is no diffusers pipeline (it has no model_index.json): "
            "give a folder written by save_pretrained, or a hub id"
        )
    return ModelSource(name, path.resolve(), _read_json(index))


def _download(name: str) -> Path:
    looks_local = name.startswith((".", "/", "~")) or name.count("/") != 1 or os.sep * 2 in name
    if looks_local:
        raise UserError(f"there is no model folder {name}: give a folder or a hub id (owner/name)")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=list(_WEIGHTS)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f"there is no folder {name}, and the hub does not give it ({reason}): "
            "check the name, your connection, and `hf auth login` for a gated model"
        ) from None


def _read_json(file: Path) -> dict[str, object]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"{file} cannot be read as JSON ({error}): download the model again"
        ) from None
    if not isinstance(content, dict):
        raise UserError(f"{file} holds no JSON object: download the model again")
    return content
