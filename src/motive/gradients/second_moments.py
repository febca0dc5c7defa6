"""The mean square of the clips' training gradients, one number for each parameter's number."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from motive.backbones.base import Backbone
from motive.backbones.finetuned import Finetuned, load_network
from motive.errors import ClipError, UserError
from motive.gradients.clip_loss import ClipLosses
from motive.gradients.moments_file import MomentsFile
from motive.gradients.objective import Objective
from motive.gradients.parameters import trained_parameters
from motive.gradients.stage import save_memory
from motive.runs.progress import Progress
from motive.runs.remote import whole_file
from motive.runs.tables import Row

CLIPS = 256  # of the corpus, the first by id: v is a mean, and settles long before a feature does
_SAVE_SECONDS = 60.0  # between two savings of what is not finished
_SAVE_SHARE = 20  # and so many times what the last one took


class SecondMoments:
    """Makes E[g²] under an objective, clip by clip, and takes up what an interruption left.

    A clip or a gradient that is not finite has no part in it; the gradient stage says why.
    """

    name = "second moments"

    def __init__(
        self, backbone: Backbone, objective: Objective, finetuned: Finetuned, file: MomentsFile
    ) -> None:
        self.backbone, self.objective, self.finetuned = backbone, objective, finetuned
        self.file = file

    def make(
        self, keys: list[str], load: Callable[[list[str]], Iterable[Row]], progress: Progress
    ) -> str:
        """The digest of the second moments over the clips of these keys, which then lie in the file.

        load: gives the rows of some of the keys in their order, as the gradient stage gets them.

        Raises UserError when no clip gave a gradient.
        """
        self.backbone.settle(self.objective.timesteps)
        denoiser: Any = load_network(self.backbone, self.finetuned)
        parameters = trained_parameters(denoiser, self.objective.parameters, self.objective.train)
        sums = _Sums(parameters)
        try:
            done = sums.take_up(self.file.unfinished, keys)
            self._add_up(denoiser, sums, load(keys[done:]), keys, done, progress)
            moments = sums.means()
        finally:
            sums.close()
            self.backbone.unload()
        facts = {"clips": len(keys), "draws": len(self.objective.timesteps)}
        return self.file.save(moments, {**facts, "objective": self.objective.to_json()})

    def _add_up(
        self,
        denoiser: Any,
        sums: "_Sums",
        rows: Iterable[Row],
        keys: list[str],
        done: int,
        progress: Progress,
    ) -> None:
        losses = ClipLosses(self.backbone, self.objective)
        saved, pause = time.monotonic(), _SAVE_SECONDS
        with progress.stage(self.name, len(keys)) as advance:
            for key in keys[:done]:
                advance(key)
            for number, row in enumerate(rows, start=done + 1):
                self._add(denoiser, losses, sums, row)
                start = time.monotonic()
                if start - saved > pause:
                    sums.save(self.file.unfinished, keys[:number])
                    saved = time.monotonic()
                    pause = max(_SAVE_SECONDS, _SAVE_SHARE * (saved - start))
                advance(str(row.get("file_name", row["key"])))

    def _add(self, denoiser: Any, losses: ClipLosses, sums: "_Sums", row: Row) -> None:
        try:
            clip = losses.inputs(row)
        except ClipError:
            return
        save_memory(denoiser, clip.latents_cfhw)
        for draw in losses.draws(clip):
            loss = draw.loss(draw.predict(denoiser))
            if torch.isfinite(loss):
                sums.add(loss)


class _Sums:
    """Sums of squared gradients, filled by hooks as a backward pass hands each of them over."""

    def __init__(self, parameters: dict[str, torch.nn.Parameter]) -> None:
        self.parameters = parameters
        self.sums = {
            name: torch.zeros_like(p, dtype=torch.float32) for name, p in parameters.items()
        }
        self.counts = dict.fromkeys(parameters, 0)
        self._handles = [
            p.register_post_accumulate_grad_hook(lambda p, name=name: self._take(name, p))
            for name, p in parameters.items()
        ]

    def add(self, loss: torch.Tensor) -> None:
        """One more gradient of each parameter; one that the loss does not reach is zero."""
        for name in self.counts:
            self.counts[name] += 1
        loss.backward()

    def _take(self, name: str, parameter: torch.Tensor) -> None:
        gradient, parameter.grad = parameter.grad, None
        assert gradient is not None
        square = gradient.detach().float().square()
        if torch.isfinite(square.sum()):
            self.sums[name] += square
        else:
            self.counts[name] -= 1

    def means(self) -> dict[str, torch.Tensor]:
        means = {name: s / max(1, self.counts[name]) for name, s in self.sums.items()}
        if not any(mean.any() for mean in means.values()):
            raise UserError(
                "no clip gave a finite gradient, so there are no second moments: see failures.csv, "
                "or use --estimator paper"
            )
        return means

    def save(self, file: Path, keys: list[str]) -> None:
        """Keep the sums over the clips of these keys."""
        file.parent.mkdir(parents=True, exist_ok=True)
        counts = {f"count of {name}": str(count) for name, count in self.counts.items()}
        with whole_file(file) as part:
            tensors = {name: s.cpu().contiguous() for name, s in self.sums.items()}
            save_file(tensors, part, {"keys": " ".join(keys), **counts})

    def take_up(self, file: Path, keys: list[str]) -> int:
        """Go on from kept sums if they are over the first of these keys; returns over how many."""
        if not file.is_file():
            return 0
        try:
            with safe_open(file, "pt") as kept:
                metadata = kept.metadata()
                done = metadata["keys"].split(" ")
                if keys[: len(done)] != done or set(kept.keys()) != set(self.sums):
                    return 0
                for name, s in self.sums.items():
                    s.copy_(kept.get_tensor(name))
                    self.counts[name] = int(metadata[f"count of {name}"])
        except (OSError, SafetensorError, KeyError):
            return 0
        return len(done)

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()
