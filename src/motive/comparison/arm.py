"""One arm with one training seed: chosen, fine-tuned, generated, evaluated, each step once."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from motive.comparison.spec import BASE, Spec
from motive.errors import UserError
from motive.runs.progress import Progress
from motive.runs.provenance import write_atomically

if TYPE_CHECKING:
    from motive.pipeline import Run

MODEL, VIDEOS, CLIPS = "model", "videos", "clips.csv"
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
        videos = self.folder / VIDEOS
        if self.arm.subset == BASE:
            self._generate(self.spec.model, None)
        elif not self._has_all_videos():
            model = self._finetune()
            lora = str(model / LORA_FILE) if self.spec.training.lora else None
            self._generate(self.spec.model if lora else str(model), lora)
            self._write_trained(model)
        if not self.spec.keep_models:
            shutil.rmtree(self.folder / MODEL, ignore_errors=True)
        found = self._evaluate(videos)
        scores = {**found.scores(), **self._extra(videos, extra)}
        missing = {name: f"{m.why}: {m.how}" for name, m in found.missing.items()}
        clips, steps = self._trained()
        return Scored(scores, missing, clips, steps)

    def _finetune(self) -> Path:
        from motive.finetuning import FinetuneSettings, finetune
        from motive.subsets import choose_subset, write_subset

        arm, compute, training = self.arm, self.spec.compute, self.spec.training
        subset_seed = arm.seed if arm.seed is not None else self.seed or 0
        if not (self.folder / CLIPS).is_file():
            chosen = choose_subset(
                self.run,
                arm.subset,
                seed=subset_seed,
                embedding_model=arm.embedding_model,
                fraction=arm.fraction,
            )
            write_subset(self.run, chosen, self.folder / CLIPS)
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
            list(wanted.prompts) if isinstance(wanted.prompts, tuple) else wanted.prompts,
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

    # Whether the model is still needed: its videos are there when its facts were noted.

    def _has_all_videos(self) -> bool:
        return (self.folder / "trained.json").is_file()

    def _write_trained(self, model: Path) -> None:
        record = json.loads((model / "training.json").read_text(encoding="utf-8"))
        facts = {"clips": record["subset"]["clips"], "steps": record["steps"]}
        write_atomically(self.folder / "trained.json", json.dumps(facts) + "\n")

    def _trained(self) -> tuple[int, int]:
        if self.arm.subset == BASE:
            return 0, 0
        facts = json.loads((self.folder / "trained.json").read_text(encoding="utf-8"))
        return int(facts["clips"]), int(facts["steps"])


def require_subsets(spec: Spec, run: "Run") -> None:
    """Refuse arms whose subsets cannot be chosen, before the first training.

    Raises UserError, naming the arm.
    """
    from motive.subsets import choose_subset

    for name, arm in spec.arms.items():
        if arm.subset == BASE:
            continue
        try:
            choose_subset(
                run, arm.subset, embedding_model=arm.embedding_model, fraction=arm.fraction
            )
        except UserError as error:
            raise UserError(f"the arm {name}: {error}") from None
