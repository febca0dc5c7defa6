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
from motive.clips.sampling import FrameSampler
from motive.errors import UserError
from motive.gradients.objective import Objective
from motive.gradients.trainers import PAPER, Draw, trainer_draws, trainer_posterior
from motive.motion.track import TrackStage
from motive.motion.trackers import make_tracker
from motive.runs.config import RunConfig
from motive.runs.provenance import write_atomically

if TYPE_CHECKING:
    import torch

    from motive.backbones.base import Backbone


class Plan:
    """The resolved form of a configuration. Everything is found when it is first asked for.

    path: the run directory, where the digests of the model's files are kept.
    dtypes: of the denoiser and of the text encoder, where they were settled before; None lets the
        configuration and the device decide.
    source: the model, where it was found before.
    """

    def __init__(
        self,
        path: Path,
        config: RunConfig,
        dtypes: tuple[str, str] | None = None,
        source: ModelSource | None = None,
    ) -> None:
        self.path, self.config, self._dtypes = path, config, dtypes
        self.source: ModelSource = source or find_model(config.model)
        self._digests: dict[str, str] = {}

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
    def _digest_file(self) -> Path:
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
    def timesteps(self) -> tuple[float, ...]:
        """1000 σ of the objective's draws.

        Raises UserError as `draws`.
        """
        return tuple(draw.timestep for draw in self.draws)

    @cached_property
    def draws(self) -> list[Draw]:
        """The timesteps of the objective: the paper's one, the user's, or a trainer's.

        Raises UserError for settings that contradict each other, for a trainer that does not train such
        a model, or for timesteps of two networks.
        """
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
            draws = trainer_draws(
                wanted.trainer,
                self.source.name,
                self.backbone.family,
                wanted.draws,
                wanted.shift,
                wanted.timestep_range,
            )
        self.backbone.settle(tuple(draw.timestep for draw in draws))
        return draws

    def _chosen_timesteps(self) -> tuple[int, ...]:
        chosen = self.config.gradients.timestep
        timesteps = (self.backbone.default_timestep(),) if chosen == "auto" else chosen
        timesteps = (timesteps,) if isinstance(timesteps, int) else tuple(timesteps)
        if not timesteps or any(not 1 <= t <= 1000 for t in timesteps):
            raise UserError("the timestep is wrong: use numbers from 1 to 1000, or auto")
        return timesteps

    @cached_property
    def objective(self) -> Objective:
        config, told = self.config, tuple(draw.told for draw in self.draws)
        weights = tuple(draw.weight for draw in self.draws)
        return Objective(
            model=self._fingerprints[1],
            sampler=self.sampler.fingerprint(),
            tracker=self.track_stage.fingerprint(),
            mask=config.motion.mask,
            mask_trusted=config.motion.mask_trusted,
            static_below=config.motion.static_below,
            timesteps=self.timesteps,
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
            denoiser=self.backbone.settle(self.timesteps),
            trainer=config.gradients.trainer,
            told=told if told != self.timesteps else (),
            weights=weights if set(weights) != {1.0} else (),
            train=self.finetuned.train,
        )

    @cached_property
    def ingest_stage(self) -> IngestStage:
        return IngestStage(self.sampler)

    @cached_property
    def track_stage(self) -> TrackStage:
        motion = self.config.motion
        # Only a network has a device, and to find one costs the import of torch.
        device = "cpu" if motion.tracker == "dis" else str(self.backbone.device)
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
