"""V-JEPA 2 embeddings of a run's clips, the paper's embedding baseline.

A clip is what the model would be trained on: the run's sampled, resized frames. Of these at most as many
as V-JEPA was made for are taken, at equal distances, and brought to its size as its video processor does:
the shorter side resized, the middle cut out, mean and deviation taken away. The embedding is the mean over
the encoder's tokens, of length 1.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from motive.backbones.source import fetch_folder, file_digest
from motive.clips.ingest import decode_unchanged
from motive.clips.sampling import FrameSampler
from motive.errors import ClipError, UserError
from motive.rows import clip_rows
from motive.runs.members import Member, Members
from motive.runs.stage import Stage
from motive.runs.tables import Row

if TYPE_CHECKING:
    import torch

    from motive.pipeline import Run

_FILES = ("config.json", "*preprocessor_config.json", "model*.safetensors*")
_PREPROCESSORS = ("video_preprocessor_config.json", "preprocessor_config.json")
# Of `VJEPA2VideoProcessor`, for a folder without its configuration: it enlarges the crop by this.
_RESIZE_TO_CROP = 256 / 224
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's


class VjepaStage(Stage):
    """Takes rows of key (clip id), file (`file_key`) and path; gives one unit vector.

    folder: of a `VJEPA2Model` that transformers saved.

    Raises UserError when the folder holds no such model.
    """

    name = "embed"
    table = "embeddings"
    schema = pa.schema([("embedding", pa.list_(pa.float32()))])

    def __init__(self, folder: Path, sampler: FrameSampler, device: str = "cpu") -> None:
        self.folder, self.sampler, self.device = folder, sampler, device
        config = _read_config(folder / "config.json")
        if config.get("model_type") != "vjepa2":
            raise UserError(
                f"{folder} holds no V-JEPA 2 model (its model_type is {config.get('model_type')}): "
                "give one such as facebook/vjepa2-vitl-fpc64-256"
            )
        self.frames = int(config.get("frames_per_clip", 64))
        self.tubelet = int(config.get("tubelet_size", 2))
        self._preprocessing = _Preprocessing.read(folder, int(config.get("crop_size", 256)))
        found = sorted({f for pattern in _FILES for f in folder.glob(pattern)})
        if not any(file.suffix == ".safetensors" for file in found):
            raise UserError(f"{folder} has no weights (no model.safetensors): download it again")
        digests = [f"{file.name}={file_digest(file)}" for file in found]
        self._fingerprint = "vjepa2 mean of tokens " + " ".join(digests)

    def fingerprint(self) -> str:
        return self._fingerprint

    def open(self) -> None:
        import torch
        from safetensors import SafetensorError
        from transformers import VJEPA2Model

        try:
            model, info = VJEPA2Model.from_pretrained(
                self.folder,
                dtype=torch.float32,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
            )
        except (OSError, ValueError, RuntimeError, LookupError, SafetensorError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UserError(
                f"{self.folder} cannot be loaded ({reason}): download it again"
            ) from None
        # The predictor is not used, and a model saved without it is as good.
        missing = sorted(n for n in info["missing_keys"] if not n.startswith("predictor."))
        if missing:
            raise UserError(
                f"{self.folder} lacks {len(missing)} weights, such as {missing[0]}: download it again"
            )
        self._model = model.eval().to(self.device)

    def close(self) -> None:
        del self._model

    def prepare(self, row: Row) -> Row:
        return {**row, "decoded": decode_unchanged(row["file"], Path(row["path"]), self.sampler)}

    def process(self, row: Row) -> Row:
        import torch

        frames_fhw3 = row["decoded"].frames_fhw3
        pixels_f3hw = self._preprocessing(frames_fhw3[self.chosen(len(frames_fhw3))])
        with torch.inference_mode():
            tokens = self._model(
                pixel_values_videos=pixels_f3hw[None].to(self.device), skip_predictor=True
            ).last_hidden_state
        embedding = tokens[0].double().mean(0)
        length = float(embedding.norm())
        if not np.isfinite(length) or length == 0:
            raise ClipError("its embedding is not finite")
        return {"embedding": (embedding / length).float().cpu().numpy()}

    def chosen(self, frames: int) -> np.ndarray:
        """Indices of the frames that the model sees of a clip of `frames`, ascending.

        A single frame is left alone: the model repeats it to the length of a tubelet.
        """
        count = min(frames, self.frames)
        count = max(1, count - count % self.tubelet)
        return np.round(np.linspace(0, frames - 1, count)).astype(int)


def clip_embeddings(
    run: "Run", model: str, clips: list[Member], queries: list[Member]
) -> dict[str, np.ndarray]:
    """Unit embeddings by clip id, float32; a clip that could not be embedded has none.

    model: a folder or a hub id. What is not in the run's tables yet is computed.

    Raises UserError when the model cannot be used, or when a query or every clip has no embedding.
    """
    stage = VjepaStage(_find(model), run.sampler, str(run.plan.backbone.device))
    run.store.work(stage, clip_rows(Members.of([*clips, *queries])), run.progress)
    rows = run.store.results(stage).rows(stage.fingerprint())
    wanted = {m.clip_id for m in (*clips, *queries)}
    found = {row["key"]: row["embedding"] for row in rows if row["key"] in wanted}
    without = [m for m in queries if m.clip_id not in found]
    if not any(m.clip_id in found for m in clips):
        without = clips
    if without:
        reason = run.store.failed(stage).get(without[0].clip_id, "")
        raise UserError(
            f"{without[0].file_name} has no embedding ({reason}): mend the file and run "
            "motive curate --retry-failed, or use the subset motion-statistics"
        )
    return found


class _Preprocessing:
    """What `VJEPA2VideoProcessor` does to frames, by its configuration, without torchvision.

    shortest: pixels that the shorter side is resized to. crop: height and width of the middle.
    """

    def __init__(
        self, shortest: int, crop: tuple[int, int], mean: tuple[float, ...], std: tuple[float, ...]
    ) -> None:
        self.shortest, self.crop, self.mean, self.std = shortest, crop, mean, std

    @staticmethod
    def read(folder: Path, crop_size: int) -> "_Preprocessing":
        """By the folder's own configuration, or the processor's defaults for a model of `crop_size`.

        Raises UserError when the configuration asks for something else.
        """
        crop, shortest = (crop_size, crop_size), int(crop_size * _RESIZE_TO_CROP)
        file = next((folder / n for n in _PREPROCESSORS if (folder / n).is_file()), None)
        if file is None:
            return _Preprocessing(shortest, crop, _MEAN, _STD)
        config = _read_config(file)
        try:
            if "crop_size" in config:
                side = config["crop_size"]
                crop = (
                    (int(side["height"]), int(side["width"]))
                    if isinstance(side, dict)
                    else (side,) * 2
                )
            if "size" in config:
                size = config["size"]
                shortest = int(size["shortest_edge"] if isinstance(size, dict) else size)
            mean = tuple(float(v) for v in config.get("image_mean", _MEAN))
            std = tuple(float(v) for v in config.get("image_std", _STD))
        except (TypeError, ValueError, LookupError):
            raise UserError(
                f"{file} has sizes or means that are not V-JEPA 2's: download it again"
            ) from None
        steps = ("do_resize", "do_center_crop", "do_rescale", "do_normalize")
        if not all(config.get(step, True) for step in steps) or config.get("resample", 2) != 2:
            raise UserError(f"{file} asks for other preprocessing than V-JEPA 2's: use its own")
        return _Preprocessing(shortest, crop, mean, std)

    def __call__(self, frames_fhw3: np.ndarray) -> "torch.Tensor":
        """Frames `(F, 3, height, width)` float32 of RGB uint8 `(F, H, W, 3)`."""
        import torch
        from torch.nn import functional

        pixels = torch.from_numpy(np.ascontiguousarray(frames_fhw3)).permute(0, 3, 1, 2)
        height, width = pixels.shape[2:]
        # The longer side is rounded down, as torchvision does.
        if height <= width:
            size = self.shortest, int(self.shortest * width / height)
        else:
            size = int(self.shortest * height / width), self.shortest
        # In bytes, which rounds: so do the frames that the model was trained on.
        pixels = functional.interpolate(
            pixels.contiguous(), size=size, mode="bilinear", antialias=True, align_corners=False
        )
        top, left = (round((pixels.shape[i + 2] - self.crop[i]) / 2) for i in (0, 1))
        if top < 0 or left < 0:
            raise ClipError(f"its frames are too small for a crop of {self.crop[0]}x{self.crop[1]}")
        pixels = pixels[:, :, top : top + self.crop[0], left : left + self.crop[1]]
        mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (self.mean, self.std))
        return (pixels / 255 - mean) / std


def _find(model: str) -> Path:
    """The folder that a path or a hub id means.

    Raises UserError when there is none and the hub does not give it.
    """
    folder = Path(model).expanduser()
    if folder.is_dir():
        return folder
    return fetch_folder(
        model,
        _FILES,
        missing=f"there is no folder {model}: give a V-JEPA 2 model's folder or its hub id",
        advice="check the name and your connection, or use the subset motion-statistics",
    )


def _read_config(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read as JSON ({error}): download it again") from None
    if not isinstance(content, dict):
        raise UserError(f"{file} holds no JSON object: download it again")
    return content
