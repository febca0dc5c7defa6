"""Which videos a dimension is asked of: all, or those of VBench's own prompts for it."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from motive.errors import UserError

PER_PROMPT = 5  # videos of a prompt that VBench scores, numbered from 0

# VBench's files of prompts, with the dimensions that they are for.
_FILES = {
    "subject_consistency": ("subject_consistency", "dynamic_degree", "motion_smoothness"),
    "scene": ("background_consistency",),
    "overall_consistency": ("aesthetic_quality", "imaging_quality"),
    "temporal_flickering": ("temporal_flickering",),
}
# Whose prompts a dimension that is not VBench's is asked of.
_LIKE = {
    "dynamic_degree_dis": "dynamic_degree",
    "motion_smoothness_dis": "motion_smoothness",
    "jerk": "motion_smoothness",
}


@dataclass(frozen=True)
class Choice:
    """The videos of a dimension. missing: names that the prompt list asks for and are not there."""

    videos: list[Path]
    missing: list[str]


def prompt_of(video: Path) -> str:
    """`PROMPT-0.mp4` and `PROMPT.mp4` are of PROMPT."""
    return re.sub(r"-\d+$", "", video.stem)


def choose(
    dimension: str,
    videos: Iterable[Path],
    lists: Mapping[str, list[str]] | None,
    per_prompt: int | None = PER_PROMPT,
) -> Choice:
    """The videos of a dimension, by the prompts that `read_prompt_lists` gave; None takes all videos.

    per_prompt: how many of a prompt are looked for; None takes all that there are.
    """
    videos = list(videos)
    if lists is None:
        return Choice(videos, [])
    prompts = lists.get(_LIKE.get(dimension, dimension), [])
    if per_prompt is None:
        wanted = set(prompts)
        return Choice([video for video in videos if prompt_of(video) in wanted], [])
    there = {video.name: video for video in videos}
    names = [f"{prompt}-{i}.mp4" for prompt in prompts for i in range(per_prompt)]
    return Choice([there[n] for n in names if n in there], [n for n in names if n not in there])


def read_prompt_lists(path: Path) -> dict[str, list[str]]:
    """VBench's prompts by dimension, from its folder `prompts_per_dimension` or VBench_full_info.json.

    Raises UserError when it is neither.
    """
    lists = _from_folder(path) if path.is_dir() else _from_json(path)
    if not lists:
        raise UserError(
            f"{path} has no prompt lists: give VBench's folder prompts_per_dimension or its "
            "VBench_full_info.json"
        )
    return lists


def _from_folder(folder: Path) -> dict[str, list[str]]:
    from motive.generation.prompts import read_prompts

    lists = {}
    for name, dimensions in _FILES.items():
        file = folder / f"{name}.txt"
        if file.is_file():
            lists.update(dict.fromkeys(dimensions, read_prompts(file)))
    return lists


def _from_json(path: Path) -> dict[str, list[str]]:
    import json

    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        lists: dict[str, list[str]] = {}
        for entry in content:
            for dimension in entry["dimension"]:
                lists.setdefault(dimension, []).append(str(entry["prompt_en"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = getattr(error, "strerror", None) or "it is no list of prompts with dimensions"
        raise UserError(f"{path} cannot be read ({reason}): give VBench_full_info.json") from None
    return lists
