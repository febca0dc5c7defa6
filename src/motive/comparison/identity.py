"""What a folder's comparison is of: its specification, and the content of what that names, in spec.json."""

import csv
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from motive.comparison.arm import CLIPS, place_of, subset_of, wanted_prompts
from motive.comparison.spec import BASE, Spec
from motive.errors import UserError
from motive.runs.provenance import write_atomically

if TYPE_CHECKING:
    from motive.pipeline import Run

FILE_NAME = "spec.json"
# What may change in a comparison that is there: it adds arms and trainings, or measures more.
_CHANGEABLE = ("arms", "seeds", "reference", "evaluation", "keep_models", "compute")


def take_up(spec: Spec, run: "Run", out: Path) -> None:
    """Make `out`, or find that it has this very comparison, made from the same content.

    An arm that is left out now stays known, for the time when it is asked for again.

    Raises UserError, naming what differs, for arms whose subsets cannot be chosen, and for a LoRA that
    no videos could be made with.
    """
    file = out / FILE_NAME
    if not file.is_file() and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists and holds no comparison: choose another --out")
    before = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    mine = spec.model_dump(mode="json")
    if before:
        _refuse(out, _changed_settings(before, mine))
    inputs = _inputs(spec)
    _refuse(out, _changed_inputs(before.get("inputs", {}), inputs))
    clips = _clips(spec, run)
    known = before.get("inputs", {}).get("clips", {})
    _refuse(out, [a for a in clips if _other_clips(out / a, known.get(a, {}), clips[a])], "clips")
    mine["arms"] = {**before.get("arms", {}), **mine["arms"]}
    merged = {arm: {**known.get(arm, {}), **clips.get(arm, {})} for arm in {**known, **clips}}
    mine["inputs"] = {**inputs, "clips": merged}
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(file, json.dumps(mine, indent=1, ensure_ascii=False) + "\n")


def _refuse(out: Path, changed: list[str], what: str = "") -> None:
    if changed and what:
        raise UserError(
            f"{out} has a comparison whose {' and '.join(f'arm {name}' for name in changed)} took other "
            f"{what} (the run's selection or the list has changed): choose another --out, or bring "
            "back what it was chosen from"
        )
    if changed:
        raise UserError(
            f"{out} has a comparison with another {' and another '.join(changed)}: "
            "choose another --out, or the settings of that comparison"
        )


def _changed_settings(before: dict[str, Any], mine: dict[str, Any]) -> list[str]:
    changed = [n for n in mine if n not in _CHANGEABLE and before.get(n) != mine[n]]
    # Where it is computed may change, but not how exactly.
    if before["compute"]["dtype"] != mine["compute"]["dtype"]:
        changed.append("compute.dtype")
    return changed + [
        f"arms.{name}" for name, arm in mine["arms"].items() if before["arms"].get(name, arm) != arm
    ]


def _changed_inputs(before: dict[str, Any], mine: dict[str, Any]) -> list[str]:
    names = {
        "prompts": "content of generation.prompts",
        "images": "content of generation.images",
        "dtype": "dtype, which its device implies",
    }
    return [text for name, text in names.items() if before.get(name, mine[name]) != mine[name]]


def _inputs(spec: Spec) -> dict[str, Any]:
    """Digests of what generation starts from, whose paths alone the specification holds.

    Raises UserError for prompts and pictures that cannot be used, and a LoRA of a model with two networks.
    """
    from motive.backbones import load_backbone
    from motive.backbones.source import file_digest, find_model
    from motive.generation.images import find_images
    from motive.generation.prompts import require_names

    source, compute = find_model(spec.model), spec.compute
    if spec.training.lora is not None and source.names("transformer_2"):
        raise UserError(
            f"{source.name} has two networks, and videos cannot be made with a LoRA of one of them: "
            "leave out training.lora"
        )
    prompts, images = sorted(wanted_prompts(spec)), spec.generation.images
    require_names(prompts, spec.generation.seeds)
    pictures = find_images(Path(images), prompts) if images is not None else {}
    return {
        "prompts": _digest(prompts),
        "images": _digest(file_digest(pictures[p]) for p in prompts) if pictures else None,
        "dtype": load_backbone(source, dtype=compute.dtype, device=compute.device).dtype_name,
    }


def _clips(spec: Spec, run: "Run") -> dict[str, dict[str, str]]:
    """Digests of the clips by trained arm and place.

    Raises UserError, naming the arm, when they cannot be chosen.
    """
    found: dict[str, dict[str, str]] = {}
    for name, arm in spec.arms.items():
        if arm.subset == BASE:
            continue
        digests: dict[int, str] = {}  # by the seed of the subset, which only `random` heeds
        places = found.setdefault(name, {})
        for seed in spec.seeds:
            subset_seed = arm.subset_seed(seed) if arm.subset == "random" else 0
            if subset_seed not in digests:
                try:
                    digests[subset_seed] = _digest(subset_of(run, arm, subset_seed).clip_ids)
                except UserError as error:
                    raise UserError(f"the arm {name}: {error}") from None
            places[place_of(seed)] = digests[subset_seed]
    return found


def _other_clips(folder: Path, before: dict[str, str], mine: dict[str, str]) -> bool:
    """Whether a training of the arm in `folder` was begun with other clips than `mine`."""
    for place, digest in mine.items():
        listed = folder / place / CLIPS
        if before.get(place, digest) != digest:
            return True
        if listed.is_file():
            with listed.open(newline="", encoding="utf-8") as file:
                if _digest(row["clip_id"] for row in csv.DictReader(file)) != digest:
                    return True
    return False


def _digest(texts: Iterable[str]) -> str:
    """20 hex digits of texts in their order."""
    return hashlib.blake2b(json.dumps(list(texts)).encode(), digest_size=10).hexdigest()
