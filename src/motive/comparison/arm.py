"""One arm with one training seed: chosen, fine-tuned, generated, evaluated, each step once."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from motive.comparison.spec import BASE, Arm, Spec
from motive.errors import UserError
from motive.generation.prompts import video_name
from motive.runs.progress import Progress
from motive.runs.provenance import write_atomically

if TYPE_CHECKING:
    from motive.pipeline import Run
    from motive.subsets import Subset

MODEL, VIDEOS, CLIPS = "model", "videos", "clips.csv"
TRAINED = "trained.json"  # there when the arm's videos are
EVALUATION, EXTRA = "evaluation.json", "extra.json"
LORA_FILE = "pytorch_lora_weights.safetensors"

# Given the folder of an arm's videos, further numbers by name.
ExtraEvaluator = Callable[[Path], Mapping[str, float]]


@dataclass(frozen=True)
class Scored:
    """What is known of an arm with one seed.

    scores: by dimension. missing: why a dimension has no score, by dimension.
    clips, steps: of the training; 0 for the base.
    """

    scores: dict[str, float]
    missing: dict[str, str]
    clips: int
    steps: int


class ArmWork:
    """The work on one arm with one seed, in a folder of its own.

    seed: of the training and, unless the arm has its own, of the random subset; None for the base.

    Every step finds out itself what is there: the subset's list, a finished training, whole videos, the
    videos that were evaluated.
    """

    def __init__(
        self, spec: Spec, run: "Run", name: str, seed: int | None, folder: Path, progress: Progress
    ) -> None:
        self.spec, self.run, self.arm, self.seed = spec, run, spec.arms[name], seed
        self.folder, self.progress = folder, progress

    def do(self, extra: ExtraEvaluator | None = None) -> Scored:
        """All steps, and what came out."""
        self.folder.mkdir(parents=True, exist_ok=True)
        videos, lacks = self.folder / VIDEOS, self._lacks_videos()
        if lacks:
            (self.folder / EXTRA).unlink(missing_ok=True)
        if self.arm.subset == BASE:
            self._generate(self.spec.model, None)
        elif lacks or not (self.folder / TRAINED).is_file():
            self._make_videos()
        if not self.spec.keep_models:
            shutil.rmtree(self.folder / MODEL, ignore_errors=True)
        found = self._evaluate(videos)
        scores = {**found.scores(), **self._extra(videos, extra)}
        missing = {name: f"{m.why}: {m.how}" for name, m in found.missing.items()}
        clips, steps = self._trained()
        return Scored(scores, missing, clips, steps)

    def _make_videos(self) -> None:
        kept = self.spec.keep_models and (self.folder / MODEL).is_dir()
        if (self.folder / TRAINED).is_file() and not kept:
            # The model is gone, and a training is the same to the last bit on the same machine alone:
            # all videos are made anew, so that they are of one model.
            for made in (MODEL, VIDEOS):
                shutil.rmtree(self.folder / made, ignore_errors=True)
            (self.folder / TRAINED).unlink()
        model = self._finetune()
        lora = str(model / LORA_FILE) if self.spec.training.lora else None
        self._generate(self.spec.model if lora else str(model), lora)
        self._write_trained(model)

    def _finetune(self) -> Path:
        from motive.finetuning import FinetuneSettings, finetune
        from motive.subsets import write_subset

        arm, compute, training = self.arm, self.spec.compute, self.spec.training
        subset_seed = arm.subset_seed(self.seed)
        if not (self.folder / CLIPS).is_file():
            write_subset(self.run, subset_of(self.run, arm, subset_seed), self.folder / CLIPS)
        settings = FinetuneSettings(
            **training.model_dump(),
            seed=self.seed or 0,
            subset_seed=subset_seed,
            fraction=arm.fraction,
            embedding_model=arm.embedding_model,
            device=compute.device,
            dtype=compute.dtype,
            threads=compute.threads,
        )
        return finetune(
            self.run, arm.subset, self.spec.model, self.folder / MODEL, settings, self.progress
        )

    def _generate(self, model: str, lora: str | None) -> None:
        from motive.generation import generate

        wanted, compute = self.spec.generation, self.spec.compute
        generate(
            model,
            wanted_prompts(self.spec),
            self.folder / VIDEOS,
            wanted.seeds,
            lora=lora,
            **wanted.model_dump(exclude={"prompts", "seeds"}),
            device=compute.device,
            dtype=compute.dtype,
            threads=compute.threads,
            progress=self.progress,
        )

    def _evaluate(self, videos: Path) -> Any:
        from motive.evaluation import Networks, evaluate

        wanted = self.spec.evaluation
        own = {n: v for n, v in wanted.networks.model_dump().items() if v is not None}
        if "aesthetic_head" in own:
            own["aesthetic_head"] = Path(own["aesthetic_head"])
        return evaluate(
            videos,
            None if wanted.dimensions is None else list(wanted.dimensions),
            out=self.folder / EVALUATION,
            networks=Networks(**own, device=self.spec.compute.device),
            vbench_python=wanted.vbench_python,
            progress=self.progress,
        )

    def _extra(self, videos: Path, extra: ExtraEvaluator | None) -> dict[str, float]:
        if extra is None:
            return {}
        file = self.folder / EXTRA
        if not file.is_file():
            found = {name: float(value) for name, value in extra(videos).items()}
            write_atomically(file, json.dumps(found, indent=1) + "\n")
        return dict(json.loads(file.read_text(encoding="utf-8")))

    def _lacks_videos(self) -> bool:
        """Whether a video is missing, or not whole.

        Raises UserError for a video that was not asked for: it would be measured with the others.
        """
        from motive.generation.record import lacking_videos

        videos, seeds = self.folder / VIDEOS, range(self.spec.generation.seeds)
        wanted = {video_name(prompt, i) for prompt in wanted_prompts(self.spec) for i in seeds}
        if other := sorted({file.name for file in videos.glob("*.mp4")} - wanted):
            raise UserError(
                f"{videos / other[0]} is of no prompt of the comparison: move it elsewhere"
            )
        return bool(lacking_videos(videos, wanted))

    def _write_trained(self, model: Path) -> None:
        record = json.loads((model / "training.json").read_text(encoding="utf-8"))
        facts = {"clips": record["subset"]["clips"], "steps": record["steps"]}
        write_atomically(self.folder / TRAINED, json.dumps(facts) + "\n")

    def _trained(self) -> tuple[int, int]:
        if self.arm.subset == BASE:
            return 0, 0
        facts = json.loads((self.folder / TRAINED).read_text(encoding="utf-8"))
        return int(facts["clips"]), int(facts["steps"])


def place_of(seed: int | None) -> str:
    """The folder's name of an arm's training; None is the base, which has none."""
    return BASE if seed is None else f"seed-{seed}"


def subset_of(run: "Run", arm: Arm, seed: int) -> "Subset":
    """The clips of an arm.

    seed: of a random subset.

    Raises UserError when they cannot be chosen.
    """
    from motive.subsets import choose_subset

    return choose_subset(
        run, arm.subset, seed=seed, embedding_model=arm.embedding_model, fraction=arm.fraction
    )


def wanted_prompts(spec: Spec) -> list[str]:
    """The prompts that all arms' videos are of, each once.

    Raises UserError when the file of prompts cannot be read.
    """
    from motive.generation.prompts import read_prompts

    given = spec.generation.prompts
    return list(dict.fromkeys(read_prompts(Path(given)) if isinstance(given, str) else given))
