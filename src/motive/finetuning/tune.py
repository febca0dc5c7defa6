"""Fine-tune a model on a subset of a run's clips: `motive finetune`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from motive.backbones import load_backbone
from motive.backbones.source import ModelSource, find_model
from motive.errors import UserError
from motive.finetuning.checkpoint import save_checkpoint
from motive.finetuning.clips import StoredClips, encode
from motive.finetuning.encoders import encoding_plan, own_plan
from motive.finetuning.loop import TrainingPlan, train
from motive.finetuning.lora import TARGETS, add_lora, require_lora, save_lora
from motive.finetuning.randomness import training_draws
from motive.finetuning.record import TrainingRecord, digest_of_ids
from motive.finetuning.settings import FinetuneSettings
from motive.finetuning.state import TrainingState
from motive.finetuning.tracking import begin_tracking, make_accelerator
from motive.gradients.parameters import trained_parameters
from motive.runs.progress import Progress
from motive.subsets import Subset, choose_subset

if TYPE_CHECKING:
    from motive.pipeline import Run
    from motive.plan import Plan

STATE = "training_state.safetensors"  # there until the training is finished
LOGS = "logs"  # of a tracker


def finetune(
    run: "Run",
    subset: str,
    model: str,
    out: str | Path,
    settings: FinetuneSettings | None = None,
    progress: Progress | None = None,
) -> Path:
    """Fine-tune `model` on a subset of the run's clips; a training that was interrupted goes on.

    subset: a method of `motive.subsets`, or a file that lists clips.
    model: a diffusers folder, `tiny-wan`, or a hub id; the clips are encoded again, into the run's tables,
        where its encoders are not those of the run's model.
    out: a folder. It becomes a pipeline that diffusers and `--model` load, or with `settings.lora` holds
        `pytorch_lora_weights.safetensors`, for `load_lora_weights` and `--lora`. `training.json` beside
        says what it was trained on and how.

    Returns `out`.

    Raises UserError for settings that make no training, a model that cannot be trained like that, or when
    `out` holds a training with other settings.
    """
    settings, out = settings or FinetuneSettings(), Path(out)
    return _Finetuning(run, find_model(model), out, settings, progress or run.progress).do(subset)


class _Finetuning:
    """One call of `finetune`."""

    def __init__(
        self,
        run: "Run",
        source: ModelSource,
        out: Path,
        settings: FinetuneSettings,
        progress: Progress,
    ) -> None:
        self.run, self.out, self.settings, self.progress = run, out, settings, progress
        wanted = load_backbone(
            source, dtype=settings.dtype, device=settings.device, threads=settings.threads
        )
        self.accelerator = make_accelerator(
            settings.tracker, out / LOGS, cpu=wanted.device.type == "cpu"
        )
        if self.accelerator.num_processes > 1:
            wanted = load_backbone(
                source, dtype=settings.dtype, device=str(self.accelerator.device)
            )
        self.dtype = wanted.dtype_name
        # All weights are trained in float32. Beside a LoRA they are only read.
        weights = self.dtype if settings.lora else "float32"
        self.backbone = load_backbone(
            source, dtype=weights, device=str(wanted.device), threads=settings.threads
        )
        self.backbone.require_components()
        self._settle()
        if settings.lora is not None:
            require_lora(self.backbone)
        else:
            trained_parameters(self.backbone.empty_denoiser(), self._parameters, "base")

    def _settle(self) -> None:
        """Choose the expert that the timesteps are of, and find that there are timesteps."""
        settings = self.settings
        draws = training_draws(
            self.backbone, settings.trainer, settings.shift, settings.timestep_range
        )
        timesteps = sorted({draw.timestep for draw in draws})
        ends = timesteps[0], timesteps[-1]
        experts = {self.backbone.settle((end,)) for end in ends}
        if len(experts) > 1:
            raise UserError(
                f"{self.backbone.source.name} has two networks, {' and '.join(sorted(experts))}, each "
                "for timesteps of its own: give --timestep-range the part of one of them"
            )

    def do(self, subset_name: str) -> Path:
        settings, run = self.settings, self.run
        with self.accelerator.main_process_first():  # a method may compute, into the run's tables
            subset = choose_subset(
                run,
                subset_name,
                seed=settings.subset_seed,
                embedding_model=settings.embedding_model,
                fraction=settings.fraction,
            )
        plan = encoding_plan(run, self.backbone.source)
        record = TrainingRecord.open(self.out, self._identity(subset, plan))
        if record.finished:
            (self.out / STATE).unlink(missing_ok=True)
            self.progress.say(f"{self.out} is finished: nothing was trained")
            return self.out
        clips, left_out = self._clips(subset, plan)
        record.require_clips(sorted(clips.clip_ids))
        steps = settings.steps_for(len(clips))
        record.about = self._about(subset, clips.clip_ids, left_out, steps)
        if self._main:
            record.save()
        network = self._network()
        state = self._train(network, clips, plan, steps)
        if self._main:
            self._save(network, record, state)
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()  # closes trackers and the processes' group
        return self.out

    # What it is.

    @property
    def _parameters(self) -> str:
        return self.settings.parameters or self.backbone.trained

    @property
    def _main(self) -> bool:
        return bool(self.accelerator.is_main_process)

    def _identity(self, subset: Subset, plan: "Plan") -> dict[str, Any]:
        """What the trained weights depend on."""
        source = self.backbone.source
        own = plan if plan.source.path == source.path else own_plan(self.run, source)
        return {
            "subset": subset.name,
            "subset_clips": digest_of_ids(subset.clip_ids),
            "model": own.model_fingerprint,
            "component": self.backbone.denoiser,
            "encoders": plan.encode_stage.fingerprint(),
            "text_encoders": plan.text_stage.fingerprint(),
            "sampler": self.run.sampler.fingerprint(),
            "dtype": self.dtype,
            **self.settings.as_record(),
        }

    def _about(
        self, subset: Subset, clip_ids: list[str], left_out: dict[str, str], steps: int
    ) -> dict[str, Any]:
        settings, source = self.settings, self.backbone.source
        shown = steps * settings.batch
        return {
            "run": str(self.run.path.absolute()),
            "base": {"name": source.name, "pipeline": source.pipeline_class},
            "subset": {
                "name": subset.name,
                "note": subset.note,
                "seed": settings.subset_seed,
                "clips": len(clip_ids),
                "clip_ids": sorted(clip_ids),
                "left_out": left_out,
            },
            "matched": settings.matched,
            "steps": steps,
            "clips_shown": shown,
            "processes": self.accelerator.num_processes,
            "epochs": round(shown / len(clip_ids), 6),
            "objective": {
                "family": self.backbone.family,
                "trainer": settings.trainer,
                "loss": "mean over a batch of w(t) · mean((prediction − target)²)",
                "prompt_length": self.backbone.default_prompt_length(),
            },
            "optimizer": "AdamW, constant learning rate, no clipping, no warm-up, float32 weights",
            "trains": self._trains(),
        }

    def _trains(self) -> str:
        if self.settings.lora is not None:
            return f"a LoRA of {', '.join(TARGETS)}"
        return "all weights" if self._parameters == "*" else f"the weights {self._parameters}"

    # What it does.

    def _clips(self, subset: Subset, plan: "Plan") -> tuple[StoredClips, dict[str, str]]:
        """The clips to train on, and why others of the subset are left out."""
        members = list(self.run.usable("clip").those(subset.clip_ids))
        with self.accelerator.main_process_first():
            left_out = encode(self.run, plan, members)
        for member in (m for m in members if m.clip_id in left_out):
            self.progress.say(f"left out: {member.file_name} ({left_out[member.clip_id]})")
        members = [m for m in members if m.clip_id not in left_out]
        if not members:
            raise UserError(
                f"none of the {len(subset.clip_ids)} clips of the subset {subset.name} can be encoded: "
                "choose another --subset"
            )
        return StoredClips(self.run, plan, members), left_out

    def _network(self) -> Any:
        network = self.backbone.load_denoiser()
        if self.settings.lora is not None:
            add_lora(network, self.settings.lora, self.settings.seed)
        else:
            trained_parameters(network, self._parameters, "base")
        return network

    def _train(self, network: Any, clips: StoredClips, plan: "Plan", steps: int) -> TrainingState:
        settings, file = self.settings, self.out / STATE
        todo = TrainingPlan(
            steps=steps,
            batch=settings.batch,
            lr=settings.lr,
            weight_decay=settings.weight_decay,
            seed=settings.seed,
            trainer=settings.trainer,
            shift=settings.shift,
            timestep_range=settings.timestep_range,
            prompt_length=plan.backbone.default_prompt_length(),
            dtype=self.dtype,
        )
        state = TrainingState(network, lr=todo.lr, weight_decay=todo.weight_decay)
        if file.is_file():
            state.load(file)
            self.progress.say(f"going on after {state.step} of {steps} steps")
        begin_tracking(self.accelerator, settings.tracker, settings.as_record())
        with self.progress.stage("finetune", steps - state.step) as advance:

            def after(step: int, loss: float) -> None:
                if self._main and (step % settings.checkpoint_every == 0 or step == steps):
                    state.save(file)
                self.accelerator.log(
                    {"loss": loss, "epoch": step * settings.batch / len(clips)}, step=step
                )
                advance(f"loss {loss:.4f}")

            train(
                self.backbone,
                network,
                clips,
                todo,
                state=state,
                on_step=after,
                accelerator=self.accelerator,
            )
        return state

    def _save(self, network: Any, record: TrainingRecord, state: TrainingState) -> None:
        if self.settings.lora is not None:
            save_lora(network, self.backbone, self.out)
        else:
            save_checkpoint(network, self.backbone.denoiser, self.backbone.source, self.out)
        trained = sum(p.numel() for p in state.parameters.values())
        record.about |= {"parameters": trained, "loss": state.losses}
        record.finished = True
        record.save()
        (self.out / STATE).unlink(missing_ok=True)
