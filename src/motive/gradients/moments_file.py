"""Second moments of gradients as they lie in a run directory, and the scale that they make.

AdamW divides a step, coordinate by coordinate, by the root of the gradients' mean square v. Estimators that
follow it (`motive.influence.estimators`) multiply both sides of the product by (v + ε)^(−1/4). A random
projection mixes coordinates, so this is done before it, and v has a number for each parameter's number.

A run makes v once (`gradients.second_moments`) and keeps it: clips that come later are scaled as those before
them, or the features of the two could not be compared.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from motive.errors import UserError
from motive.runs.processes import part_name
from motive.runs.remote import RemotePath, RunPath, cache_folder, whole_file

if TYPE_CHECKING:
    import torch

FOLDER = "preconditioner"
DAMPING = 1e-3  # ε as a share of the mean of v: AdamW's ε, and coordinates that are hardly ever met


class MomentsFile:
    """Where a run keeps the second moments that were made under one objective.

    objective_id: of the gradients that were squared.
    """

    def __init__(self, run: RunPath, objective_id: str) -> None:
        self._folder = run / FOLDER
        self._record = self._folder / f"{objective_id}.json"
        self.unfinished = cache_folder(run, FOLDER) / f"{objective_id}.unfinished.safetensors"

    def digest(self) -> str | None:
        """Of the numbers, 16 hex digits; None while there are none."""
        if not self._record.is_file():
            return None
        return str(json.loads(self._record.read_text())["digest"])

    def save(self, moments: "Mapping[str, torch.Tensor]", facts: Mapping[str, Any]) -> str:
        """Keep second moments for good, unless another process was first; returns the kept ones' digest.

        facts: what else is to be said of them in the record.
        """
        from safetensors.torch import save_file

        digest = _digest(moments)
        record = (json.dumps({"digest": digest, **facts}, indent=1) + "\n").encode()
        try:
            if not isinstance(self._folder, RemotePath):
                self._folder.mkdir(parents=True, exist_ok=True)
            with whole_file(self._tensors(digest)) as part:
                save_file({name: v.cpu().contiguous() for name, v in moments.items()}, part)
            self._create_record(record)
        except OSError as error:
            raise UserError(
                f"{self._folder} cannot be written ({error.strerror or error}): free space and run "
                "the same command again"
            ) from None
        self.unfinished.unlink(missing_ok=True)
        kept = self.digest()
        assert kept is not None
        return kept

    def load(self, digest: str) -> "dict[str, torch.Tensor]":
        """The second moments of a digest, float32, on the CPU.

        Raises UserError when they are not there, or not what was written.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load, load_file

        file = self._tensors(digest)
        try:
            remote = isinstance(file, RemotePath)
            moments = load(file.read_bytes()) if remote else load_file(str(file))
        except (OSError, SafetensorError) as error:
            raise self._broken(file, str(error)) from None
        if _digest(moments) != digest:
            raise self._broken(file, "it is not what was written")
        return moments

    def _create_record(self, content: bytes) -> None:
        """Write it unless it is there: of several processes the first one's second moments count."""
        if isinstance(self._record, RemotePath):
            self._record.create(content)
            return
        part = self._record.with_name(part_name(self._record.name))
        try:
            part.write_bytes(content)
            os.link(part, self._record)
        except FileExistsError:
            pass
        finally:
            part.unlink(missing_ok=True)

    def _broken(self, file: RunPath, reason: str) -> UserError:
        return UserError(
            f"the second moments in {file} cannot be read ({reason}): remove {self._folder} and run "
            "motive gradients to make them and the features anew"
        )

    def _tensors(self, digest: str) -> RunPath:
        return self._folder / f"{digest}.safetensors"


def scale_of(moments: "Mapping[str, torch.Tensor]") -> "dict[str, torch.Tensor]":
    """(v + ε)^(−1/4) for each number, divided by its mean over all of them.

    The dot product of two gradients that were both multiplied by it is gᵀ (v + ε)^(−1/2) h, up to a
    factor.
    """
    count = sum(v.numel() for v in moments.values())
    damping = DAMPING * sum(float(v.double().sum()) for v in moments.values()) / count
    scale = {name: (v + damping).pow(-0.25) for name, v in moments.items()}
    mean = sum(float(s.double().sum()) for s in scale.values()) / count
    return {name: s / mean for name, s in scale.items()}


def _digest(moments: "Mapping[str, torch.Tensor]") -> str:
    found = hashlib.blake2b(digest_size=8)
    for name in sorted(moments):
        found.update(f"{name} {tuple(moments[name].shape)}\n".encode())
        found.update(moments[name].cpu().reshape(-1).numpy().data)
    return found.hexdigest()
