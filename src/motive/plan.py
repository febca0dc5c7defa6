"""What a configuration means: the model it names, the sampler, the objective and the stages."""

import json
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from motive.backbones import load_backbone
from motive.backbones.encode import EncodeTextStage, EncodeVideoStage
from motive.backbones.source import ModelSource, file_digest, find_model
from motive.clips.ingest import IngestStage, file_key
from motive.clips.sampling import FrameSampler
from motive.errors import UserError
from motive.gradients.objective import Objective
from motive.motion.track import TrackStage
from motive.motion.trackers import make_tracker
from motive.runs.config import RunConfig
from motive.runs.provenance import write_atomically

if TYPE_CHECKING:
    from motive.backbones.base import Backbone


class Plan:
    """The resolved form of a configuration. Everything is found when it is first asked for.

    path: the run directory, where the digests of the model's files are kept.
    """

    def __init__(self, path: Path, config: RunConfig) -> None:
        self.path, self.config = path, config
        self.source: ModelSource = find_model(config.model)

    @cached_property
    def backbone(self) -> "Backbone":
        compute = self.config.compute
        if compute.threads is not None:
            import torch

            torch.set_num_threads(compute.threads)
        return load_backbone(self.source, dtype=compute.dtype, device=compute.device)

    @cached_property
    def model_fingerprint(self) -> str:
        """Of the model's files, whose digests are kept with their sizes and times for the next time."""
        kept = self.path / "model_digests.json"
        known: dict[str, str] = json.loads(kept.read_text()) if kept.is_file() else {}
        fresh: dict[str, str] = {}

        def digest(file: Path) -> str:
            key = file_key(file)
            fresh[key] = known.get(key) or file_digest(file)
            return fresh[key]

        fingerprint = self.source.fingerprint(digest)
        if self.path.is_dir() and fresh != known:
            write_atomically(kept, json.dumps(fresh, indent=1) + "\n")
        return fingerprint

    @cached_property
    def sampler(self) -> FrameSampler:
        wanted, default = self.config.sampling, self.backbone.default_sampler()
        return replace(
            default,
            max_frames=default.usable_length(wanted.frames or default.max_frames),
            height=wanted.height or default.height,
            width=wanted.width or default.width,
            fps=wanted.fps,
            mode=wanted.mode,
            fit=wanted.fit,
        )

    @cached_property
    def timesteps(self) -> tuple[int, ...]:
        chosen = self.config.gradients.timestep
        timesteps = (self.backbone.default_timestep(),) if chosen == "auto" else chosen
        timesteps = (timesteps,) if isinstance(timesteps, int) else tuple(timesteps)
        if not timesteps or any(not 1 <= t <= 1000 for t in timesteps):
            raise UserError("the timestep is wrong: use numbers from 1 to 1000, or auto")
        return timesteps

    @cached_property
    def objective(self) -> Objective:
        config = self.config
        return Objective(
            model=self.model_fingerprint,
            sampler=self.sampler.fingerprint(),
            tracker=self.track_stage.fingerprint(),
            mask=config.motion.mask,
            mask_trusted=config.motion.mask_trusted,
            static_below=config.motion.static_below,
            timesteps=self.timesteps,
            noise_seed=config.seed,
            prompt_length=self.backbone.default_prompt_length(),
            parameters=config.gradients.parameters,
            length_factor=config.gradients.length_factor,
            projection=config.gradients.projection,
            dim=config.gradients.dim,
            projection_seed=config.seed,
            dtype=str(self.backbone.dtype).removeprefix("torch."),
            text_dtype=str(self.backbone.text_dtype()).removeprefix("torch."),
        )

    @cached_property
    def ingest_stage(self) -> IngestStage:
        return IngestStage(self.sampler)

    @cached_property
    def track_stage(self) -> TrackStage:
        motion = self.config.motion
        tracker = make_tracker(motion.tracker, motion.checkpoint, str(self.backbone.device))
        stride = self.backbone.spatial_stride()
        return TrackStage(tracker, self.sampler, stride, motion.camera)

    @cached_property
    def encode_stage(self) -> EncodeVideoStage:
        return EncodeVideoStage(self.backbone, self.model_fingerprint, self.sampler)

    @cached_property
    def text_stage(self) -> EncodeTextStage:
        length = self.objective.prompt_length
        return EncodeTextStage(self.backbone, self.model_fingerprint, length)
