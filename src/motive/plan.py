"""What a configuration means: the model it names, the sampler, the objective and the stages."""

import hashlib
import json
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

from motive.backbones import load_backbone
from motive.backbones.encode import EncodeTextStage, EncodeVideoStage
from motive.backbones.finetuned import Finetuned
from motive.backbones.private import code_digest
from motive.backbones.source import ModelSource, file_digest, find_model
from motive.clips.ingest import IngestStage, file_key
from motive.clips.isolation import DecodingLimits
from motive.clips.sampling import FrameSampler
from motive.errors import UserError
from motive.gradients.counter import key
from motive.gradients.moments_file import MomentsFile
from motive.gradients.objective import Objective
from motive.gradients.trainers import PAPER, Draw, trainer_draws, trainer_posterior
from motive.influence.estimators import Estimator, Side, estimator_named
from motive.motion.track import TrackStage
from motive.motion.trackers import make_tracker
from motive.runs.config import RunConfig
from motive.runs.members import Role
from motive.runs.provenance import write_atomically
from motive.runs.remote import RunPath

if TYPE_CHECKING:
    import torch

    from motive.backbones.base import Backbone

MOMENT_DRAWS = 4  # timesteps and noises of each clip that second moments are taken over


class Plan:
    """The resolved form of a configuration. Everything is found when it is first asked for.

    path: the run directory, where the digests of the model's files are kept.
    dtypes: of the denoiser and of the text encoder, where they were settled before; None lets the
        configuration and the device decide.
    source: the model, where it was found before.
    """

    def __init__(
        self,
        path: RunPath,
        config: RunConfig,
        dtypes: tuple[str, str] | None = None,
        source: ModelSource | None = None,
    ) -> None:
        self.path, self.config, self._dtypes = path, config, dtypes
        self.source: ModelSource = source or find_model(config.model)
        self._digests: dict[str, str] = {}
        self._moments_digest = ""
        limits = config.compute
        self._decoding = DecodingLimits(limits.clip_seconds, limits.clip_memory, limits.decoders)

    @cached_property
    def backbone(self) -> "Backbone":
        compute = self.config.compute
        dtype, text_dtype = self._dtypes or (compute.dtype, "auto")
        backbone = load_backbone(
            self.source,
            dtype=dtype,
            device=compute.device,
            text_dtype=text_dtype,
            threads=compute.threads,
        )
        if self._posterior_for(backbone) == "sample":
            backbone.sample_posterior(partial(_posterior_noise, self.config.seed))
        return backbone

    @property
    def posterior(self) -> str:
        """What of the VAE's posterior the latents are: `mean` or `sample`."""
        return self._posterior_for(self.backbone)

    def _posterior_for(self, backbone: "Backbone") -> str:
        wanted = self.config.gradients
        return wanted.posterior or trainer_posterior(wanted.trainer, backbone.family)

    @property
    def parameters(self) -> str:
        """Name pattern of the parameters that are differentiated."""
        everything = "*" if self.finetuned.train == "lora" else self.backbone.trained
        return self.config.gradients.parameters or everything

    @cached_property
    def finetuned(self) -> Finetuned:
        """The fine-tuned weights over the model.

        Raises UserError for settings that contradict each other.
        """
        return Finetuned(**self.config.finetuned.model_dump())

    @property
    def model_fingerprint(self) -> str:
        """Of the model's files, as they are without fine-tuning."""
        return self._fingerprints[0]

    @cached_property
    def _fingerprints(self) -> tuple[str, str]:
        """Of the model, and of the network that is differentiated, with its fine-tuned weights.

        The files' digests are kept with their sizes and times for the next time.
        """
        kept = self._digest_file
        known: dict[str, str] = json.loads(kept.read_text()) if kept.is_file() else {}

        def digest(file: Path) -> str:
            key = file_key(file)
            self._digests[key] = known.get(key) or file_digest(file)
            return self._digests[key]

        fingerprint = self.source.fingerprint(digest)
        if code := code_digest(type(self.backbone)):
            # An adapter of the user's own: its code makes the features as much as the weights do.
            fingerprint = hashlib.blake2b(
                f"{fingerprint} {code}".encode(), digest_size=10
            ).hexdigest()
        # Of two experts, the one that the timesteps are of.
        expert = self.backbone.settle(self.timesteps)
        trained = self.finetuned.fingerprint(fingerprint, expert, digest)
        return fingerprint, trained

    def keep_digests(self) -> None:
        """Write the digests of the model's files into the run directory, for the next time."""
        text = json.dumps(self._digests, indent=1) + "\n"
        if self._digests and not (
            self._digest_file.is_file() and self._digest_file.read_text() == text
        ):
            write_atomically(self._digest_file, text)

    @property
    def _digest_file(self) -> RunPath:
        return self.path / "model_digests.json"

    @cached_property
    def sampler(self) -> FrameSampler:
        """Which frames of a file are its clip.

        Raises UserError when the model does not take the size.
        """
        wanted, default = self.config.sampling, self.backbone.default_sampler()
        sampler = replace(
            default,
            max_frames=default.usable_length(wanted.frames or default.max_frames),
            height=wanted.height or default.height,
            width=wanted.width or default.width,
            fps=wanted.fps,
            mode=wanted.mode,
            fit=wanted.fit,
        )
        longest = self.backbone.longest_clip()
        if longest is not None and sampler.max_frames > longest:
            raise UserError(
                f"clips of {sampler.max_frames} frames are too long for {self.source.name}, which takes "
                f"{longest} at most: use --frames {longest} or fewer"
            )
        rows, columns = self.backbone.size_multiples()
        if sampler.height % rows or sampler.width % columns:
            near = f"{_nearest(sampler.height, rows)}x{_nearest(sampler.width, columns)}"
            raise UserError(
                f"the size {sampler.height}x{sampler.width} does not suit {self.source.name}, which "
                f"takes multiples of {rows}x{columns} pixels: use another --size, such as {near}"
            )
        return sampler

    @property
    def estimator(self) -> Estimator:
        """Whose gradients are compared, and how."""
        return estimator_named(self.config.gradients.estimator)

    @property
    def timesteps(self) -> tuple[float, ...]:
        """1000 σ of the draws of the clips' objective.

        Raises UserError as `draws`.
        """
        return tuple(draw.timestep for draw in self.draws)

    @cached_property
    def draws(self) -> list[Draw]:
        """The timesteps of the clips' objective: those of training where the estimator averages over it,
        else the paper's one, the user's, or a trainer's.

        Raises UserError for settings that contradict each other, for a trainer that does not train such
        a model, or for timesteps of two networks.
        """
        if self.estimator.units:
            return self._draws_as_set()
        wanted = self.config.gradients.draws
        return self._training_draws(wanted if wanted > 1 else self.estimator.clips.draws)

    def _training_draws(self, count: int) -> list[Draw]:
        """`count` equally likely timesteps of what training draws from: its quantiles (k + ½) / count.

        Without a trainer's name it is what `motive finetune` draws from by default.
        """
        wanted = self.config.gradients
        if wanted.timestep != "auto":
            raise UserError(
                f"the estimator {wanted.estimator} averages over the timesteps of training: "
                "use --draws instead of --timestep"
            )
        if wanted.trainer == PAPER:
            from motive.finetuning.randomness import quantile_draws

            draws = quantile_draws(self.backbone, count, wanted.shift, wanted.timestep_range)
        else:
            draws = self._trainer_draws(count)
        self.backbone.settle(tuple(draw.timestep for draw in draws))
        return draws

    def _draws_as_set(self) -> list[Draw]:
        wanted = self.config.gradients
        if wanted.trainer == PAPER:
            if (wanted.draws, wanted.shift, wanted.timestep_range) != (1, None, None):
                raise UserError(
                    "draws, a shift and a timestep range are of a trainer's objective: "
                    "name it with --trainer, or give --timestep several numbers"
                )
            draws = [Draw(t, t, 1.0) for t in self._chosen_timesteps()]
        else:
            if wanted.timestep != "auto":
                raise UserError(
                    f"{wanted.trainer} draws its own timesteps: use --draws instead of --timestep"
                )
            draws = self._trainer_draws(wanted.draws)
        self.backbone.settle(tuple(draw.timestep for draw in draws))
        return draws

    def _trainer_draws(self, count: int) -> list[Draw]:
        wanted, family = self.config.gradients, self.backbone.family
        limits = wanted.shift, wanted.timestep_range
        return trainer_draws(wanted.trainer, self.source.name, family, count, *limits)

    def _chosen_timesteps(self) -> tuple[int, ...]:
        chosen = self.config.gradients.timestep
        timesteps = (self.backbone.default_timestep(),) if chosen == "auto" else chosen
        timesteps = (timesteps,) if isinstance(timesteps, int) else tuple(timesteps)
        if not timesteps or any(not 1 <= t <= 1000 for t in timesteps):
            raise UserError("the timestep is wrong: use numbers from 1 to 1000, or auto")
        return timesteps

    @property
    def objective(self) -> Objective:
        """What the clips' features are made with; the queries', too, unless the estimator sets them apart."""
        return self.objective_of("clip")

    def objective_of(self, role: Role) -> Objective:
        """What the features of the clips, or of the queries, are made with."""
        estimator, draws = self.estimator, self._shared_objective.timesteps
        side: Side = estimator.clips if role == "clip" else estimator.queries
        if estimator.units:
            mask = "none" if side.floor is None else self._shared_objective.mask
            return replace(self._shared_objective, mask=mask)
        # The queries' further draws are at the same timesteps, with noises that clips do not have.
        times = side.draws // estimator.clips.draws
        return replace(
            self._sums(self._shared_objective, side.floor),
            timesteps=times * draws,
            told=times * self._shared_objective.told,
            weights=times * self._shared_objective.weights,
            preconditioner=self._preconditioner if estimator.preconditioned else "",
        )

    @staticmethod
    def _sums(objective: Objective, floor: float | None) -> Objective:
        """The same for gradients as training adds them up: not normalised, and without the paper's 1 / F."""
        mask = "none" if floor is None else objective.mask
        trusted = objective.mask_trusted and mask != "none"
        return replace(
            objective,
            mask=mask,
            mask_trusted=trusted,
            floor=floor or 0.0,
            average="sums",
            length_factor=False,
        )

    @property
    def moments_objective(self) -> Objective:
        """What the second moments are of: the training loss, whatever mask and projection the run has."""
        draws = self._training_draws(MOMENT_DRAWS)
        return replace(
            self._sums(self._objective_at(draws), None),
            noise_seed=key(self.config.seed, "second moments"),
            tracker="",
            static_below=0.0,
            projection="identity",
            dim=1,
            projection_seed=0,
        )

    @property
    def moments_file(self) -> MomentsFile:
        """Where the second moments lie, once they are made."""
        return MomentsFile(self.path, self.moments_objective.id)

    @property
    def _preconditioner(self) -> str:
        """The second moments' digest, which no objective has before they are made."""
        if not self._moments_digest:
            self._moments_digest = self.moments_file.digest() or ""
        return self._moments_digest or "not made yet"

    @cached_property
    def paper_objective(self) -> Objective:
        """What the paper's estimator differentiates under the same settings."""
        return self._objective_at(self._draws_as_set())

    @cached_property
    def _shared_objective(self) -> Objective:
        """What both sides of the estimator have in common."""
        return self._objective_at(self.draws)

    def _objective_at(self, draws: list[Draw]) -> Objective:
        config, told = self.config, tuple(draw.told for draw in draws)
        timesteps = tuple(draw.timestep for draw in draws)
        weights = tuple(draw.weight for draw in draws)
        return Objective(
            model=self._fingerprints[1],
            sampler=self.sampler.fingerprint(),
            tracker=self.track_stage.fingerprint(),
            mask=config.motion.mask,
            mask_trusted=config.motion.mask_trusted,
            static_below=config.motion.static_below,
            timesteps=timesteps,
            noise_seed=config.seed,
            prompt_length=self.backbone.default_prompt_length(),
            parameters=self.parameters,
            length_factor=config.gradients.length_factor,
            projection=config.gradients.projection,
            dim=config.gradients.dim,
            projection_seed=config.seed,
            dtype=self.backbone.dtype_name,
            text_dtype=self.backbone.text_dtype_name,
            posterior=self.posterior,
            denoiser=self.backbone.settle(timesteps),
            trainer=config.gradients.trainer,
            told=told if told != timesteps else (),
            weights=weights if set(weights) != {1.0} else (),
            train=self.finetuned.train,
        )

    @cached_property
    def ingest_stage(self) -> IngestStage:
        return IngestStage(self.sampler, self._decoding)

    def limit_decoding(
        self, seconds: float | None, megabytes: int | None, processes: int | None
    ) -> None:
        """Other limits than run.yaml's, as long as this object lives; None leaves one as it is."""
        if any(value is not None and value <= 0 for value in (seconds, megabytes, processes)):
            raise UserError("the limits of decoding are wrong: give numbers above 0")
        old = self._decoding
        self._decoding = DecodingLimits(
            seconds or old.seconds, megabytes or old.megabytes, processes or old.processes
        )

    @cached_property
    def track_stage(self) -> TrackStage:
        motion = self.config.motion
        compute = self.config.compute
        if motion.tracker == "dis":
            device = "cpu"  # only a network has a device, and to find one costs the import of torch
        elif compute.engine == "ray" and compute.device != "auto":
            device = compute.device  # of the workers' machines; this one need not have it
        else:
            device = str(self.backbone.device)
        tracker = make_tracker(motion.tracker, motion.checkpoint, device)
        stride = self.backbone.spatial_stride()
        return TrackStage(tracker, self.sampler, stride, motion.camera)

    @cached_property
    def encode_stage(self) -> EncodeVideoStage:
        drawn = f"sample seed={self.config.seed}"
        return EncodeVideoStage(
            self.backbone,
            self.model_fingerprint,
            self.sampler,
            posterior=drawn if self.posterior == "sample" else "mean",
        )

    @cached_property
    def text_stage(self) -> EncodeTextStage:
        length = self.objective.prompt_length
        return EncodeTextStage(self.backbone, self.model_fingerprint, length)


def _posterior_noise(seed: int, shape_cfhw: tuple[int, ...]) -> "torch.Tensor":
    from motive.gradients.noise import posterior_noise

    return posterior_noise(seed, shape_cfhw)


def _nearest(pixels: int, multiple: int) -> int:
    return max(1, round(pixels / multiple)) * multiple
