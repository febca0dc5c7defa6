"""All videos of a list of prompts: what is missing is made, one by one, and can be gone on with."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from motive.errors import UserError
from motive.generation.prompts import read_prompts, require_names, video_name
from motive.runs.progress import Progress
from motive.runs.provenance import remove_leftovers

# diffusers and torch are imported where videos are made: asking again for what is there needs neither.
if TYPE_CHECKING:
    from motive.backbones.base import Backbone
    from motive.generation.record import GenerationRecord
    from motive.generation.settings import Asked, VideoSettings


@dataclass(frozen=True)
class _Wanted:
    prompt: str
    seed: int
    image: Path | None
    image_digest: str | None

    @property
    def file_name(self) -> str:
        return video_name(self.prompt, self.seed)


def generate(
    model: str,
    prompts: str | Path | Sequence[str],
    out: str | Path,
    seeds: int = 5,
    *,
    checkpoint: str | None = None,
    lora: str | None = None,
    steps: int | None = None,
    frames: int | None = None,
    height: int | None = None,
    width: int | None = None,
    guidance: float | None = None,
    negative_prompt: str | None = None,
    fps: float | None = None,
    images: str | Path | None = None,
    device: str = "auto",
    dtype: str = "auto",
    threads: int | None = None,
    progress: Progress | None = None,
) -> list[Path]:
    """Make `PROMPT-0.mp4` to `PROMPT-(seeds-1).mp4` of every prompt in `out`, as VBench names them.

    model: a diffusers folder, `tiny-wan`, or a hub id.
    prompts: the prompts, or a file of them (`motive.generation.prompts.read_prompts`). Equal ones are
        made once.
    checkpoint, lora: a fine-tuned denoiser in place of the model's, and a LoRA over it
        (`motive.backbones.finetuned`).
    steps, frames, height, width, guidance, negative_prompt, fps: None takes what the model is for
        (`motive.generation.settings.settle`).
    images: folder with the picture of each prompt, for a model that begins with one.
    device, dtype, threads: as of `motive.backbones.base.Backbone`.

    A video depends on the model, the settings, its prompt and its number, and on nothing else that is
    asked for. Videos are written whole or not at all, and those that are there are not made again. A
    folder has videos of one model and one group of settings: `generation.json` in it says which.

    Returns the videos asked for, in the order of the prompts and their seeds.

    Raises UserError for prompts that cannot be file names, settings that the model does not take, a
    folder with videos of other settings, an `out` that is a file, and a missing or unasked-for picture.
    """
    from motive.generation.settings import Asked

    progress = progress or Progress(quiet=True)
    out = Path(out)
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file: choose another --out")
    chosen = _chosen(prompts, seeds, progress)
    asked = Asked(steps, frames, height, width, guidance, negative_prompt, fps)
    maker = _Maker(model, checkpoint, lora, asked, device, dtype, threads)
    wanted = _wanted(chosen, seeds, images, maker)
    out.mkdir(parents=True, exist_ok=True)
    maker.make(wanted, out, progress)
    return [out / video.file_name for video in wanted]


class _Maker:
    """A model and the settings of its videos; the weights are loaded for the first one."""

    def __init__(
        self,
        model: str,
        checkpoint: str | None,
        lora: str | None,
        asked: "Asked",
        device: str,
        dtype: str,
        threads: int | None,
    ) -> None:
        from motive.backbones import load_backbone
        from motive.backbones.finetuned import Finetuned
        from motive.backbones.source import find_model
        from motive.generation.pipeline import pipeline_class
        from motive.generation.settings import call_parameters, settle

        self.backbone: Backbone = load_backbone(
            find_model(model), dtype=dtype, device=device, threads=threads
        )
        self.finetuned = Finetuned(checkpoint, lora)
        cls = pipeline_class(self.backbone.source)
        self.settings: VideoSettings = settle(asked, self.backbone, call_parameters(cls))

    def recorded(self) -> dict[str, Any]:
        """What a video depends on beside its prompt, its number and its picture."""
        from motive.generation.video_file import ENCODING

        source, finetuned = self.backbone.source, self.finetuned
        return {
            "pipeline": source.pipeline_class,
            "weights": finetuned.fingerprint(source.fingerprint(), self.backbone.denoiser),
            "dtype": self.backbone.dtype_name,
            "prompt_length": self.backbone.default_prompt_length(),
            "encoding": ENCODING,
            **asdict(self.settings),
        }

    def make(self, wanted: Sequence[_Wanted], out: Path, progress: Progress) -> None:
        """Make the videos that are not whole in `out`, and keep the folder's record."""
        from motive.generation.record import GenerationRecord
        from motive.generation.video_file import is_whole_video

        about = {
            "model": self.backbone.source.name,
            "checkpoint": self.finetuned.checkpoint,
            "lora": self.finetuned.lora,
        }
        record = GenerationRecord.open(out, self.recorded(), about)
        remove_leftovers(out)
        missing = []
        for video in wanted:
            # A process that was killed between a video and its record left a video of which it is not
            # known what picture it was made from.
            known = video.image_digest is None or video.file_name in record.videos
            if known and is_whole_video(out / video.file_name, self.settings.frames):
                record.add(video.file_name, video.prompt, video.seed, video.image_digest)
            else:
                record.videos.pop(video.file_name, None)
                missing.append(video)
        record.save()
        if missing:
            self._make_each(missing, out, progress, record)

    def _make_each(
        self,
        missing: Sequence[_Wanted],
        out: Path,
        progress: Progress,
        record: "GenerationRecord",
    ) -> None:
        from motive.generation.images import read_image
        from motive.generation.pipeline import VideoPipeline
        from motive.generation.video_file import write_video

        settings = self.settings
        pipeline = VideoPipeline(self.backbone, self.finetuned, settings)
        with progress.stage("generate", len(missing)) as advance:
            for video in missing:
                picture = video.image and read_image(video.image, settings.height, settings.width)
                frames = pipeline.video(video.prompt, video.seed, picture)
                write_video(out / video.file_name, frames, settings.fps)
                record.add(video.file_name, video.prompt, video.seed, video.image_digest)
                record.save()
                advance(video.file_name)


