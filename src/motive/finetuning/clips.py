"""The clips of a training: latents and conditions, in memory as far as they fit."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

import torch

from motive.backbones.encode import tensors_of
from motive.rows import caption_rows, clip_rows
from motive.runs.members import Member, Members
from motive.runs.stage import Stage
from motive.runs.tables import Row

if TYPE_CHECKING:
    from motive.pipeline import Run
    from motive.plan import Plan

KEPT_BYTES = 4 * 2**30  # of clips in memory; the others are read again each time
_READ = 32  # clips whose rows are read from the tables at once


@dataclass(frozen=True)
class TrainingClip:
    """A clip as `Backbone.encode_video` and `encode_text` give it, on any device.

    latents_cfhw: float32. conditions: what the denoiser sees beside it, by name.
    """

    clip_id: str
    latents_cfhw: torch.Tensor
    conditions: dict[str, torch.Tensor]

    @property
    def bytes(self) -> int:
        return sum(t.nbytes for t in (self.latents_cfhw, *self.conditions.values()))


class StoredClips(Sequence[TrainingClip]):
    """Clips that were encoded in a run, read from its tables.

    members: the clips. plan: whose stages encoded them.
    kept_bytes: of clips that stay in memory.
    """

    def __init__(
        self, run: "Run", plan: "Plan", members: Sequence[Member], kept_bytes: int = KEPT_BYTES
    ) -> None:
        self._run, self._plan, self._members = run, plan, members
        self._kept: dict[int, TrainingClip] = {}
        self._keep(kept_bytes)

    @property
    def clip_ids(self) -> list[str]:
        return [member.clip_id for member in self._members]

    def __len__(self) -> int:
        return len(self._members)

    @overload
    def __getitem__(self, index: int) -> TrainingClip: ...
    @overload
    def __getitem__(self, index: slice) -> list[TrainingClip]: ...
    def __getitem__(self, index: int | slice) -> TrainingClip | list[TrainingClip]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if index in self._kept:
            return self._kept[index]
        (clip,) = self._read([self._members[index]])
        return clip

    def _keep(self, most: int) -> None:
        kept = 0
        for first in range(0, len(self), _READ):
            read = self._read(self._members[first : first + _READ])
            for i, clip in enumerate(read, start=first):
                kept += clip.bytes
                if kept > most:
                    return
                self._kept[i] = clip

    def _read(self, members: Sequence[Member]) -> list[TrainingClip]:
        plan = self._plan
        videos = self._rows(plan.encode_stage, (m.clip_id for m in members))
        texts = self._rows(plan.text_stage, (m.caption_id for m in members))
        clips = []
        for member in members:
            conditions = tensors_of(videos[member.clip_id]) | tensors_of(texts[member.caption_id])
            latents = conditions.pop("latents")
            clips.append(TrainingClip(member.clip_id, latents, conditions))
        return clips

    def _rows(self, stage: Stage, keys: Iterable[str]) -> dict[str, Row]:
        return self._run.store.results(stage).lookup(sorted(set(keys)), stage.fingerprint())


def encode(run: "Run", plan: "Plan", members: Sequence[Member]) -> dict[str, str]:
    """Put what is not there yet through the plan's encoders, into the run's tables.

    Returns the reason why a clip cannot be encoded, by clip id, for those.
    """
    chosen = Members.of(members)
    for stage, rows in (
        (plan.encode_stage, clip_rows(chosen)),
        (plan.text_stage, caption_rows(chosen)),
    ):
        # The stage's log is left alone where there is nothing to do.
        if (
            set(run.store.without(stage, rows.keys.array).to_pylist())
            - run.store.failed(stage).keys()
        ):
            run.store.work(stage, rows, run.progress)
    videos, texts = run.store.failed(plan.encode_stage), run.store.failed(plan.text_stage)
    return {
        m.clip_id: videos.get(m.clip_id) or texts[m.caption_id]
        for m in members
        if m.clip_id in videos or m.caption_id in texts
    }