def _chosen(prompts: str | Path | Sequence[str], seeds: int, progress: Progress) -> list[str]:
    """The prompts, each once, all of which can be file names."""
    if seeds < 1:
        raise UserError(f"--seeds {seeds} is wrong: make at least one video of each prompt")
    given = read_prompts(Path(prompts)) if isinstance(prompts, str | Path) else list(prompts)
    if not given:
        raise UserError("there is no prompt: give at least one")
    once = list(dict.fromkeys(given))
    if len(once) < len(given):
        progress.say(f"{len(given) - len(once)} prompts say what another says: each is made once")
    require_names(once, seeds)
    return once


def _wanted(
    prompts: Sequence[str], seeds: int, images: str | Path | None, maker: _Maker
) -> list[_Wanted]:
    from motive.backbones.source import file_digest
    from motive.generation.images import find_images
    from motive.generation.pipeline import takes_image

    source = maker.backbone.source
    if not takes_image(source):
        if images is not None:
            raise UserError(f"{source.name} begins with no picture: leave out --images")
        return [_Wanted(prompt, seed, None, None) for prompt in prompts for seed in range(seeds)]
    if images is None:
        raise UserError(
            f"{source.name} is an image-to-video model: give --images, a folder with a picture "
            "PROMPT.png of each prompt"
        )
    pictures = find_images(Path(images), prompts)
    digests = {prompt: file_digest(picture) for prompt, picture in pictures.items()}
    return [
        _Wanted(prompt, seed, pictures[prompt], digests[prompt])
        for prompt in prompts
        for seed in range(seeds)
    ]
